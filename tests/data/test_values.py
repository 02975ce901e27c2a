"""Values outside of a domain's range: clipped, without data, or rejected with the settings that read them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from gantoolkit.data.encoding import Encoding, encoding_of
from gantoolkit.data.images import ImageFile
from gantoolkit.data.notes import EXTRA_BANDS, FEW_LEVELS
from gantoolkit.data.pixels import read_decoded_image, read_pixels
from gantoolkit.errors import DataError
from gantoolkit.recipes.settings import DataSettings

HOUNSFIELD = (-1024.0, 3071.0)


def save(path: Path, values: list | np.ndarray, dtype: type = np.float32) -> Path:
    array = np.atleast_2d(np.array(values, dtype))
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        tifffile.imwrite(path, array, metadata=None)
    return path


@pytest.mark.parametrize("name", ["x.npy", "x.tif"])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_clipping(name: str, dtype: type, tmp_path: Path) -> None:
    """The padding of computed tomography lies below the scale, and metal lies above it."""
    path = save(tmp_path / name, [-2000, -1024, 40, 3071, 20000], dtype)
    decoded = read_decoded_image(path, Encoding(1, HOUNSFIELD, clip=True))
    assert decoded.pixels.ravel().tolist() == [-1024, -1024, 40, 3071, 3071]
    assert decoded.pixels.dtype == np.float32
    assert (decoded.nodata, decoded.notes) == (None, ())


def test_infinities_are_clipped_and_NaN_is_not(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", [-np.inf, 1e300, np.inf, 5], np.float64)
    assert read_pixels(path, Encoding(1, (0.0, 9.0), clip=True)).ravel().tolist() == [0, 9, 9, 5]
    with pytest.raises(DataError, match="contains values from -inf to inf; the range of its domain is 0 to 9; "):
        read_pixels(path, Encoding(1, (0.0, 9.0)))
    save(path, [np.nan, 5])
    with pytest.raises(DataError, match=r'contains NaN values; .* = "nan" reads NaN as pixels without data$'):
        read_pixels(path, Encoding(1, (0.0, 9.0), clip=True))


@pytest.mark.parametrize(
    ("nodata", "marker", "dtype"),
    [
        (-9999.0, -9999, np.int16),
        (-9999.0, -9999, np.float64),
        (0.1, 0.1, np.float32),
        (-3.4028234663852886e38, -3.4028234663852886e38, np.float32),
        (-1.7976931348623157e308, -1.7976931348623157e308, np.float64),
        ("nan", np.nan, np.float32),
        ("nan", np.nan, np.float64),
        (50.0, 50, np.uint8),
    ],
)
@pytest.mark.parametrize("clip", [False, True])
def test_pixels_without_data_become_the_low_end_and_are_marked(
    nodata, marker, dtype, clip: bool, tmp_path: Path
) -> None:
    for name in ("x.npy", "x.tif"):
        path = save(tmp_path / name, [[marker, 20, 30], [99, marker, 40]], dtype)
        decoded = read_decoded_image(path, Encoding(1, (10.0, 100.0), clip=clip, nodata=nodata))
        assert decoded.pixels[..., 0].tolist() == [[10, 20, 30], [99, 10, 40]]
        assert decoded.nodata is not None
        assert decoded.nodata.tolist() == [[True, False, False], [False, True, False]]
        assert decoded.nodata.dtype == bool


def test_a_pixel_has_no_data_if_one_of_its_channels_has_none(tmp_path: Path) -> None:
    values = np.array([[[1, 2], [-1, 2], [1, -1], [-1, -1]]], np.float32)
    np.save(tmp_path / "x.npy", values)
    decoded = read_decoded_image(tmp_path / "x.npy", Encoding(2, (0.0, 5.0), nodata=-1.0))
    assert decoded.nodata is not None
    assert decoded.nodata.tolist() == [[False, True, True, True]]
    assert decoded.pixels.tolist() == [[[1, 2], [0, 2], [1, 0], [0, 0]]]
    half = read_decoded_image(ImageFile(tmp_path / "x.npy", "left"), Encoding(2, (0.0, 5.0), nodata=-1.0))
    assert half.nodata is not None
    assert half.nodata.tolist() == [[False, True]]


def test_image_without_such_pixels_is_marked_nowhere(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", [1, 2])
    decoded = read_decoded_image(path, Encoding(1, (0.0, 5.0), nodata=-1.0))
    assert decoded.nodata is not None
    assert not decoded.nodata.any()


def test_message_names_the_settings_of_the_domain(tmp_path: Path) -> None:
    settings = DataSettings(channels_B=1, range_B=HOUNSFIELD)
    path = save(tmp_path / "x.npy", [-9999, 40, 4000])
    with pytest.raises(DataError) as caught:
        read_pixels(path, encoding_of(settings, "B"))
    assert str(caught.value) == (
        f"{path}: contains values from -9999 to 4000; the range of its domain is -1024 to 3071; data.clip_B = true moves "
        "values to the nearest end of the range, and data.nodata_B names a value of pixels without data"
    )
    with pytest.raises(DataError) as caught:
        read_pixels(path, encoding_of(settings.model_copy(update={"nodata_B": -9999.0}), "B"))
    assert "contains values from 40 to 4000" in str(caught.value)
    assert "nodata" not in str(caught.value)


def test_a_range_is_kept_by_the_advice_for_other_channels(tmp_path: Path) -> None:
    """Levels in its place would contradict the settings of the range, such as clip."""
    np.save(tmp_path / "x.npy", np.zeros((4, 6, 3), np.uint16))
    settings = DataSettings(channels_A=1, range_A=HOUNSFIELD, clip_A=True)
    with pytest.raises(DataError, match=r"holds 3 bands of uint16; .*; a recipe with data\.channels_A = 3 reads it$"):
        read_pixels(tmp_path / "x.npy", encoding_of(settings, "A"))
    advised = settings.model_copy(update={"channels_A": 3})
    assert read_pixels(tmp_path / "x.npy", encoding_of(advised, "A")).shape == (4, 6, 3)


def test_message_about_NaN_beside_other_values(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", [np.nan, 40, 4000])
    with pytest.raises(DataError, match="contains NaN values and values from 40 to 4000; the range") as caught:
        read_pixels(path, Encoding(1, HOUNSFIELD))
    assert str(caught.value).count("nodata_A") == 1
    assert str(caught.value).endswith("= true moves values to the nearest end of the range")
    with pytest.raises(DataError, match=r"contains NaN values; .* NaN is not the value of pixels without data, -1$"):
        read_pixels(path, Encoding(1, (0.0, 1e4), nodata=-1.0))


def test_value_without_data_that_a_file_states_is_in_the_message(tmp_path: Path) -> None:
    values = np.array([[-9999, 40, 50]], np.int16)
    tifffile.imwrite(tmp_path / "x.tif", values, metadata=None, extratags=[(42113, 2, 0, "-9999", True)])
    settings = DataSettings(channels_A=1, range_A=(0.0, 100.0))
    with pytest.raises(
        DataError, match=r"data\.nodata_A = -9999\.0 is the value of pixels without data that the file states$"
    ):
        read_pixels(tmp_path / "x.tif", encoding_of(settings, "A"))
    encoding = encoding_of(settings.model_copy(update={"nodata_A": -9999.0}), "A")
    assert read_pixels(tmp_path / "x.tif", encoding).ravel().tolist() == [0, 40, 50]


class TestStatedNodata:
    """GDAL's value of pixels without data, which a recipe may name or not."""

    def read(self, path: Path, encoding: Encoding) -> list[str]:
        values = np.array([[-9999, 3, 8]], np.float32)
        tifffile.imwrite(path, values, metadata=None, extratags=[(42113, "s", 0, "-9999", True)])
        return [note.text for note in read_decoded_image(path, encoding).notes if note.passed_over]

    def test_a_value_that_the_recipe_does_not_name_is_noted(self, tmp_path: Path) -> None:
        encoding = encoding_of(DataSettings(channels_A=1, range_A=(0.0, 9.0), clip_A=True), "A")
        notes = self.read(tmp_path / "x.tif", encoding)
        assert notes == ["states a value of pixels without data, which data.nodata_A does not name"]

    def test_a_value_that_the_recipe_names_is_not_noted(self, tmp_path: Path) -> None:
        assert self.read(tmp_path / "x.tif", Encoding(1, (0.0, 9.0), nodata=-9999.0)) == []


