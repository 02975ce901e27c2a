"""Chunks of PNG files with attributes, for files that imagecodecs encodes (PNG, third edition, sections 5 and 11.3)."""

import struct
import zlib

from gantoolkit.data.attributes import Attributes

__all__ = ["add_png_attributes"]

_HEADER_END = 33
"""Bytes of the signature and the IHDR chunk, which is always first."""
_INCHES_PER_METER = 39.3701
_METER = 1


def add_png_attributes(content: bytes, attributes: Attributes, channels: int) -> bytes:
    """Insert resolution, color profile and EXIF data into an encoded PNG file.

    Args:
        content: A PNG file.
        attributes: What to insert.
        channels: The number of channels, for which the profile has to be.
    """
    chunks = b""
    if profile := attributes.profile_for(channels):
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if attributes.dpi:
        x, y = (round(dpi * _INCHES_PER_METER) for dpi in attributes.dpi)
        chunks += _chunk(b"pHYs", struct.pack(">IIB", x, y, _METER))
    if attributes.exif:
        chunks += _chunk(b"eXIf", attributes.exif.removeprefix(b"Exif\0\0"))
    return content[:_HEADER_END] + chunks + content[_HEADER_END:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
