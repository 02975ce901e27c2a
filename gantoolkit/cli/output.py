"""Standard output and standard error of a command: they replace what they cannot encode, and a full disk does not end work."""

import codecs
import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeGuard

__all__ = ["tolerant_output"]

_PLAIN = {
    "→": "->",
    "←": "<-",
    "…": "...",
    "×": "x",
    "·": "*",
    "−": "-",
    "–": "-",
    "—": "-",
    "≥": ">=",
    "≤": "<=",
    "±": "+-",
    "∞": "inf",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "•": "-",
    "†": "+",
    "§": "section ",
    "↑": "^",
    "↓": "v",
    "⁰": "0",
    "¹": "1",
    "²": "2",
    "³": "3",
    "⁻": "-",
}
"""What to print in place of a character that the encoding of the output lacks; others become question marks."""
_ERRORS = "gantoolkit.plain"


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in text), error.end


codecs.register_error(_ERRORS, _replace)


class _Tolerant(io.FileIO):
    """A file whose writes always succeed: work goes on after its disk is full or its reader has closed it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.problem: OSError | None = None

    def write(self, content: Any, /) -> int | None:
        if self.problem is None:
            try:
                return super().write(content)
            except BlockingIOError:
                raise
            except OSError as error:
                self.problem = error
        return memoryview(content).nbytes


@contextlib.contextmanager
def tolerant_output() -> Iterator[Callable[[], OSError | None]]:
    """Let `print` and rich replace what the output cannot encode, and go on if it cannot be written; restore it at the end.

    Yields:
        A function that flushes standard output and returns why it could not be written; None if it could, or if its
        reader, such as `head`, has closed it.
    """
    streams = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        stack.callback(_restore, *streams)
        sys.stdout, sys.stderr = (stack.enter_context(_tolerate(stream)) for stream in streams)
        yield functools.partial(_find_problem, sys.stdout)


def _restore(stdout: Any, stderr: Any) -> None:
    sys.stdout, sys.stderr = stdout, stderr


def _find_problem(stream: Any) -> OSError | None:
    try:
        stream.flush()
    except OSError as error:
        return error
    file = getattr(getattr(stream, "buffer", None), "raw", None) or getattr(stream, "buffer", None)
    problem = file.problem if isinstance(file, _Tolerant) else None
    return None if isinstance(problem, BrokenPipeError) else problem


@contextlib.contextmanager
def _tolerate(stream: IO[str] | None) -> Iterator[Any]:
    if stream is None:  # the process was started without it
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            yield nowhere
    elif _is_file(stream):
        text = _reopen(stream)
        try:
            yield text
        finally:
            text.flush()
    elif isinstance(stream, io.TextIOWrapper):
        errors = stream.errors
        stream.reconfigure(errors=_ERRORS)
        try:
            yield stream
        finally:
            stream.reconfigure(errors=errors)
    else:
        yield stream


def _is_file(stream: Any) -> TypeGuard[io.TextIOWrapper]:
    """Whether a stream is as Python opened it, and not replaced by a notebook or a test."""
    return type(stream) is io.TextIOWrapper and isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO)


def _reopen(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    file = _Tolerant(stream.fileno())
    buffer: Any = file if stream.write_through else io.BufferedWriter(file)
    return io.TextIOWrapper(
        buffer, stream.encoding, _ERRORS, line_buffering=stream.line_buffering, write_through=stream.write_through
    )
