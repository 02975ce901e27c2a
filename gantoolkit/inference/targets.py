"""Where translations are written: names and the folder tree are preserved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gantoolkit.data.attributes import read_attributes
from gantoolkit.data.encoding import PICTURE, Encoding
from gantoolkit.data.pixels import count_pages
from gantoolkit.data.writing import holds_opacity, holds_pages, supported_suffixes
from gantoolkit.errors import DataError
from gantoolkit.files.paths import user_path
from gantoolkit.inference.sources import SourceFile
from gantoolkit.inference.video import video_target

__all__ = ["Form", "plan_targets"]

Form = Literal["png", "jpg", "tif", "npy"]

_SUFFIXES = {"jpg": (".jpg", ".jpeg"), "tif": (".tif", ".tiff")}


def plan_targets(
    sources: Sequence[SourceFile],
    out: str | Path,
    *,
    form: Form | None = None,
    encoding: Encoding = PICTURE,
    keep_alpha: bool = False,
    keep_endings: bool = False,
) -> dict[SourceFile, Path]:
    """Choose the path of each file's translation: below `out`, at the file's relative path.

    Args:
        sources: The files that `open_sources` lists.
        out: Folder for the translations.
        form: File format of images. By default, the source's own format if it stores the encoding without loss (for pictures,
            also JPEG; TIFF if the file has several pages or a georeference), and otherwise a lossless one.
        encoding: Encoding of the translations.
        keep_alpha: Whether the translations have the transparency of their sources.
        keep_endings: Whether a new suffix follows the old one, as in `walk.gif.png`, instead of replacing it.

    Raises:
        DataError: When the format cannot store the translations, or a translation would overwrite a source or another
            translation.
    """
    suffixes = supported_suffixes(encoding)
    if form and f".{form}" not in suffixes:
        raise DataError(f"--form {form}: cannot store images of {encoding}; use one of {', '.join(suffixes)}")
    if form and keep_alpha and not holds_opacity(Path(f"any.{form}"), encoding):
        raise DataError(
            f"--form {form}: cannot store the transparency of images of {encoding}; {_other_forms(encoding)}"
        )
    targets: dict[SourceFile, Path] = {}
    source_of: dict[Path, SourceFile] = {}
    originals = {source.path.resolve() for source in sources}
    for source in sources:
        target = _choose_target(source, user_path(out), form, encoding, keep_endings=keep_endings)
        if target in source_of:
            raise DataError(_describe_collision(source, source_of[target], target, keep_endings=keep_endings))
        if target.resolve() in originals:
            raise DataError(f"{target}: would be overwritten by its own translation; choose another --out")
        targets[source], source_of[target] = target, source
    return targets


def _choose_target(source: SourceFile, out: Path, form: Form | None, encoding: Encoding, *, keep_endings: bool) -> Path:
    path = out / source.relative_path
    if source.is_video:
        target = video_target(path)
    elif form:
        same = path.suffix.lower() in _SUFFIXES.get(form, (f".{form}",))
        target = path if same else path.with_suffix(f".{form}")
    elif path.suffix.lower() in _preserved_suffixes(source, encoding):
        target = path
    else:
        target = path.with_suffix(supported_suffixes(encoding)[0])
    if keep_endings and target.suffix.lower() != path.suffix.lower():
        return path.with_name(path.name + target.suffix)
    return target


def _preserved_suffixes(source: SourceFile, encoding: Encoding) -> tuple[str, ...]:
    if encoding.is_picture:
        return (".png", ".jpg", ".jpeg", *((".tif", ".tiff") if _needs_tiff(source) else ()))
    return supported_suffixes(encoding) if encoding.bits else (".tif", ".tiff", ".npy")


def _needs_tiff(source: SourceFile) -> bool:
    """Whether a TIFF file holds what no other format does. One that cannot be read is reported when it is translated."""
    if not holds_pages(source.path):
        return False
    try:
        return count_pages(source.path, PICTURE) > 1 or read_attributes(source.path, PICTURE).georeference.locates
    except DataError:
        return False


def _other_forms(encoding: Encoding) -> str:
    forms = [suffix for suffix in (".png", ".tif") if holds_opacity(Path(f"any{suffix}"), encoding)]
    return f"{' and '.join(forms)} can" if forms else "no format can; omit --keep-alpha"


def _describe_collision(source: SourceFile, other: SourceFile, target: Path, *, keep_endings: bool) -> str:
    problem = f"{source.name} and {other.name} would both be written to {target}"
    if keep_endings or source.path.suffix.lower() == other.path.suffix.lower():
        return f"{problem}; translate them into two folders"
    names = " and ".join(
        target.name if file.path.suffix.lower() == target.suffix.lower() else file.path.name + target.suffix
        for file in (other, source)
    )
    return f"{problem}; --keep-endings names them {names}, or translate them into two folders"
