"""The command gantoolkit in a process that sends itself a signal at a chosen moment; for tests.

    python dying.py SIGNALS PATTERN COUNT train ...

The moment is the COUNT-th event whose name and first argument fit PATTERN, as in `open */checkpoints/*`, `os.rename *.part` or
`import torch`: Python's audit events, each of which comes just before the thing happens. Two more events are made here:
`backward`, in the middle of a step, and `row`, when half a row has been written to the log. `torn` in front of the pattern
looks at files that hold something, and cuts the file of that moment in half first: what a process leaves that is killed while
it writes. SIGNALS are names joined by `+`, such as SIGTERM+SIGTERM.
"""

import fnmatch
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))


def main() -> None:
    signals, pattern, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    is_torn, pattern = pattern.startswith("torn "), pattern.removeprefix("torn ")
    seen = 0

    def note(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        name = str(arguments[0]) if arguments else ""
        if seen >= count or not fnmatch.fnmatchcase(f"{event} {name}".strip(), pattern):
            return
        path = Path(name)
        if is_torn and not (path.is_file() and path.stat().st_size):
            return
        seen += 1
        if seen < count:
            return
        if is_torn:
            os.truncate(path, path.stat().st_size // 2)
        for kind in signals.split("+"):
            os.kill(os.getpid(), signal.Signals[kind])

    if pattern.startswith("backward"):
        import torch

        plain = torch.Tensor.backward

        def backward(*arguments: object, **more: object) -> None:
            note("backward", ())
            plain(*arguments, **more)

        torch.Tensor.backward = backward
    elif pattern.startswith("row"):
        from gantoolkit.runs.log import Log

        write = Log.write

        def write_half(self, row) -> None:
            if seen == count - 1:
                with self.path.open("a") as file:
                    text = json.dumps(row)
                    file.write(text[: len(text) // 2])
            note("row", ())
            write(self, row)

        Log.write = write_half
    else:
        sys.addaudithook(note)
    sys.argv[1:] = sys.argv[4:]
    from gantoolkit.__main__ import run

    sys.exit(run())


if __name__ == "__main__":
    main()
