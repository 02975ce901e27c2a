"""Match the files of two folders by their names, so that they form pairs."""

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath

from gantoolkit.data.listing import Listing
from gantoolkit.errors import DataError, count_of

__all__ = ["PairingError", "match_files", "pair_name"]


class PairingError(DataError):
    """Files of two folders that are not pairs.

    Args:
        matches: The number of files that have a partner.
        is_ambiguous: Whether a file may have several partners.
    """

    def __init__(self, message: str, *, matches: int, is_ambiguous: bool = False) -> None:
        super().__init__(message)
        self.matches = matches
        self.is_ambiguous = is_ambiguous


def match_files(first: Listing, second: Listing, names: tuple[str, str], *, where: str = "") -> list[tuple[Path, Path]]:
    """The pairs of two folders, in the order of the first one. The files of a pair have the same name.

    Equal names match first, then names that are equal after Unicode normalization, then names without their suffix.

    Args:
        names: The names of both folders in messages.
        where: The start of messages.

    Raises:
        PairingError: When a file has no partner, or may have several.
    """
    lists = (list(first.images), list(second.images))
    relative = {path: path.relative_to(listing.folder) for listing in (first, second) for path in listing.images}
    pairs: dict[Path, Path] = {}
    for key in (PurePath.as_posix, _normalize, pair_name):
        groups = [_group(files, lambda path, key=key: key(relative[path])) for files in lists]
        for name in groups[0]:  # in order, so that the first problem is always the same one
            if name not in groups[1]:
                continue
            files = [groups[0][name], groups[1][name]]
            if ambiguity := _describe_ambiguity(name, files, relative, names):
                raise PairingError(where + ambiguity, matches=len(pairs), is_ambiguous=True)
            pairs[files[0][0]] = files[1][0]
        lists = ([path for path in lists[0] if path not in pairs], _without(lists[1], pairs.values()))
    if alone := [*lists[0], *lists[1]]:
        hint = _describe_unread(alone[0], first, second, names)
        raise PairingError(where + _describe_alone(alone, first, pairs, relative, names, hint), matches=len(pairs))
    return [(path, pairs[path]) for path in first.images]


def pair_name(path: PurePath) -> str:
    """The part of a file's relative path that both files of a pair share: without its suffix, in Unicode's composed form."""
    return _normalize(path.with_suffix(""))


def _normalize(path: PurePath) -> str:
    return unicodedata.normalize("NFC", path.as_posix())


def _group(files: Iterable[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(key(path), []).append(path)
    return groups


def _without(files: Iterable[Path], others: Iterable[Path]) -> list[Path]:
    excluded = set(others)
    return [path for path in files if path not in excluded]


def _describe_ambiguity(name: str, files: list[list[Path]], relative: dict[Path, Path], names: tuple[str, str]) -> str:
    for side, other in ((0, 1), (1, 0)):
        if len(files[side]) > 1:
            several = " and ".join(f"{names[side]}/{relative[path]}" for path in files[side][:2])
            partner = f"{names[other]}/{relative[files[other][0]]}"
            reason = (
                " (in Unicode's composed form)"
                if len({_normalize(relative[path]) for path in files[side]}) == 1
                else ""
            )
            return (
                f"{several} share the name '{name}'{reason}, so the partner of {partner} is ambiguous; rename or remove one of "
                "them"
            )
    return ""


def _describe_unread(path: Path, first: Listing, second: Listing, names: tuple[str, str]) -> str:
    """Which file of the other folder has the name of a file, but is not read."""
    side, own, other = (0, first, second) if path in first.images else (1, second, first)
    for unread in other.unread:
        if pair_name(unread.relative_to(other.folder)) == pair_name(path.relative_to(own.folder)):
            return f"{names[1 - side]}/{unread.relative_to(other.folder)} is not read; convert it to PNG or TIFF"
    return ""


def _describe_alone(
    alone: list[Path],
    first: Listing,
    pairs: dict[Path, Path],
    relative: dict[Path, Path],
    names: tuple[str, str],
    hint: str,
) -> str:
    in_first = set(first.images)
    title = {path: f"{names[path not in in_first]}/{relative[path]}" for path in relative}
    path = alone[0]
    verb = "has" if len(alone) == 1 else "have"
    text = f"{count_of(len(alone), 'file')} {verb} no partner, {title[path]} first"
    for A, B in pairs.items():
        twin = A if path in in_first else B
        if pair_name(relative[twin]) == pair_name(relative[path]):
            return f"{text}: {title[A]} and {title[B]} are a pair; rename or remove {title[path]}"
    if hint:
        return f"{text}: {hint}"
    opposite = [other for other in alone if (other in in_first) != (path in in_first)]
    name = pair_name(relative[path])
    for other in opposite:
        if pair_name(relative[other]).casefold() == name.casefold():
            return f"{text}: {title[other]} differs in upper and lower case; rename one of them"
    for other in opposite:
        if PurePath(pair_name(relative[other])).name == PurePath(name).name:
            return f"{text}: {title[other]} is in another subfolder; both files of a pair have to be in the same one"
    return f"{text}; the files of a pair have the same name in {names[0]} and {names[1]}; suffixes may differ"
