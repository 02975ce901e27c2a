"""How a data set is laid out in folders: where the images of a split are.

Three layouts are read, and each split may have its own:

- `<root>/<split>A` and `<root>/<split>B`,
- `<root>/<split>/A` and `<root>/<split>/B`,
- `<root>/<split>`, whose images show A in their left half and B in their right half.
"""

from dataclasses import dataclass
from pathlib import Path

from gantoolkit.data.suffixes import SUFFIXES
from gantoolkit.errors import DataError, closest_match, count_of
from gantoolkit.files.atomic import is_url

__all__ = ["Split", "count_images", "describe_beside", "describe_unused_tests", "find_split", "has_split"]

_MAX_NAMES = 8


@dataclass(frozen=True)
class Split:
    """The folders of a split.

    Args:
        folders: The folder of each domain; the same one for both if its images show A and B side by side.
        notes: Sentences about images beside these folders, which are not used.
    """

    folders: dict[str, Path]
    notes: tuple[str, ...] = ()

    @property
    def is_side_by_side(self) -> bool:
        return self.folders["A"] == self.folders["B"]


def find_split(root: Path, split: str) -> Split:
    """Find the folders of a split.

    Raises:
        DataError: When they are missing, or two layouts are used at once.
    """
    if not root.exists() and is_url(root):
        raise DataError(f"{root}: is a URL, not a folder; download the data set first")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; a data set is a folder with {split}A and {split}B in it")
    joined, nested = _domain_folders(root, split)
    if joined and nested:
        first, second = (_enumerate(_relative(root, folders)) for folders in (joined, nested))
        raise DataError(
            f"{root}: {first} {_is_or_are(joined)} there beside {second}; the images of a split are in {split}A and {split}B, "
            f"or in {split}/A and {split}/B"
        )
    folders = joined or nested
    if folders:
        _check_complete(root, split, folders, nested=bool(nested))
        return Split(folders, _describe_unused(root, split))
    whole = root / split
    if not whole.is_dir():
        raise DataError(f"{root}: the folders {split}A and {split}B are missing; {_describe_missing(root, split)}")
    if not count_images(whole) and (names := _folder_names(whole)):
        raise DataError(
            f"{root}: {split} holds {_enumerate_folders(names)} and no image; {_suggest_domains(root, split, names)}"
        )
    if split != "train" and _has_domains(root, "train"):
        raise DataError(
            f"{root}: {split} holds images of neither domain; beside the folders of A and B for training, test images are in "
            f"{split}A and {split}B, or in {split}/A and {split}/B"
        )
    return Split({"A": whole, "B": whole})


def describe_unused_tests(root: Path) -> tuple[str, ...]:
    """Folders of test images that are not used, each with the reason."""
    if has_split(root, "test"):
        return ()
    joined, nested = _domain_folders(root, "test")
    if present := _relative(root, joined or nested):
        return (f"{present[0]} is not used: the other domain has no test images",)
    if images := count_images(root / "test"):
        verb = "is" if images == 1 else "are"
        reason = "beside trainA and trainB, test images are in testA and testB"
        return (f"test: {count_of(images, 'image')} {verb} not used: {reason}",)
    return ()


def describe_beside(root: Path) -> tuple[str, ...]:
    """What lies beside the folders of a data set and is not used for training."""
    notes = []
    if images := count_images(root):
        notes.append(f"{count_of(images, 'image')} directly in {root} {'is' if images == 1 else 'are'} not used")
    other = next((name for name in ("val", "valid", "validation") if has_split(root, name)), "")
    if other and not has_split(root, "test"):
        notes.append(
            f"the split '{other}' is not used during training, where samples come from a split 'test'; gantoolkit evaluate "
            f"--split {other} scores it"
        )
    return tuple(notes)


def has_split(root: Path, split: str) -> bool:
    """Whether a data set has images of both domains for a split; beside domains in folders, `<split>` is not side by side."""
    joined, nested = _domain_folders(root, split)
    if joined or nested:
        return 2 in (len(joined), len(nested))
    return (root / split).is_dir() and not _has_domains(root, "train")


def count_images(folder: Path) -> int:
    """The number of image files in a folder, without its subfolders."""
    try:
        return sum(
            path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
            for path in folder.iterdir()
        )
    except OSError:
        return 0


def _has_domains(root: Path, split: str) -> bool:
    """Whether a split has a folder of a domain."""
    return any(_domain_folders(root, split))


