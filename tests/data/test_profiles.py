"""Color profiles: pictures are converted to sRGB, whatever their mode, and sRGB files keep their pixels."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from _helpers.small import make_image
from PIL import Image, ImageCms

from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.notes import CONVERTED_COLORS, IGNORED_PROFILE, TRANSPARENT_PIXELS, UNUSED_PROFILE
from gantoolkit.data.pixels import read_decoded_image, read_pixels

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swap_red_and_green() -> bytes:
    """The sRGB profile with its red and green primaries exchanged."""
    content = bytearray(SRGB)
    (count,) = struct.unpack(">I", content[128:132])
    entries = {bytes(content[132 + 12 * index :][:4]): 132 + 12 * index for index in range(count)}
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    content[red : red + 4], content[green : green + 4] = b"gXYZ", b"rXYZ"
    content[84:100] = bytes(16)  # the profile's checksum: not computed
    return bytes(content)


def pack_profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    header = bytearray(128)
    header[8:12], header[12:16], header[16:20], header[20:24] = b"\2\x10\0\0", kind, space, connection
    header[36:40] = b"acsp"
    header[68:80] = struct.pack(">3i", 63190, 65536, 54061)  # D50
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    profile = bytes(header) + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(profile)) + profile[4:]


def text(words: bytes) -> bytes:
    return b"desc" + bytes(4) + struct.pack(">I", len(words) + 1) + words + bytes(1 + 8 + 3 + 67)


WHITE = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
LINEAR_GRAY = pack_profile(
    b"GRAY",
    b"XYZ ",
    b"mntr",
    {b"desc": text(b"linear"), b"wtpt": WHITE, b"kTRC": b"curv" + bytes(8), b"cprt": text(b"-")},
)
"""A profile of gray levels that are proportional to light."""


def only_black_prints() -> bytes:
    """A CMYK profile in which only the black ink is visible: a table of 2⁴ colors in CIELAB."""
    ramp = bytes(range(256))
    corners = [bytes([255 * (1 - black), 128, 128]) for _ in range(8) for black in (0, 1)]
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + b"".join(corners) + ramp * 3
    return pack_profile(
        b"CMYK", b"Lab ", b"prtr", {b"desc": text(b"ink"), b"wtpt": WHITE, b"A2B0": table, b"cprt": text(b"-")}
    )


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_colors_are_converted_to_sRGB(form: str, tmp_path: Path) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    Image.new("RGB", (16, 16), (200, 30, 60)).save(tmp_path / "x", form, icc_profile=swap_red_and_green(), **options)
    decoded = read_decoded_image(tmp_path / "x", PICTURE)
    assert np.abs(decoded.pixels[3, 3].astype(int) - [30, 200, 60]).max() <= 3
    assert decoded.notes == (CONVERTED_COLORS,)
    gray = read_pixels(tmp_path / "x", Encoding(1))
    assert abs(int(gray[3, 3, 0]) - (0.299 * 30 + 0.587 * 200 + 0.114 * 60)) <= 3


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_palettes_and_transparent_pictures_are_converted(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), (200, 30, 60))
    if mode == "P":
        image = image.quantize(2)
    else:
        image.putalpha(128)
    image.save(tmp_path / "x.png", icc_profile=swap_red_and_green())
    decoded = read_decoded_image(tmp_path / "x.png", PICTURE)
    share = 1 if mode == "P" else 128 / 255
    expected = np.array([30, 200, 60]) * share + 255 * (1 - share)
    assert np.abs(decoded.pixels[3, 3] - expected).max() <= 3
    assert decoded.notes == ((CONVERTED_COLORS,) if mode == "P" else (CONVERTED_COLORS, TRANSPARENT_PIXELS))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("dtype", "half"), [(np.uint8, 128), (np.uint16, 128 * 257)])
def test_gray_levels_are_converted(dtype: type, half: int, channels: int, tmp_path: Path) -> None:
    white = np.iinfo(dtype).max
    levels = np.array([[0, half, white]], dtype=dtype)
    for name in ("x.png", "x.tif"):
        Image.fromarray(levels).save(tmp_path / name, icc_profile=LINEAR_GRAY)
        decoded = read_decoded_image(tmp_path / name, Encoding(channels))
        assert np.abs(decoded.pixels[0].astype(int) - [[0], [188], [255]]).max() <= 1  # 188: half of the light in sRGB
        assert decoded.notes == (CONVERTED_COLORS,)


def test_inks_are_converted(tmp_path: Path) -> None:
    inks = np.array([[[255, 255, 255, 0], [0, 0, 0, 255], [255, 0, 0, 255]]], np.uint8).repeat(8, axis=0)
    Image.fromarray(inks, "CMYK").save(tmp_path / "x.tif", icc_profile=only_black_prints())
    decoded = read_decoded_image(tmp_path / "x.tif", PICTURE)
    assert decoded.pixels[0].min(axis=1).tolist()[0] >= 253
    assert decoded.pixels[0, 1:].max() <= 2
    assert decoded.notes == (CONVERTED_COLORS,)
    Image.new("CMYK", (16, 16), (255, 255, 255, 0)).save(
        tmp_path / "x.jpg", icc_profile=only_black_prints(), quality=100
    )
    assert read_pixels(tmp_path / "x.jpg", PICTURE).min() >= 253


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_pixels_of_sRGB_files_are_kept(mode: str, tmp_path: Path) -> None:
    picture = make_image(2, (40, 30)).convert(mode)
    picture.save(tmp_path / "plain.png")
    picture.save(tmp_path / "tagged.png", icc_profile=SRGB)
    tagged = read_decoded_image(tmp_path / "tagged.png", PICTURE)
    assert np.array_equal(tagged.pixels, read_pixels(tmp_path / "plain.png", PICTURE))
    assert tagged.notes == ()


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"no profile" * 50),
        ("RGB", LINEAR_GRAY),
        ("CMYK", SRGB),
        ("RGB", SRGB[:300]),
        ("L", only_black_prints()),
    ],
)
def test_profile_that_cannot_be_used_is_named(mode: str, profile: bytes, tmp_path: Path) -> None:
    picture = make_image(2, (40, 30)).convert(mode)
    picture.save(tmp_path / "plain.tif")
    picture.save(tmp_path / "tagged.tif", icc_profile=profile)
    tagged = read_decoded_image(tmp_path / "tagged.tif", PICTURE)
    assert np.array_equal(tagged.pixels, read_pixels(tmp_path / "plain.tif", PICTURE))
    assert tagged.notes == (IGNORED_PROFILE,)


def test_levels_of_other_encodings_are_kept_and_the_profile_is_named(tmp_path: Path) -> None:
    values = np.full((4, 5, 3), [60000, 300, 7], np.uint16)
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb", iccprofile=swap_red_and_green())
    decoded = read_decoded_image(tmp_path / "x.tif", Encoding(3, "16-bit"))
    assert np.array_equal(decoded.pixels, values)
    assert decoded.notes == (UNUSED_PROFILE,)
    make_image(0).convert("RGBA").save(tmp_path / "x.png", icc_profile=swap_red_and_green())
    assert read_decoded_image(tmp_path / "x.png", Encoding(4)).notes == (UNUSED_PROFILE,)
    make_image(0).convert("RGBA").save(tmp_path / "x.png", icc_profile=SRGB)
    assert read_decoded_image(tmp_path / "x.png", Encoding(4)).notes == ()


@pytest.mark.parametrize("name", ["rocket.jpg", "color.png"])
def test_files_of_scikit_image(name: str) -> None:
    """Real pictures whose colors are off by many levels without their profile."""
    skimage = pytest.importorskip("skimage", reason="scikit-image, which ships pictures, is not installed")
    path = Path(skimage.__file__).parent / "data" / name
    if not path.exists():
        pytest.skip(f"this version of scikit-image does not ship {name}")
    with Image.open(path) as image:
        plain = image.convert("RGB")
        source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    target, intent = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
    converted = ImageCms.profileToProfile(plain, source, target, renderingIntent=intent)
    assert converted is not None
    decoded = read_decoded_image(path, PICTURE)
    assert np.abs(decoded.pixels.astype(int) - np.asarray(converted)).max() <= 1
    assert np.abs(decoded.pixels.astype(int) - np.asarray(plain)).max() > 4
