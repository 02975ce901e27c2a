"""What came from what: a line for each file in `manifest.jsonl`, by which an interrupted translation goes on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from gantoolkit.errors import DataError
from gantoolkit.files.atomic import describe_failure, printable
from gantoolkit.files.text import write_text
from gantoolkit.inference.sources import SourceFile
from gantoolkit.inference.translator import Translator

__all__ = ["NAME", "Manifest", "fingerprint"]

NAME = "manifest.jsonl"


class Manifest:
    """The manifest of a folder of translations. A line has source, target, sizes, times and the generator's fingerprint.

    A line is written when its translation is whole, so that whatever ends the program, what the manifest says is there. Of
    several lines about one translation the last one counts; a line that was cut off is passed over.

    Args:
        out: The folder; it is made if it is not there.
        how: All that decides what a file becomes, beside the file.

    Raises:
        DataError: When it cannot be read or written.
    """

    def __init__(self, out: str | Path, how: Mapping[str, Any]) -> None:
        self.out, self.how = Path(out), dict(how)
        self.path = self.out / NAME
        try:
            self.lines = _read(self.path)
        except OSError as error:
            raise DataError(describe_failure(self.path, error)) from error
        write_text(self.path, "".join(_write(line) for line in self.lines.values()))

    def holds(self, source: SourceFile, target: Path) -> bool:
        """Whether a file has been translated in this way, is the one that it was, and its translation is still there."""
        line = self.lines.get(self._key(target), {})
        same = all(line.get(key) == value for key, value in (self._about(source) | self.how).items())
        return (
            same and not line.get("problem") and target.is_file() and target.stat().st_size == line.get("target_bytes")
        )

    def forget(self, targets: Iterable[Path]) -> None:
        """Take these translations for not made."""
        for target in targets:
            self.lines.pop(self._key(target), None)

    def note(self, source: SourceFile, target: Path, problem: str = "") -> None:
        """Write down what became of a file.

        Raises:
            DataError: When that cannot be written.
        """
        outcome = {"problem": problem} if problem else {"target_bytes": target.stat().st_size}
        made = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"target": self._key(target), **self._about(source), **self.how, **outcome, "at": made}
        self.lines[line["target"]] = line
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_write(line))
        except OSError as error:
            raise DataError(describe_failure(self.path, error)) from error

    def _key(self, target: Path) -> str:
        return printable(target.relative_to(self.out))

    def _about(self, source: SourceFile) -> dict[str, Any]:
        return {"source": printable(Path(source.name)), "bytes": source.size, "modified": source.modified}


def fingerprint(translator: Translator) -> str:
    """SHA-256 of a generator: its recipe, direction and weights."""
    generator = translator.generator
    digest = hashlib.sha256(f"{generator.direction}\n{generator.recipe.to_toml()}".encode())
    for name, tensor in generator.network.state_dict().items():
        digest.update(name.encode())
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
    return json.dumps(line) + "\n"  # in ASCII: names may hold what ends a line, or is no text
