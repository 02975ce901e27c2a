"""Hostile and damaged array files: correct values or a one-sentence error, and bounded memory."""

import contextlib
import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.pixels import count_pages, read_pixel_size, read_pixels
from gantoolkit.errors import DataError

UNIT = Encoding(2, (0.0, 1.0))
DEEP = Encoding(3, "16-bit")


def _tiff(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, metadata=None, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def _stack(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, photometric="minisblack", **options)  # type: ignore[arg-type]
    return stream.getvalue()


def _npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


_RANDOM = np.random.default_rng(0)
_FLOATS = _RANDOM.random((9, 7, 2)).astype(np.float32)
_LEVELS = _RANDOM.integers(0, 65536, (9, 7, 3)).astype(np.uint16)
FILES = {
    "plain.tif": (_tiff(_FLOATS, planarconfig="contig", photometric="minisblack"), UNIT),
    "packed.tif": (_tiff(_FLOATS, planarconfig="contig", photometric="minisblack", compression="zlib"), UNIT),
    "tiled.tif": (_tiff(_LEVELS, photometric="rgb", tile=(16, 16), compression="lzw"), DEEP),
    "channels.ome.tif": (_stack(np.moveaxis(_FLOATS, 2, 0), ome=True, metadata={"axes": "CYX"}), UNIT),
    "stack.tif": (_stack(_LEVELS, metadata=None), Encoding(1, "16-bit")),
    "imagej.tif": (_stack(_LEVELS, imagej=True, metadata={"axes": "ZYX"}, truncate=True), Encoding(1, "16-bit")),
    "color.ome.tif": (
        _stack((_LEVELS // 257).astype(np.uint8).transpose(2, 0, 1), ome=True, metadata={"axes": "CYX"}),
        PICTURE,
    ),
    "values.npy": (_npy(_FLOATS), UNIT),
    "deep.png": (imagecodecs.png_encode(_LEVELS), DEEP),
}


def read(path: Path, encoding: Encoding) -> np.ndarray | str:
    try:
        return read_pixels(path, encoding)
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=150)
@given(data=st.data())
def test_any_change_gives_an_image_or_an_error(name: str, data: st.DataObject, tmp_path_factory) -> None:
    content, encoding = FILES[name]
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        # Most changes that matter are in the header.
        position = data.draw(st.integers(0, min(len(changed), 300) - 1) | st.integers(0, len(changed) - 1))
        changed[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(changed)) | st.just(len(changed)))
    path = tmp_path_factory.getbasetemp() / f"changed-{name}"
    path.write_bytes(changed[:cut])
    result = read(path, encoding)
    if isinstance(result, str):
        assert result.startswith(str(path))
        assert "\n" not in result
        assert result.isprintable()
    else:
        assert result.dtype == encoding.dtype
        assert result.shape[2] == encoding.channels
        assert np.isfinite(result).all()
    with contextlib.suppress(DataError):
        read_pixel_size(path, encoding)
    with contextlib.suppress(DataError):
        assert count_pages(path, encoding) >= 1


@pytest.mark.parametrize("tag", [256, 257], ids=["width", "height"])
def test_tiff_with_a_huge_size_is_rejected_before_decoding(tag: int, tmp_path: Path) -> None:
    content = bytearray(_tiff(_FLOATS, planarconfig="contig", photometric="minisblack"))
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        offset = file.pages.first.tags[tag].valueoffset
        wide = file.pages.first.tags[tag].dtype == 4
    content[offset : offset + (4 if wide else 2)] = struct.pack("<I" if wide else "<H", 2**31 - 1 if wide else 65535)
    other = 257 if tag == 256 else 256
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        offset = file.pages.first.tags[other].valueoffset
        wide = file.pages.first.tags[other].dtype == 4
    content[offset : offset + (4 if wide else 2)] = struct.pack("<I" if wide else "<H", 2**31 - 1 if wide else 65535)
    (tmp_path / "huge.tif").write_bytes(content)
    assert "pixels are more than the" in read(tmp_path / "huge.tif", UNIT)


def test_array_with_a_huge_shape_takes_no_memory(tmp_path: Path) -> None:
    for shape in ((1 << 40, 2), (100_000, 100_000, 2), (8, 8, 2)):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
        (tmp_path / "x.npy").write_bytes(header.getvalue())
        assert isinstance(read(tmp_path / "x.npy", UNIT), str)


def test_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    np.save(tmp_path / "evil.npy", np.array([[Evil()]], object), allow_pickle=True)
    assert "Object arrays cannot be loaded" in read(tmp_path / "evil.npy", Encoding(1, (0.0, 1.0)))
    assert not (tmp_path / "ran").exists()
