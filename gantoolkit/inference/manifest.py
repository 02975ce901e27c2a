"""The record of translated files, `manifest.jsonl`, with which an interrupted translation resumes."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from gantoolkit.data.notes import Note
from gantoolkit.errors import DataError
from gantoolkit.files.atomic import describe_write_error, printable
from gantoolkit.files.paths import user_path
from gantoolkit.files.text import write_text
from gantoolkit.inference.sources import SourceFile
from gantoolkit.inference.translator import Translator
from gantoolkit.runtime.precision import dtype_of

__all__ = ["NAME", "Manifest", "fingerprint"]

NAME = "manifest.jsonl"


class Manifest:
    """The manifest of a folder of translations.

    A line holds source, target, sizes, times, the problem or notes, and the generator's fingerprint.

    A line is written once its translation is complete, so every translation listed exists even if the program is killed. If
    several lines name one translation, the last one counts. A truncated line is ignored.

    Args:
        out: The folder; it is created if it does not exist.
        settings: Everything besides the source file that determines a translation.

    Raises:
        DataError: When the manifest cannot be read or written.
    """

    def __init__(self, out: str | Path, settings: Mapping[str, Any]) -> None:
        self.out, self.settings = user_path(out), dict(settings)
        self.path = self.out / NAME
        try:
            self.lines = _read(self.path)
        except OSError as error:
            raise DataError(describe_write_error(self.path, error)) from error
        write_text(self.path, "".join(_write(line) for line in self.lines.values()))

    def holds(self, source: SourceFile, target: Path) -> bool:
        """Whether a file was translated with these settings, has not changed since, and its translation still exists."""
        line = self.lines.get(self._key(target), {})
        same = all(line.get(key) == value for key, value in (self._identify(source) | self.settings).items())
        return (
            same and not line.get("problem") and target.is_file() and target.stat().st_size == line.get("target_bytes")
        )

    def forget(self, targets: Iterable[Path]) -> None:
        """Drop these translations, so that they are made again."""
        for target in targets:
            self.lines.pop(self._key(target), None)

    def notes(self, target: Path) -> tuple[Note, ...]:
        """The notes on a translation that the manifest holds."""
        notes = self.lines.get(self._key(target), {}).get("notes", [])
        return tuple(
            Note(str(note.get("text")), bool(note.get("passed_over"))) for note in notes if isinstance(note, dict)
        )

    def record(self, source: SourceFile, target: Path, problem: str = "", notes: Sequence[Note] = ()) -> None:
        """Append a line with the result for a file.

        Args:
            problem: Why it was not translated; empty if it was.
            notes: What the user should know about it.

        Raises:
            DataError: When the manifest cannot be written.
        """
        outcome: dict[str, Any]
        outcome = {"problem": problem} if problem else {"target_bytes": target.stat().st_size}
        if notes:
            outcome["notes"] = [asdict(note) for note in notes]
        time = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"target": self._key(target), **self._identify(source), **self.settings, **outcome, "at": time}
        self.lines[line["target"]] = line
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_write(line))
        except OSError as error:
            raise DataError(describe_write_error(self.path, error)) from error

    def _key(self, target: Path) -> str:
        return printable(target.relative_to(self.out))

    def _identify(self, source: SourceFile) -> dict[str, Any]:
        return {"source": printable(Path(source.name)), "bytes": source.size, "modified": source.modified}


def fingerprint(translator: Translator) -> str:
    """The SHA-256 of a generator's recipe, direction and weights, which are rounded to its precision."""
    generator = translator.generator
    dtype = dtype_of(generator.precision)
    digest = hashlib.sha256(f"{generator.direction}\n{generator.recipe.to_toml()}".encode())
    for name, tensor in generator.network.state_dict().items():
        digest.update(name.encode())
        tensor = (
            tensor.to(dtype) if tensor.is_floating_point() else tensor
        )  # the device decides which are rounded already
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, dict[str, Any]]:
    lines: dict[str, dict[str, Any]] = {}
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("target"), str):
                lines[line["target"]] = line
    return lines


def _write(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"  # ASCII: names may contain line separators or invalid Unicode
