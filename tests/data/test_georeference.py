"""A resized image covers the same area on the ground."""

from typing import Any

import numpy as np
import pytest

from gantoolkit.data.georeference import Georeference, read_georeference

KEYS = (1, 1, 0, 2, 1024, 0, 1, 2, 1025, 0, 1, 1)
POINT_KEYS = (*KEYS[:-1], 2)
SIZE, NEW_SIZE = (40, 30), (20, 10)
"""Two columns of the old image become one, and three rows."""


def locate(georeference: Georeference, column: float, row: float) -> tuple[float, float]:
    """Ground coordinates of a position in the image, counted from the edge of the first pixel."""
    if georeference.keys[-1] == 2:  # columns and rows count from its center
        column, row = column - 0.5, row - 0.5
    if georeference.transformation:
        matrix = np.reshape(georeference.transformation, (4, 4))
        x, y, _, _ = matrix @ [column, row, 0, 1]
        return float(x), float(y)
    first_column, first_row, _, x, y, _ = georeference.tiepoints
    width, height = georeference.scale[:2]
    return x + (column - first_column) * width, y - (row - first_row) * height


PLACES = {
    "scale and a tie point": {"scale": (2.0, 3.0, 0.0), "tiepoints": (4.0, 6.0, 0.0, 500.0, 900.0, 7.0)},
    "a rotated transformation": {
        "transformation": (2.0, 0.5, 0.0, 500.0, 0.25, -3.0, 0.0, 900.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    },
}


@pytest.mark.parametrize("keys", [KEYS, POINT_KEYS], ids=["pixel is area", "pixel is point"])
@pytest.mark.parametrize("place", PLACES.values(), ids=list(PLACES))
def test_every_position_stays_where_it_was(place: dict[str, Any], keys: tuple[int, ...]) -> None:
    before = Georeference(keys=keys, **place)
    after = before.resized(SIZE, NEW_SIZE)
    for column, row in ((0, 0), (40, 30), (40, 0), (7, 13)):
        assert locate(after, column / 2, row / 3) == pytest.approx(locate(before, column, row))


def test_an_image_of_the_same_size_keeps_its_numbers() -> None:
    georeference = Georeference(scale=(0.1, 0.1, 0.0), tiepoints=(0.0, 0.0, 0.0, 1 / 3, 2 / 3, 0.0), keys=KEYS)
    assert georeference.resized(SIZE, SIZE) is georeference


def test_the_third_coordinate_is_not_resized() -> None:
    after = Georeference(scale=(2.0, 3.0, 5.0), tiepoints=(4.0, 6.0, 8.0, 1.0, 2.0, 3.0)).resized(SIZE, NEW_SIZE)
    assert after.scale == (4.0, 9.0, 5.0)
    assert after.tiepoints == (2.0, 2.0, 8.0, 1.0, 2.0, 3.0)


def test_coefficients_of_a_camera_normalize_positions_alike() -> None:
    """They are functions of (row - offset) / scale, and of the same for columns."""
    numbers = tuple(float(number) for number in range(92))
    before = Georeference(coefficients=(*numbers[:2], 14.5, 19.5, *numbers[4:7], 15.0, 20.0, *numbers[9:]))
    after = before.resized(SIZE, NEW_SIZE)
    assert after.locates
    for old, new, factor in ((2, 7, 3), (3, 8, 2)):
        for edge in (0, 6, 30):
            expected = (edge - 0.5 - before.coefficients[old]) / before.coefficients[new]
            actual = (edge / factor - 0.5 - after.coefficients[old]) / after.coefficients[new]
            assert actual == pytest.approx(expected)
    untouched = [index for index in range(92) if index not in (2, 3, 7, 8)]
    assert all(after.coefficients[index] == before.coefficients[index] for index in untouched)


def test_metadata_of_bands_is_left_out() -> None:
    """Its statistics, scales and offsets are those of the image, not of its translation."""
    image = '<Item name="AREA">forest</Item>'
    band = '<Item name="STATISTICS_MAXIMUM" sample="0">812</Item>'
    both = read_georeference({42112: f"<GDALMetadata>\n  {band}\n  {image}\n</GDALMetadata>\n"})
    assert both.metadata == f"<GDALMetadata>\n  {image}\n</GDALMetadata>\n"
    assert read_georeference({42112: f"<GDALMetadata>\n  {band}\n</GDALMetadata>"}).metadata == ""


@pytest.mark.parametrize(
    "tags",
    [
        {33550: (0.0, 0.0, 0.0)},
        {33550: "wide"},
        {33922: (1.0, 2.0)},
        {34264: (1.0,) * 12},
        {34735: b"\1\2"},
        {34735: (1, 1, 0, 70_000)},
        {42113: 7},
        {50844: (1.0,) * 90},
    ],
    ids=repr,
)
def test_invalid_tags_are_ignored(tags: dict[int, Any]) -> None:
    assert read_georeference(tags) == Georeference()
    assert not read_georeference(tags).tags()
