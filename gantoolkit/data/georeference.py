"""GeoTIFF: where on the ground the pixels of an image lie (OGC 19-008r4), and how that changes when the image is resized."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["GEOREFERENCE_TAGS", "Georeference", "read_georeference"]

_SCALE, _TIEPOINTS, _TRANSFORMATION = 33550, 33922, 34264
_KEYS, _DOUBLES, _TEXT = 34735, 34736, 34737
_METADATA, _NODATA, _COEFFICIENTS = 42112, 42113, 50844
GEOREFERENCE_TAGS = (_SCALE, _TIEPOINTS, _TRANSFORMATION, _KEYS, _DOUBLES, _TEXT, _METADATA, _NODATA, _COEFFICIENTS)
"""The codes of the TIFF tags, including GDAL's for metadata and for the value of pixels without data."""

_RASTER_TYPE, _PIXEL_IS_POINT, _MAX_KEY = 1025, 2, 65535
_COEFFICIENT_COUNT = 92
_ROW_OFFSET, _COLUMN_OFFSET, _ROW_SCALE, _COLUMN_SCALE = 2, 3, 7, 8
"""Where the rational polynomial coefficients hold the row and column of the center, and half the height and width."""
_BAND_ITEM = re.compile(r'\s*<Item\b[^<>]*\bsample="[^<>]*>[^<>]*</Item>')
_EMPTY_METADATA = re.compile(r"\s*<GDALMetadata>\s*</GDALMetadata>\s*")


@dataclass(frozen=True)
class Georeference:
    """The tags of a GeoTIFF that hold for any image of the same area.

    Args:
        scale: Width, height and depth of a pixel on the ground; empty if not stated.
        tiepoints: Groups of six numbers: column, row and level in the image, then x, y and z on the ground.
        transformation: The rows of the 4×4 matrix from columns and rows to the ground; empty if not stated.
        keys: The keys of the coordinate system, four numbers each.
        doubles: Numbers that keys refer to.
        text: Text that keys refer to.
        metadata: GDAL's metadata (XML) about the whole image. Items about one band describe the values, and are left out.
        nodata: The value of pixels without data, as text; empty if not stated.
        coefficients: The rational polynomial coefficients of a satellite's camera (RPC); empty if not stated.
    """

    scale: tuple[float, ...] = ()
    tiepoints: tuple[float, ...] = ()
    transformation: tuple[float, ...] = ()
    keys: tuple[int, ...] = ()
    doubles: tuple[float, ...] = ()
    text: str = ""
    metadata: str = ""
    nodata: str = ""
    coefficients: tuple[float, ...] = ()

    @property
    def locates(self) -> bool:
        """Whether the tags say where the image lies, or in which coordinate system."""
        return bool(self.scale or self.tiepoints or self.transformation or self.keys or self.coefficients)

    def resized(self, size: tuple[int, int], new_size: tuple[int, int]) -> "Georeference":
        """The georeference of the image resized from one width and height to another: it covers the same area."""
        x, y = (new / old for new, old in zip(new_size, size, strict=True))
        if (x, y) == (1, 1):
            return self
        # Columns and rows count from the edge of the first pixel, or from its center (GTRasterTypeGeoKey).
        origin = 0.5 if self._pixel_is_point else 0.0
        width, height, *depth = self.scale or (0.0, 0.0)
        return replace(
            self,
            scale=(width / x, height / y, *depth) if self.scale else (),
            tiepoints=tuple(
                (value + origin) * (x, y)[index % 6] - origin if index % 6 < 2 else value
                for index, value in enumerate(self.tiepoints)
            ),
            transformation=_compose(self.transformation, x, y, origin),
            coefficients=_resize_coefficients(self.coefficients, x, y),
        )

    @property
    def _pixel_is_point(self) -> bool:
        entries = [self.keys[first : first + 4] for first in range(4, len(self.keys), 4)]
        return any(
            key[0] == _RASTER_TYPE and key[1] == 0 and key[3] == _PIXEL_IS_POINT for key in entries if len(key) == 4
        )

    def tags(self) -> list[tuple[int, str, int, Any, bool]]:
        """The tags as `tifffile.imwrite` takes them: code, type, count, value, and whether only the first page has it."""
        values = (
            self.scale,
            self.tiepoints,
            self.transformation,
            self.keys,
            self.doubles,
            self.text,
            self.metadata,
            self.nodata,
            self.coefficients,
        )
        return [_tag(code, value) for code, value in zip(GEOREFERENCE_TAGS, values, strict=True) if value]


def read_georeference(tags: Mapping[int, Any]) -> Georeference:
    """Read the georeference from the tags of a TIFF page. Tags of a wrong type or length are ignored.

    Args:
        tags: The values by code, as in Pillow's `ImageFileDirectory_v2`: text, numbers, or tuples of numbers.
    """
    transformation = _numbers(tags, _TRANSFORMATION)
    tiepoints = _numbers(tags, _TIEPOINTS)
    scale = _numbers(tags, _SCALE)
    keys = _numbers(tags, _KEYS)
    coefficients = _numbers(tags, _COEFFICIENTS)
    return Georeference(
        scale=scale if len(scale) in (2, 3) and all(scale[:2]) else (),
        tiepoints=tiepoints if len(tiepoints) % 6 == 0 else (),
        transformation=transformation if len(transformation) == 16 else (),
        keys=keys if all(isinstance(key, int) and 0 <= key <= _MAX_KEY for key in keys) else (),
        doubles=_numbers(tags, _DOUBLES),
        text=_string(tags, _TEXT),
        metadata=_EMPTY_METADATA.sub("", _BAND_ITEM.sub("", _string(tags, _METADATA))),
        nodata=_string(tags, _NODATA).strip(),
        coefficients=coefficients if len(coefficients) == _COEFFICIENT_COUNT else (),
    )


def _compose(matrix: tuple[float, ...], x: float, y: float, origin: float) -> tuple[float, ...]:
    """The matrix for columns and rows of the resized image: the old one after the map to columns and rows of the image."""
    if not matrix:
        return ()
    shifts = (origin / x - origin, origin / y - origin)
    rows = [matrix[first : first + 4] for first in range(0, 16, 4)]
    return tuple(
        value
        for column, row, level, constant in rows
        for value in (column / x, row / y, level, constant + column * shifts[0] + row * shifts[1])
    )


def _resize_coefficients(coefficients: tuple[float, ...], x: float, y: float) -> tuple[float, ...]:
    """Coefficients for the rows and columns of the resized image, which count from the center of the first pixel."""
    if not coefficients:
        return ()
    values = list(coefficients)
    for factor, offset, scale in ((y, _ROW_OFFSET, _ROW_SCALE), (x, _COLUMN_OFFSET, _COLUMN_SCALE)):
        values[offset] = (values[offset] + 0.5) * factor - 0.5
        values[scale] *= factor
    return tuple(values)


def _numbers(tags: Mapping[int, Any], code: int) -> tuple[Any, ...]:
    value = tags.get(code, ())
    values = value if isinstance(value, tuple) else (value,)
    return values if all(isinstance(each, int | float) for each in values) else ()


def _string(tags: Mapping[int, Any], code: int) -> str:
    value = tags.get(code, "")
    return value if isinstance(value, str) else ""


def _tag(code: int, value: Any) -> tuple[int, str, int, Any, bool]:
    if not isinstance(value, str):
        return code, "H" if code == _KEYS else "d", len(value), value, False
    content = value.encode("latin-1", "replace") + b"\0"  # as Pillow decodes text
    return code, "s", len(content), content, False
