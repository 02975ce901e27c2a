"""Images from Python: contents, streams, paths and PIL images give the pixels of their file."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from _helpers.small import make_image
from PIL import Image, ImageCms
from torch import nn

from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.inputs import ImageInput, decode_input
from gantoolkit.data.pixels import read_pixels
from gantoolkit.errors import DataError
from gantoolkit.inference import Translator
from gantoolkit.recipes import cyclegan
from gantoolkit.runs import LoadedGenerator


class Identity(nn.Identity):
    size_multiple = 1


@pytest.fixture
def translator() -> Translator:
    """A translator whose network returns its input."""
    return Translator(LoadedGenerator(Identity(), "A2B", cyclegan(), step=0))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph that is stored rotated, with a linear profile."""
    exif = Image.Exif()
    exif[274] = 6
    make_image(1, (24, 16)).save(tmp_path / "photo.png", exif=exif)
    return tmp_path / "photo.png"


class Location:
    """A path of another library."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_all_forms_of_a_file_give_the_same_translation(translator: Translator, photo: Path) -> None:
    expected = np.asarray(translator(photo))
    assert expected.shape == (24, 16, 3)  # upright
    assert np.array_equal(expected, read_pixels(photo, PICTURE))
    content = photo.read_bytes()
    forms: list[ImageInput] = [str(photo), Location(photo), content, bytearray(content), memoryview(content)]
    forms += [io.BytesIO(content), io.BufferedReader(io.BytesIO(content)), expected, torch.from_numpy(expected.copy())]  # type: ignore[list-item]
    for form in forms:
        assert np.array_equal(np.asarray(translator(form)), expected), type(form)
    with photo.open("rb") as stream:
        assert np.array_equal(np.asarray(translator(stream)), expected)
    with Image.open(photo) as image:
        assert np.array_equal(np.asarray(translator(image)), expected)
        assert np.array_equal(np.asarray(translator(image)), expected)  # the image is not changed
        assert image.size == (24, 16)
    both = translator.translate([photo, content])
    assert all(np.array_equal(np.asarray(image), expected) for image in both)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_PIL_images_are_turned_like_their_files(orientation: int, translator: Translator, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    for name in ("x.png", "x.tif", "x.webp", "x.jpg"):
        make_image(1, (24, 16)).save(tmp_path / name, exif=exif)
        with Image.open(tmp_path / name) as image:
            pixels = translator.read(image)
            copy = translator.read(image.copy())
        assert np.array_equal(pixels, translator.read(tmp_path / name))
        assert np.array_equal(copy, pixels)


def test_colors_of_PIL_images_are_converted_like_those_of_their_files(translator: Translator, tmp_path: Path) -> None:
    skimage = pytest.importorskip("skimage", reason="scikit-image, which ships pictures, is not installed")
    rocket = Path(skimage.__file__).parent / "data" / "rocket.jpg"
    if not rocket.exists():
        pytest.skip("this version of scikit-image does not ship rocket.jpg")
    with Image.open(rocket) as image:
        assert np.array_equal(translator.read(image), translator.read(rocket))
        assert not np.array_equal(translator.read(image), np.asarray(image))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    make_image(1).save(tmp_path / "x.png", icc_profile=srgb)
    with Image.open(tmp_path / "x.png") as image:
        assert np.array_equal(translator.read(image), np.asarray(make_image(1)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"])
@pytest.mark.parametrize("encoding", [PICTURE, Encoding(1), Encoding(4), Encoding(1, "16-bit")], ids=str)
def test_PIL_images_of_every_mode_are_read_like_their_files(mode: str, encoding: Encoding, tmp_path: Path) -> None:
    image = make_image(2).convert("RGB" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.arange(0, 60000, 100, dtype=np.uint16).reshape(20, 30))
    image.save(tmp_path / "x.tif")

    def attempt(source: ImageInput) -> list | str:
        try:
            return decode_input(source, encoding).pixels.tolist()
        except DataError as error:
            return str(error).partition(": ")[2]

    with Image.open(tmp_path / "x.tif") as opened:
        assert attempt(opened) == attempt(tmp_path / "x.tif")


def test_content_of_arrays_and_tiff_files(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((9, 7, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    tifffile.imwrite(tmp_path / "x.tif", values, metadata=None, photometric="minisblack", planarconfig="contig")
    encoding = Encoding(5, (0.0, 1.0))
    for name in ("x.npy", "x.tif"):
        content = (tmp_path / name).read_bytes()
        assert np.array_equal(decode_input(content, encoding).pixels, values)
        with (tmp_path / name).open("rb") as stream:
            assert np.array_equal(decode_input(stream, encoding).pixels, values)


def test_page_and_number_of_pixels(translator: Translator, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert translator.read(tmp_path / "x.gif", page=1)[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(DataError, match="8×8 pixels are more than the 63 allowed"):
        translator.read(tmp_path / "x.gif", max_pixels=63)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            "https://example.org/horse.jpg",
            r"^https://example\.org/horse\.jpg: is a URL, not a file; download it first$",
        ),
        ("s3://bucket/horse.jpg", "^s3://bucket/horse.jpg: is a URL, not a file"),
        (Path("https://example.org/horse.jpg"), "is a URL, not a file; download it first$"),
        ("horse.jpg", "^horse.jpg: no such file$"),
        (b"not an image", "^the image: is not a readable image; supported formats are"),
        (b"", "^the image: is not a readable image"),
        (io.StringIO("text"), r"^the image: is a text stream; open the file in binary mode, with open\(path, 'rb'\)$"),
        (None, "^the image: has the type NoneType; pass a path, the content of a file, a PIL image or an array$"),
        ({"image": 1}, "^the image: has the type dict; pass a path"),
        (np.zeros((4, 4)), "^the image: holds 1 band of float64, whose type does not define which value is white"),
        (np.zeros((4, 4, 2), np.uint8), "^the image: holds 2 bands of uint8; images of its domain are RGB, 8-bit"),
    ],
)
def test_what_is_not_an_image_is_explained(image, message: str, translator: Translator) -> None:
    with pytest.raises(DataError, match=message):
        translator(image)


def test_stream_with_a_name_is_named(translator: Translator, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("text")
    with (tmp_path / "x.jpg").open("rb") as stream, pytest.raises(DataError) as caught:
        translator(stream)
    assert str(caught.value).startswith(f"{tmp_path / 'x.jpg'}: is not a readable image")


@pytest.mark.skipif(os.name == "nt", reason="a colon is not allowed in names")
def test_file_whose_name_looks_like_a_URL_is_read(translator: Translator, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("https:").mkdir()
    make_image(1).save("https:/x.png")
    assert np.array_equal(translator.read(Path("https:/x.png")), np.asarray(make_image(1)))