class TestLevels:
    """16-bit files whose levels are those of 12 bits become almost black pictures."""

    @pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
    @pytest.mark.parametrize(("highest", "is_noted"), [(4095, True), (60000, False)])
    def test_few_levels_of_16_bits_are_noted(self, name: str, highest: int, is_noted: bool, tmp_path: Path) -> None:
        levels = np.linspace(0, highest, 64).astype(np.uint16).reshape(8, 8)
        Image.fromarray(levels).save(tmp_path / name)
        for channels in (1, 3, 4):
            assert (FEW_LEVELS in read_decoded_image(tmp_path / name, Encoding(channels)).notes) == is_noted
        assert FEW_LEVELS not in read_decoded_image(tmp_path / name, Encoding(1, "16-bit")).notes

    def test_few_levels_of_16_bit_color_are_noted(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "x.tif", np.full((8, 8, 3), 4095, np.uint16), photometric="rgb", metadata=None)
        assert FEW_LEVELS in read_decoded_image(tmp_path / "x.tif", Encoding(3)).notes

    def test_dark_8_bit_pictures_are_not_noted(self, tmp_path: Path) -> None:
        Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "x.png")
        assert read_decoded_image(tmp_path / "x.png", Encoding(3)).notes == ()


BANDS = [
    (4, "rgb", [0], np.uint8),
    (4, "rgb", [0], np.uint16),
    (5, "rgb", [2, 0], np.uint8),
    (2, "minisblack", [0], np.uint8),
]
"""Near infrared; opacity and near infrared; gray and another band: as GDAL writes satellite images."""


@pytest.mark.parametrize(("bands", "photometric", "extrasamples", "dtype"), BANDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_bands_besides_the_colors_are_noted(
    bands: int, photometric: str, extrasamples: list[int], dtype: type, channels: int, tmp_path: Path
) -> None:
    values = np.full((8, 8, bands), np.iinfo(dtype).max, dtype)
    options = {"photometric": photometric, "extrasamples": extrasamples, "planarconfig": "contig", "metadata": None}
    tifffile.imwrite(tmp_path / "x.tif", values, **options)
    assert read_decoded_image(tmp_path / "x.tif", Encoding(channels)).notes == (EXTRA_BANDS,)
    assert EXTRA_BANDS.passed_over


@pytest.mark.parametrize(("bands", "photometric", "extrasamples", "dtype"), BANDS)
def test_bands_besides_the_colors_in_planes_are_refused(
    bands: int, photometric: str, extrasamples: list[int], dtype: type, tmp_path: Path
) -> None:
    values = np.zeros((bands, 8, 8), dtype)
    options = {"photometric": photometric, "extrasamples": extrasamples, "planarconfig": "separate", "metadata": None}
    tifffile.imwrite(tmp_path / "x.tif", values, **options)
    with pytest.raises(DataError, match=f"holds {bands} bands"):
        read_decoded_image(tmp_path / "x.tif", Encoding(3))
