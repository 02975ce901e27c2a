"""A contact sheet of a data set, and its image sizes in one line."""

from collections import Counter
from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from gantoolkit.data.evaluation_images import evenly_spaced
from gantoolkit.data.images import render_tensor
from gantoolkit.data.pixels import read_pixels
from gantoolkit.data.survey.reading import Survey

__all__ = ["describe_sizes", "draw_contact_sheet"]

_FONT_SIZE = 12
_HEADING = 20


def draw_contact_sheet(data: Survey, *, columns: int = 8, rows: int = 2, side: int = 96) -> Image.Image:
    """Draw a picture with `rows` rows of thumbnails per domain, evenly spaced over its files."""
    font = ImageFont.load_default(_FONT_SIZE)
    height = _HEADING + rows * side
    sheet = Image.new("RGB", (columns * side, len(data.domains) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (name, domain) in enumerate(data.domains.items()):
        top = index * height
        pen.text((4, top + 3), f"{name}: {len(domain.files)} images", fill="black", font=font)
        files = [file for file in domain.files if file in domain.sizes]
        for cell, file in enumerate(evenly_spaced(files, columns * rows)):
            pixels = read_pixels(file, domain.encoding)
            picture = render_tensor(domain.encoding.to_floats(pixels))
            picture.thumbnail((side - 4, side - 4), Image.Resampling.LANCZOS)
            left = cell % columns * side + (side - picture.width) // 2
            sheet.paste(picture, (left, top + _HEADING + cell // columns * side + (side - picture.height) // 2))
    return sheet


def describe_sizes(sizes: Iterable[tuple[int, int]]) -> str:
    """Describe image sizes in one line: `256×256` if all are equal, otherwise the smallest, the median and the largest."""
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    if not ordered:
        return "none"
    (common, count) = Counter(ordered).most_common(1)[0]
    if count == len(ordered):
        return f"{common[0]}×{common[1]}"
    three = (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])
    return ", ".join(f"{w}×{h}" for w, h in three) + " (smallest, median, largest)"
