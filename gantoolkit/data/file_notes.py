"""Notes about many files, counted: one sentence for each kind of note."""

from collections.abc import Iterable
from pathlib import Path

from gantoolkit.data.images import ImageFile
from gantoolkit.data.notes import Note, describe_files

__all__ = ["FileNotes"]


class FileNotes:
    """Collects the notes of files."""

    def __init__(self) -> None:
        self._files: dict[Note, dict[Path, None]] = {}

    def add(self, file: Path | ImageFile, notes: Iterable[Note]) -> None:
        """Add the notes of a file; both halves of a file count once."""
        for note in notes:
            self._files.setdefault(note, {})[ImageFile.of(file).path] = None

    def sentences(self, *, passed_over_only: bool = False) -> tuple[str, ...]:
        """One sentence for each kind of note, with the first file and the number of the others.

        Args:
            passed_over_only: Only those about files of which a part is not used.
        """
        return tuple(
            describe_files(next(iter(files)), note.text, len(files))
            for note, files in self._files.items()
            if note.passed_over or not passed_over_only
        )
