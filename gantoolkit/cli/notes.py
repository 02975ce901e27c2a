"""Notes on files, one line for each kind."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gantoolkit.data.notes import Note

__all__ = ["NoteCounter"]


class NoteCounter:
    """Counts the notes on files by kind."""

    def __init__(self) -> None:
        self._files: dict[Note, list[str]] = {}

    def add(self, name: str, notes: "Iterable[Note]") -> None:
        """Add the notes on a file."""
        for note in dict.fromkeys(notes):
            self._files.setdefault(note, []).append(name)

    @property
    def passed_over(self) -> bool:
        """Whether a part of a file is not used."""
        return any(note.passed_over for note in self._files)

    def lines(self) -> list[str]:
        """A line for each kind, with the first file and the number of the others."""
        return [f"{_count(files)}: {note.text}" for note, files in self._files.items()]


def _count(files: list[str]) -> str:
    others = len(files) - 1
    return files[0] if not others else f"{files[0]} and {others} more file{'s' if others > 1 else ''}"
