"""Opacity: folders may mix opaque and transparent files of any mode."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from _helpers.small import make_image
from PIL import Image

from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.images import ImageFile
from gantoolkit.data.notes import CMYK_CHANNELS, TRANSPARENT_PIXELS
from gantoolkit.data.pixels import read_decoded_image, read_pixels
from gantoolkit.errors import DataError

RGBA = Encoding(4)
DEEP_RGBA = Encoding(4, "16-bit")


def write(path: Path, mode: str) -> np.ndarray:
    """Write a file of a mode; returns its pixels as RGBA."""
    picture = make_image(3, (20, 12))
    match mode:
        case "P" | "P transparent":
            image = picture.quantize(16)
            image.save(path, **({"transparency": 2} if mode != "P" else {}))
        case "RGB transparent":
            image = picture
            image.save(path, transparency=image.getpixel((3, 3)))
        case "L transparent":
            image = picture.convert("L")
            image.save(path, transparency=image.getpixel((3, 3)))
        case _:
            image = picture.convert(mode)
            if mode in ("LA", "RGBA"):
                image.putalpha(Image.linear_gradient("L").resize((20, 12)))
            image.save(path)
    with Image.open(path) as file:
        return np.asarray(file.convert("RGBA"))


MODES = ["L", "LA", "RGB", "RGBA", "P", "P transparent", "1", "RGB transparent", "L transparent"]


@pytest.mark.parametrize("mode", MODES)
def test_with_four_channels_what_has_no_opacity_is_opaque(mode: str, tmp_path: Path) -> None:
    expected = write(tmp_path / "x.png", mode)
    decoded = read_decoded_image(tmp_path / "x.png", RGBA)
    assert np.array_equal(decoded.pixels, expected)
    assert (decoded.alpha, decoded.notes) == (None, ())
    assert np.array_equal(read_pixels(tmp_path / "x.png", DEEP_RGBA), expected.astype(np.uint16) * 257)


@pytest.mark.parametrize("mode", MODES)
def test_with_fewer_channels_it_is_blended_and_kept_beside_the_pixels(mode: str, tmp_path: Path) -> None:
    layer = write(tmp_path / "x.png", mode)
    share = layer[..., 3:] / 255
    blended = layer[..., :3] * share + 255 * (1 - share)
    decoded = read_decoded_image(tmp_path / "x.png", PICTURE)
    assert np.abs(decoded.pixels - blended).max() <= 1
    is_opaque = layer[..., 3].min() == 255
    assert is_opaque == (mode in ("L", "RGB", "P", "1"))
    if is_opaque:
        assert (decoded.alpha, decoded.notes) == (None, ())
    else:
        assert decoded.alpha is not None
        assert decoded.alpha.dtype == np.uint8
        assert np.array_equal(decoded.alpha, layer[..., 3])
        assert decoded.notes == (TRANSPARENT_PIXELS,)
        assert not TRANSPARENT_PIXELS.passed_over


def test_opaque_layer_is_not_named(tmp_path: Path) -> None:
    make_image(0).convert("RGBA").save(tmp_path / "x.png")
    decoded = read_decoded_image(tmp_path / "x.png", PICTURE)
    assert (decoded.alpha, decoded.notes) == (None, ())
    assert np.array_equal(decoded.pixels, np.asarray(make_image(0)))


def test_gray_16_bit_files_are_opaque_or_have_a_transparent_level(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 40000, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "x.png")
    pixels = read_pixels(tmp_path / "x.png", DEEP_RGBA)
    assert np.array_equal(pixels, np.stack([levels] * 3 + [np.full_like(levels, 65535)], axis=-1))
    Image.fromarray(levels).save(tmp_path / "hole.png", transparency=40000)
    assert read_pixels(tmp_path / "hole.png", DEEP_RGBA)[0, :, 3].tolist() == [65535, 65535, 0, 65535]
    decoded = read_decoded_image(tmp_path / "hole.png", Encoding(1))
    assert decoded.alpha is not None
    assert decoded.alpha.tolist() == [[255, 255, 0, 255]]
    assert decoded.pixels.ravel().tolist() == [0, 1, 255, 255]


@pytest.mark.parametrize("form", ["png", "tif"])
def test_16_bit_layers_are_blended_in_16_bits(form: str, tmp_path: Path) -> None:
    layer = np.array([[[0, 10000, 65535, 0], [0, 10000, 65535, 65535], [0, 10000, 65535, 32768]]], np.uint16)
    if form == "png":
        (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(layer))
    else:
        tifffile.imwrite(tmp_path / "x.tif", layer, photometric="rgb", extrasamples=["unassalpha"])
    decoded = read_decoded_image(tmp_path / f"x.{form}", Encoding(3, "16-bit"))
    assert decoded.pixels.tolist() == [[[65535] * 3, [0, 10000, 65535], [32767, 37767, 65535]]]
    assert decoded.alpha is not None
    assert decoded.alpha.tolist() == [[0, 255, 128]]
    assert decoded.notes == (TRANSPARENT_PIXELS,)
    assert np.array_equal(read_pixels(tmp_path / f"x.{form}", DEEP_RGBA), layer)


@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colors_multiplied_by_opacity_are_divided_by_it(photometric: str, dtype: type, tmp_path: Path) -> None:
    white = np.iinfo(dtype).max
    color, opacity = [white // 5] * (1 if photometric == "minisblack" else 3), white // 5 * 2
    values = np.full((6, 5, len(color) + 1), [*color, opacity], dtype)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric=photometric, extrasamples=["assocalpha"], metadata=None)
    encoding = RGBA if dtype == np.uint8 else DEEP_RGBA
    straight = read_pixels(tmp_path / "x.tif", encoding)[0, 0].astype(int)
    assert np.abs(straight - [white // 2, white // 2, white // 2, opacity]).max() <= 1
    decoded = read_decoded_image(tmp_path / "x.tif", Encoding(1, encoding.range))
    assert abs(int(decoded.pixels[0, 0, 0]) - 0.8 * white) <= 2
    assert decoded.alpha is not None
    assert decoded.alpha[0, 0] == 102


def test_halves_have_their_own_opacity(tmp_path: Path) -> None:
    layer = make_image(0, (20, 12)).convert("RGBA")
    opacity = np.arange(240, dtype=np.uint8).reshape(12, 20)
    layer.putalpha(Image.fromarray(opacity))
    layer.save(tmp_path / "x.png")
    decoded = read_decoded_image(ImageFile(tmp_path / "x.png", "right"), PICTURE)
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha, opacity[:, 10:])


def test_four_inks_are_named(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4), (1, 2, 3, 4)).save(tmp_path / "x.tif")
    decoded = read_decoded_image(tmp_path / "x.tif", RGBA)
    assert decoded.pixels[0, 0].tolist() == [1, 2, 3, 4]
    assert decoded.notes == (CMYK_CHANNELS,)


def test_bands_without_a_meaning_are_not_opacity(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (9, 7, 4)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "x.tif", values, photometric="minisblack", planarconfig="contig", extrasamples=[0, 0, 0]
    )
    assert np.array_equal(read_pixels(tmp_path / "x.tif", DEEP_RGBA), values)
    with pytest.raises(DataError, match=r'holds 4 bands of uint16; .* = 4 and .* = "16-bit" reads'):
        read_pixels(tmp_path / "x.tif", PICTURE)
    np.save(tmp_path / "two.npy", values[..., :2])
    with pytest.raises(DataError, match="holds 2 bands of uint16"):
        read_pixels(tmp_path / "two.npy", DEEP_RGBA)
