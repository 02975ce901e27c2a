"""Formats by content: what is read, and what is said about a file that is not."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from _helpers.small import make_image
from PIL import Image, features

from gantoolkit.data import images
from gantoolkit.data.encoding import PICTURE, Encoding, encoding_of
from gantoolkit.data.pixels import count_pages, read_image, read_pixel_size, read_pixels
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        ("jfif", "JPEG"),
        ("jpe", "JPEG"),
        ("pnm", "PPM"),
        ("apng", "PNG"),
        ("dib", "DIB"),
        ("bmp", "BMP"),
        ("tif", "TIFF"),
    ],
)
def test_formats_with_other_suffixes_are_read(suffix: str, form: str, tmp_path: Path) -> None:
    picture = make_image(4, (20, 12))
    picture.save(tmp_path / f"x.{suffix}", form, **({"quality": 100, "subsampling": 0} if form == "JPEG" else {}))
    difference = np.asarray(read_image(tmp_path / f"x.{suffix}")).astype(int) - np.asarray(picture)
    assert np.abs(difference).max() <= (6 if form == "JPEG" else 0)


def box(kind: bytes) -> bytes:
    return b"\0\0\0\x18" + kind + bytes(60)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (box(b"ftypheic"), "a HEIC file"),
        (box(b"ftypheix"), "a HEIC file"),
        (box(b"ftypmif1"), "a HEIC or AVIF file"),
        (box(b"ftypavif"), "an AVIF file"),
        (box(b"ftypisom"), "a video"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60), "a JPEG 2000 file"),
        (b"\xff\x0a" + bytes(60), "a JPEG XL file"),
        (b"8BPS\0\1" + bytes(60), "a Photoshop file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html><p>Not found", "a web page"),
    ],
)
def test_other_formats_are_named(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    for encoding in (PICTURE, Encoding(1, "16-bit")):
        with pytest.raises(
            DataError, match=rf"x\.jpg: is not a readable image, but {name}.*; supported formats are JPEG, "
        ):
            read_pixels(tmp_path / "x.jpg", encoding)


@pytest.mark.parametrize("form", ["AVIF", "JPEG2000", "ICO"])
def test_files_that_Pillow_writes_in_other_formats_are_named(form: str, tmp_path: Path) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    make_image(0, (32, 32)).save(tmp_path / "x.png", form)
    with pytest.raises(DataError, match="is not a readable image, but a"):
        read_image(tmp_path / "x.png")


BANDS = np.random.default_rng(0).integers(0, 4096, (9, 7, 4)).astype(np.uint16)


@pytest.mark.parametrize(
    ("values", "description", "channels", "levels"),
    [
        (BANDS, "4 bands of uint16; images of its domain are RGB, 8-bit", 4, '"16-bit"'),
        (BANDS.astype(np.uint8), "4 bands of uint8; images of its domain are RGB, 8-bit", 4, '"8-bit"'),
        (BANDS[..., :2].astype(np.float32), "2 bands of float32; images of its domain are RGB, 8-bit", 2, None),
        (
            BANDS[..., 0].astype(np.float32),
            "1 band of float32, whose type does not define which value is white",
            1,
            None,
        ),
        (
            BANDS[..., 0].astype(np.float64),
            "1 band of float64, whose type does not define which value is white",
            1,
            None,
        ),
        (
            BANDS[..., :3].astype(np.float16),
            "3 bands of float16, whose type does not define which value is white",
            3,
            None,
        ),
        (BANDS[..., 0].astype(np.int64), "1 band of int64, whose type does not define which value is white", 1, None),
    ],
)
def test_tiff_of_other_samples_is_described(
    values: np.ndarray, description: str, channels: int, levels: str | None, tmp_path: Path
) -> None:
    planes = {"planarconfig": "contig"} if values.ndim == 3 else {}
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack", metadata=None, **planes)
    with pytest.raises(DataError) as caught:
        read_pixels(tmp_path / "x.tif", encoding_of(DataSettings(), "A"))
    ends = levels or "[low, high] (the values of black and white)"
    settings = f"a recipe with data.channels_A = {channels} and data.range_A = {ends} reads it"
    assert str(caught.value) == f"{tmp_path / 'x.tif'}: holds {description}; {settings}"


def test_three_bands_that_Pillow_refuses_are_a_picture(tmp_path: Path) -> None:
    values = BANDS[..., :3] * 16
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack", planarconfig="contig", metadata=None)
    assert np.array_equal(read_pixels(tmp_path / "x.tif", PICTURE), np.rint(values / 257))
    values = BANDS[:8, :6, :3]
    tifffile.imwrite(tmp_path / "12.tif", values, photometric="rgb", bitspersample=12, metadata=None)
    assert np.array_equal(read_pixels(tmp_path / "12.tif", PICTURE), np.rint(values * (255 / 4095)))


def test_one_band_in_planes_is_read(tmp_path: Path) -> None:
    """Pillow fails at such files, which programs for maps write."""
    values = BANDS[..., 0]
    separate = 2
    tags = {256: 7, 257: 9, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: 9, 279: values.nbytes, 284: separate}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 8 + values.nbytes)
    (tmp_path / "x.tif").write_bytes(header + values.tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4))
    assert np.array_equal(read_pixels(tmp_path / "x.tif", Encoding(1))[..., 0], np.rint(values / 257))


@pytest.mark.parametrize("options", [{"compression": "jpeg2000"}, {"byteorder": ">", "bigtiff": True}], ids=str)
def test_the_size_of_a_picture_that_Pillow_refuses_is_known(options: dict[str, Any], tmp_path: Path) -> None:
    """Otherwise it could not be cached."""
    tifffile.imwrite(tmp_path / "x.tif", np.asarray(make_image(4, (20, 12))), photometric="rgb", **options)
    assert read_pixels(tmp_path / "x.tif", PICTURE).shape == (12, 20, 3)
    assert read_pixel_size(tmp_path / "x.tif", PICTURE) == (20, 12)


def test_unsupported_colors_are_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", BANDS[..., 0], photometric="cfa", metadata=None)
    with pytest.raises(
        DataError, match=r"x\.tif: holds 1 band of uint16 \(CFA\), which is not supported; save it as RGB"
    ):
        read_pixels(tmp_path / "x.tif", PICTURE)


class TestLargeImages:
    """The limit of pixels can be raised, also beyond that of Pillow; the memory is checked."""

    @pytest.fixture
    def small_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "MAX_PIXELS", 100)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)

    @pytest.mark.usefixtures("small_limit")
    @pytest.mark.parametrize("name", ["x.png", "x.tif", "x.jpg", "x.gif", "x.npy"])
    @pytest.mark.parametrize("encoding", [PICTURE, Encoding(1, "16-bit"), Encoding(3, (0.0, 255.0))], ids=str)
    def test_limit_can_be_raised(self, name: str, encoding: Encoding, tmp_path: Path) -> None:
        picture = make_image(0, (20, 12))
        if name == "x.npy":
            np.save(tmp_path / name, np.asarray(picture))
        else:
            picture.save(tmp_path / name)
        with pytest.raises(DataError, match="more than the 100"):
            read_pixels(tmp_path / name, encoding)
        with pytest.raises(DataError, match="more than the 239"):
            read_pixels(tmp_path / name, encoding, max_pixels=239)
        assert read_pixels(tmp_path / name, encoding, max_pixels=240).shape == (12, 20, encoding.channels)
        assert read_pixel_size(tmp_path / name, encoding, max_pixels=240) == (20, 12)
        assert count_pages(tmp_path / name, encoding) == 1
        assert Image.MAX_IMAGE_PIXELS == 50

    @pytest.mark.parametrize("form", ["png", "tif", "npy"])
    def test_image_that_does_not_fit_into_memory_is_rejected_before_decoding(
        self, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        side = 20_000
        if form == "png":
            header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
            chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
            (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + bytes(4))
        elif form == "tif":
            large = {"shape": (side, side, 3), "dtype": np.uint16, "rowsperstrip": side, "compression": "zlib"}
            tifffile.imwrite(tmp_path / "x.tif", iter([b""]), photometric="rgb", metadata=None, **large)
        else:
            header = {"descr": "<f8", "fortran_order": False, "shape": (side, side, 3)}
            with (tmp_path / "x.npy").open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
        encoding = {"png": PICTURE, "tif": Encoding(3, "16-bit"), "npy": Encoding(3, (0.0, 1.0))}[form]
        monkeypatch.setattr(images, "available_memory", lambda device: 1_000_000_000)
        with pytest.raises(
            DataError, match=r"decoding 20000×20000 pixels takes [\d.]+ GB of memory, and 1 GB are free"
        ):
            read_pixels(tmp_path / f"x.{form}", encoding, max_pixels=side * side)
