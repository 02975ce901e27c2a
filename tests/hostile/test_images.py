"""Untrusted images: correct pixels or a one-sentence error; nothing hangs, exhausts the memory or runs another program."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from _helpers.small import make_dataset, make_image
from PIL import Image, ImageFile

from gantoolkit.data import find_images, read_image
from gantoolkit.data.encoding import PICTURE
from gantoolkit.data.images import MAX_PIXELS, read_size
from gantoolkit.data.pixels import decode_pil_image

ErrorMessage = Callable[..., str]

COLORS = np.array(
    [
        [[255, 0, 0], [0, 255, 0], [0, 0, 255]],
        [[255, 255, 0], [0, 255, 255], [255, 0, 255]],
    ],
    dtype=np.uint8,
)
"""Six colors that every rotation and flip rearranges."""

UNDO = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels, -1),
}
"""What a camera stores for an upright picture, for each EXIF orientation."""


def png(width: int, height: int, bits: int, color: int, pixels: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    all_chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(pixels)),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in all_chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(
    pixels: bytes, width: int, height: int, bits: int, *, photometric: int = 1, order: str = "<", sample_format: int = 1
) -> bytes:
    """A TIFF file with one uncompressed gray page and its directory at the end."""
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: height,
        279: len(pixels),
        339: sample_format,
    }
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(pixels))
    entries = [struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items()]
    return header + pixels + struct.pack(order + "H", len(tags)) + b"".join(entries) + struct.pack(order + "I", 0)


def encode(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def read(content: bytes, folder: Path, channels: int = 3, name: str = "picture.png") -> list:
    (folder / name).write_bytes(content)
    return np.asarray(read_image(folder / name, channels)).tolist()


# EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
    ],
)
def test_every_orientation_is_applied_in_every_format(form, options, orientation: int, tmp_path: Path) -> None:
    upright = COLORS.repeat(16, axis=0).repeat(16, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(UNDO[orientation](upright)))
    (tmp_path / "photo").write_bytes(encode(stored, form, exif=exif, **options))
    pixels = np.asarray(read_image(tmp_path / "photo")).astype(int)
    assert pixels.shape == upright.shape
    assert np.abs(pixels - upright).max() <= (6 if form == "JPEG" else 0)
    assert sorted(read_size(tmp_path / "photo")) == [32, 48]


BROKEN_EXIF = [
    b"",
    b"Exif\0\0",
    b"Exif\0\0II",
    b"Exif\0\0II*\0\xff\xff\xff\xff",
    b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\x01\0\0\0",
    b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x05\0\0\0\x01\xff\xff\xff\xff",
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0",
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\x08\0\0\0",  # 99; links to itself
    b"Exif\0\0" + bytes(range(256)),
]


@pytest.mark.parametrize("exif", BROKEN_EXIF)
@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {})])
def test_invalid_exif_data_is_ignored(form, options, exif: bytes, tmp_path: Path) -> None:
    assert (
        read(encode(Image.new("RGB", (8, 4), (255, 255, 255)), form, exif=exif, **options), tmp_path)
        == [[[255] * 3] * 8] * 4
    )


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_invalid_color_profile_is_ignored(form: str, tmp_path: Path) -> None:
    content = encode(Image.new("RGB", (8, 4), (255, 255, 255)), form, icc_profile=b"no profile" * 50)
    assert read(content, tmp_path) == [[[255] * 3] * 8] * 4


# Colors


def cmyk_jpeg(adobe: bool) -> bytes:
    """A red CMYK JPEG (magenta and yellow). Adobe programs invert the values and add a marker."""
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0) if adobe else (255, 0, 0, 255))
    content = encode(image, "JPEG", quality=100)
    start = content.index(b"Adobe") - 4
    length = int.from_bytes(content[start + 2 : start + 4], "big")
    return content if adobe else content[:start] + content[start + 2 + length :]


@pytest.mark.parametrize("adobe", [True, False])
def test_inverted_and_plain_cmyk_are_read(adobe: bool, tmp_path: Path) -> None:
    assert read(cmyk_jpeg(adobe), tmp_path)[0][0] == [255, 0, 0]


LEVELS = struct.pack("<4H", 0, 257, 32896, 65535)
LEVELS_BIG_ENDIAN = struct.pack(">4H", 0, 257, 32896, 65535)


@pytest.mark.parametrize(
    ("content", "levels"),
    [
        (png(4, 1, 16, 0, b"\0" + LEVELS_BIG_ENDIAN), [0, 1, 128, 255]),
        (png(2, 1, 16, 0, b"\0" + LEVELS_BIG_ENDIAN[2:6], (b"tRNS", b"\x01\x01")), [255, 128]),
        (png(2, 1, 16, 4, b"\0" + LEVELS_BIG_ENDIAN[4:6] + b"\xff\xff" + LEVELS_BIG_ENDIAN[:4]), [128, 254]),
        (b"P5 4 1 65535\n" + LEVELS_BIG_ENDIAN, [0, 1, 128, 255]),
        (b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023), [0, 128, 255]),
        (b"P5 3 1 3\n" + bytes([0, 1, 3]), [0, 85, 255]),
        (b"P2 4 1 65535\n0 257 32896 65535\n", [0, 1, 128, 255]),
        (tiff(LEVELS, 4, 1, 16), [0, 1, 128, 255]),
        (tiff(LEVELS_BIG_ENDIAN, 4, 1, 16, order=">"), [0, 1, 128, 255]),
        (tiff(LEVELS, 4, 1, 16, photometric=0), [255, 254, 127, 0]),
        (tiff(b"\xff\xf8\x00", 2, 1, 12), [255, 128]),
        (tiff(b"\0\x80\xff", 3, 1, 8, photometric=0), [255, 127, 0]),
        (tiff(b"\xf0", 8, 1, 1, photometric=0), [0] * 4 + [255] * 4),
        (png(8, 1, 1, 0, b"\0\xf0"), [255] * 4 + [0] * 4),
        (png(4, 1, 2, 0, b"\0\x1b"), [0, 85, 170, 255]),
    ],
)
def test_gray_of_every_depth(content: bytes, levels: list[int], tmp_path: Path) -> None:
    assert read(content, tmp_path, channels=1) == [levels]
    assert read(content, tmp_path) == [[[level] * 3 for level in levels]]


def test_16_bit_color(tmp_path: Path) -> None:
    pixels = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 65535, 0, 32896)
    assert read(png(2, 1, 16, 2, b"\0" + pixels), tmp_path) == [[[18, 86, 154], [255, 0, 128]]]
    transparent = (b"tRNS", pixels[:6])
    assert read(png(2, 1, 16, 2, b"\0" + pixels, transparent), tmp_path) == [[[255] * 3, [255, 0, 128]]]
    assert read(b"P6 1 1 65535\n" + struct.pack(">3H", 0, 32896, 65535), tmp_path) == [[[0, 128, 255]]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            tiff(b"abcd", 1, 1, 32),
            "holds 1 band of uint32, whose type does not define which value is white",
        ),
        (tiff(LEVELS, 4, 1, 16, sample_format=2), "holds 1 band of int16"),
        (
            tiff(b"abcd", 1, 1, 32, sample_format=3),
            "holds 1 band of float32, whose type does not define which value is white",
        ),
        (b"Pf\n1 1\n-1.0\nabcd", "holds 1 band of floats"),
        (encode(Image.new("LAB", (2, 2)), "TIFF"), "LAB colors are not supported"),
    ],
)
def test_images_that_do_not_define_white_are_rejected(
    content: bytes, words: str, error_message: ErrorMessage, tmp_path: Path
) -> None:
    (tmp_path / "picture.tif").write_bytes(content)
    for channels in (1, 3):
        message = error_message(read_image, tmp_path / "picture.tif", channels)
        assert words in message
        assert "picture.tif: " in message


def test_open_image_that_does_not_define_white_is_rejected(error_message: ErrorMessage) -> None:
    assert "which value is white" in error_message(decode_pil_image, Image.new("F", (2, 2)), PICTURE)


@pytest.mark.parametrize(
    ("mode", "form", "fill", "color"),
    [
        ("1", "PNG", 1, [255] * 3),
        ("P", "PNG", 0, [0] * 3),
        ("LA", "PNG", (100, 0), [255] * 3),
        ("RGBA", "WEBP", (9, 9, 9, 0), [255] * 3),
        ("RGBA", "TIFF", (0, 0, 0, 51), [204] * 3),
        ("CMYK", "TIFF", (0, 255, 255, 0), [255, 0, 0]),
        ("YCbCr", "JPEG", (255, 128, 128), [255] * 3),
        ("RGB", "BMP", (1, 2, 3), [1, 2, 3]),
        ("L", "GIF", 77, [77] * 3),
    ],
)
def test_modes_and_their_colors(mode, form, fill, color, tmp_path: Path) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    assert read(encode(Image.new(mode, (4, 4), fill), form, **options), tmp_path)[1][1] == color


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "TIFF", "MPO"])
def test_first_of_several_frames_is_read(form: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if form == "WEBP" else {}
    content = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    red, _, blue = read(content, tmp_path)[0][0]
    assert (red >= 250, blue <= 5) == (True, True)


def test_format_is_detected_by_content(tmp_path: Path) -> None:
    content = encode(Image.new("RGB", (2, 1), (1, 2, 3)), "PNG")
    for name in ("a.jpg", "a.gif", "a.eps", "a.txt", "a"):
        assert read(content, tmp_path, name=name) == [[[1, 2, 3]] * 2]


# Sizes


def test_image_100_000_pixels_wide(tmp_path: Path) -> None:
    Image.new("L", (100_000, 3), 7).save(tmp_path / "wide.png")
    assert read_size(tmp_path / "wide.png") == (100_000, 3)
    assert read_image(tmp_path / "wide.png").size == (100_000, 3)


def webp(side: int) -> bytes:
    """The header of a lossless WebP image of `side` × `side` pixels, without data."""
    body = b"VP8L" + struct.pack("<I", 30) + b"\x2f" + struct.pack("<I", (side - 1) | (side - 1) << 14) + bytes(25)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def jpeg(width: int, height: int) -> bytes:
    content = encode(Image.new("RGB", (8, 8)), "JPEG")
    start = content.index(b"\xff\xc0")
    return content[: start + 5] + struct.pack(">HH", height, width) + content[start + 9 :]


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 12, 0, 0, 54) + header + bytes(12)


BOMBS = {
    "png": png(60_000, 60_000, 8, 2, b"\0"),
    "gif": b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + encode(Image.new("L", (2, 2)), "GIF")[10:],
    "gif's frame": b"GIF89a\x02\0\x02\0\0\0\0" + b"," + struct.pack("<4H", 0, 0, 60_000, 60_000) + b"\0\x08\x01\0\0;",
    "jpeg": jpeg(60_000, 60_000),
    "bmp": bmp(60_000, 60_000),
    "tiff": tiff(b"\0", 60_000, 60_000, 8),
    "ppm": b"P6 60000 60000 255\n\0\0\0",
    "pbm": b"P4 60000 60000\n\0",
    "just too large": png(MAX_PIXELS // 10 + 1, 10, 1, 0, b"\0"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_rejected_before_decoding(
    kind: str, error_message: ErrorMessage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb").write_bytes(BOMBS[kind])
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("the image was decoded"))
    for reader in (read_image, read_size):
        message = error_message(reader, tmp_path / "bomb")
        assert "more than the" in message
        assert f"{MAX_PIXELS:,}" in message


def test_webp_with_a_false_size(error_message: ErrorMessage, tmp_path: Path) -> None:
    (tmp_path / "bomb.webp").write_bytes(webp(16_384))
    assert "bomb.webp: " in error_message(read_image, tmp_path / "bomb.webp")


def text_bomb(kind: bytes) -> bytes:
    compressed = zlib.compress(bytes(100_000_000), 9)
    prefix = {b"zTXt": b"key\0\0", b"iTXt": b"key\0\x01\0\0\0", b"iCCP": b"key\0\0"}[kind]
    return png(1, 1, 8, 0, b"\0\x07", (kind, prefix + compressed))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_metadata_bomb(kind: bytes, error_message: ErrorMessage, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(text_bomb(kind))
    assert "is damaged or cannot be read" in error_message(read_image, tmp_path / "bomb.png")


NO_PIXELS = {
    "png": png(0, 4, 8, 0, b""),
    "gif": b"GIF89a\0\0\0\0\0\0\0;",
    "gif's frame": b"GIF89a\0\0\0\0\0\0\0" + b"," + bytes(9) + b"\x02\x02\x4c\x01\0;",
    "jpeg": jpeg(0, 8),
    "bmp": bmp(0, 4),
    "tiff": tiff(b"", 0, 4, 8),
    "ppm": b"P6 0 4 255\n",
    "pgm": b"P5 4 0 255\n",
}


@pytest.mark.parametrize("kind", NO_PIXELS)
def test_images_without_pixels_are_rejected(kind: str, error_message: ErrorMessage, tmp_path: Path) -> None:
    (tmp_path / "nothing").write_bytes(NO_PIXELS[kind])
    assert "nothing: " in error_message(read_image, tmp_path / "nothing")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_truncated_file_is_rejected(form: str, error_message: ErrorMessage, tmp_path: Path) -> None:
    content = encode(make_image(3, (24, 20)), form)
    for length in range(0, len(content) - 12, max(1, len(content) // 40)):
        (tmp_path / "cut").write_bytes(content[:length])
        error_message(read_image, tmp_path / "cut")


def test_endless_tiff_directories(tmp_path: Path) -> None:
    page = tiff(b"\x07", 1, 1, 8)
    loop = page[:-4] + struct.pack("<I", 9)  # the directory links to itself
    assert read(loop, tmp_path) == [[[7] * 3]]
    pages = bytearray(page[:-4])
    for number in range(100_000):
        offset = len(pages) + 4
        pages += struct.pack("<I", offset) + struct.pack("<HHHII", 1, 256, 4, 1, number + 1)
    assert read(bytes(pages + bytes(4)), tmp_path) == [[[7] * 3]]


def test_readers_print_nothing_of_their_own(tmp_path: Path) -> None:
    """In a process of its own: pytest handles what libraries log, which Python prints otherwise."""
    content = tiff(b"\x07", 1, 1, 8)
    samples = struct.pack("<HHII", 277, 4, 1, 1)
    assert samples in content
    (tmp_path / "samples.tif").write_bytes(content.replace(samples, struct.pack("<HHII", 277, 4, 1, 65535)))
    program = "import sys; from gantoolkit.data.pixels import count_pages; from gantoolkit.data.encoding import PICTURE"
    program += "; count_pages(sys.argv[1], PICTURE)"
    command = [sys.executable, "-c", program, str(tmp_path / "samples.tif")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


# Files that are not images


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n",
        b"%!PS\n(canary) (w) file\n",
        b"\xc5\xd0\xd3\xc6"
        + struct.pack("<7I", 32, 60, 0, 0, 0, 0, 0)
        + b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        b"%PDF-1.4\n%%EOF\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        encode(Image.new("RGB", (16, 16)), "ICO"),
        b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + bytes(64),
        encode(Image.new("RGB", (16, 16)), "TGA"),
        encode(Image.new("RGB", (16, 16)), "PCX"),
        encode(Image.new("RGB", (16, 16)), "SGI"),
        b"SIMPLE  =                    T" + b" " * 3000,
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
        b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {0x01};\n",
        b"import os\n",
        bytes(5000),
    ],
)
def test_other_formats_are_never_tried(
    content: bytes, error_message: ErrorMessage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    for program in ("gs", "gswin64c"):  # the programs that Pillow runs for PostScript
        (tmp_path / program).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "picture.png").write_bytes(content)
    message = error_message(read_image, tmp_path / "picture.png")
    assert "is not a readable image" in message
    assert "supported formats are JPEG" in message
    assert not canary.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes in folders")
def test_pipes_devices_and_folders_are_not_opened(error_message: ErrorMessage, tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set", count_A=1)
    os.mkfifo(root / "trainA" / "pipe.png")
    (root / "trainA" / "zero.png").symlink_to("/dev/zero")
    (root / "trainA" / "folder.png").mkdir()
    (root / "trainA" / "nowhere.png").symlink_to(tmp_path / "nothing")
    assert [path.name for path in find_images(root / "trainA")] == ["00.png"]
    for name, words in (
        ("pipe.png", "is a pipe or a device, not an image file"),
        ("zero.png", "is a pipe or a device, not an image file"),
        ("folder.png", "is a folder, not an image file"),
        ("nowhere.png", "no such file"),
    ):
        assert words in error_message(read_image, root / "trainA" / name)


def test_command_line_rejects_a_folder_of_hostile_images(command, tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set", count_A=0)
    (root / "trainA").mkdir()
    for number, content in enumerate(
        [*BOMBS.values(), *NO_PIXELS.values(), text_bomb(b"zTXt"), b"%!PS-Adobe-3.0 EPSF"]
    ):
        (root / "trainA" / f"{number}.png").write_bytes(content)
    settings = ("--set", "generator.width=4", "--set", "generator.blocks=1")
    code, _, error = command("train", "cyclegan", "--data", root, "--out", tmp_path / "run", *settings)
    assert code == 2
    assert "error: domain A: no image can be read" in error
    assert "Traceback" not in error