def _domain_folders(root: Path, split: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """The folders `<split>A` and `<split>B`, and the folders `<split>/A` and `<split>/B`, as far as they exist."""
    joined = {domain: root / f"{split}{domain}" for domain in "AB"}
    nested = {domain: root / split / domain for domain in "AB"}
    first, second = ({domain: path for domain, path in paths.items() if path.is_dir()} for paths in (joined, nested))
    return first, second


def _check_complete(root: Path, split: str, folders: dict[str, Path], *, nested: bool) -> None:
    missing = [domain for domain in "AB" if domain not in folders]
    if not missing:
        return
    domain = missing[0]
    present = root / split if nested else root
    expected = f"{split}/{domain}" if nested else f"{split}{domain}"
    name = Path(expected).name
    unknown = [other for other in _folder_names(present) if not other.endswith(tuple("AB"))]
    similar = _similar_name(present, name) or closest_match(name, unknown)
    hint = f"; did you mean {similar}? Rename it to {name}" if similar else ""
    raise DataError(
        f"{root}: domain {domain} is missing: expected the folder {expected}; {_describe_folders(present)}{hint}"
    )


def _describe_unused(root: Path, split: str) -> tuple[str, ...]:
    """What lies in the folder `<split>` beside the folders of both domains."""
    whole = root / split
    images = count_images(whole)
    others = [name for name in _folder_names(whole) if name not in ("A", "B") and count_images(whole / name)]
    parts = [count_of(images, "image")] if images else []
    parts += [_enumerate_folders(others)] if others else []
    if not parts:
        return ()
    verb = "is" if len(parts) == 1 and (images or len(others)) == 1 else "are"
    return (f"{split}: {' and '.join(parts)} beside the folders of A and B {verb} not used",)


def _describe_missing(root: Path, split: str) -> str:
    """What a folder holds that has no images for a split, and what that may have been meant to be."""
    names = _folder_names(root)
    found_A, found_B = f"A/{split}", f"B/{split}"
    if (root / found_A).is_dir() and (root / found_B).is_dir():
        return f"found {found_A} and {found_B}: move them to {split}A and {split}B"
    if {"A", "B"} <= set(names):
        return f"found the folders A and B: rename them to {split}A and {split}B"
    similar = {name: similar for name in (f"{split}A", f"{split}B") if (similar := _similar_name(root, name))}
    if similar:
        return "; ".join(f"rename {old} to {new}" for new, old in similar.items())
    if whole := _similar_name(root, split):
        return f"rename {whole} to {split}"
    inner = [name for name in names if _has_domains(root / name, split) or (root / name / split).is_dir()]
    if inner:
        return f"did you mean {root / inner[0]}?"
    other = next((name for name in ("val", "valid", "validation", "test", "train") if has_split(root, name)), "")
    if other and split != "train":
        return f"found the split '{other}': rename its folders, or score it with gantoolkit evaluate --split {other}"
    if images := count_images(root):
        return f"it holds {count_of(images, 'image')} itself, and a data set holds folders of images"
    if len(names) == 2 and all(count_images(root / name) for name in names):
        return f"found the folders {names[0]} and {names[1]}: rename them to {split}A and {split}B"
    match = closest_match(f"{split}A", names)
    return _describe_folders(root) + (f"; rename {match} to {split}A or {split}B" if match else "")


def _suggest_domains(root: Path, split: str, names: list[str]) -> str:
    """What the layout of `<split>` may have been meant to be, if it holds folders only."""
    whole = root / split
    if _has_domains(whole, "train") or (whole / "train").is_dir():
        return f"did you mean {whole}?"
    pair = [name for name in ("A", "B") if (similar := _similar_name(whole, name)) and similar != name]
    if len(pair) == 2:
        return f"rename {_similar_name(whole, 'A')} to A and {_similar_name(whole, 'B')} to B"
    rename = f"rename {names[0]} and {names[1]} to A and B" if len(names) == 2 else "its folders have to be A and B"
    return f"{rename}; a folder {split} without them holds images that show A and B side by side"


def _similar_name(folder: Path, name: str) -> str | None:
    """A folder whose name differs from `name` in case and separators only, such as `train_A` from `trainA`."""
    return next((other for other in _folder_names(folder) if other != name and _plain(other) == _plain(name)), None)


def _plain(name: str) -> str:
    folded = name.casefold()
    for word, short in (("domain", ""), ("_", ""), ("-", ""), (" ", ""), (".", "")):
        folded = folded.replace(word, short)
    return folded


def _describe_folders(folder: Path) -> str:
    names = _folder_names(folder)
    return f"found {_enumerate_folders(names)}" if names else "found no folder"


def _folder_names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _enumerate_folders(names: list[str]) -> str:
    return f"the folder{'' if len(names) == 1 else 's'} {_enumerate(names)}"


def _enumerate(names: list[str]) -> str:
    shown = names[:_MAX_NAMES]
    if len(names) > len(shown):
        return f"{', '.join(shown)} and {len(names) - len(shown)} more"
    return " and ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part)


def _relative(root: Path, folders: dict[str, Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in folders.values()]


def _is_or_are(folders: dict[str, Path]) -> str:
    return "is" if len(folders) == 1 else "are"
