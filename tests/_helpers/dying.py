"""Run the command gantoolkit in a process that sends itself a signal at a chosen moment.

    python dying.py SIGNALS PATTERN COUNT train ...

The moment is the COUNT-th event whose name and first argument match PATTERN, as in `open */checkpoints/*`, `os.rename *.part`
or `import torch`. These are Python's audit events, which are raised just before the operation. This module adds two events:
`backward`, in the middle of a step, and `row`, when half a row has been written to the log. After `torn`, the pattern matches
only files that are not empty, and the file is cut in half first, as if the process were killed while it writes. SIGNALS are
names joined by `+`, such as SIGTERM+SIGTERM.
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
    matches = 0

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal matches
        name = str(arguments[0]) if arguments else ""
        if matches >= count or not fnmatch.fnmatchcase(f"{event} {name}".strip(), pattern):
            return
        path = Path(name)
        if is_torn and not (path.is_file() and path.stat().st_size):
            return
        matches += 1
        if matches < count:
            return
        if is_torn:
            os.truncate(path, path.stat().st_size // 2)
        for name in signals.split("+"):
            os.kill(os.getpid(), signal.Signals[name])

    if pattern.startswith("backward"):
        import torch

        original_backward = torch.Tensor.backward

        def backward(*arguments: object, **more: object) -> None:
            audit("backward", ())
            original_backward(*arguments, **more)

        torch.Tensor.backward = backward
    elif pattern.startswith("row"):
        from gantoolkit.runs.log import Log

        original_write = Log.write

        def write_half(self, row) -> None:
            if matches == count - 1:
                with self.path.open("a") as file:
                    text = json.dumps(row)
                    file.write(text[: len(text) // 2])
            audit("row", ())
            original_write(self, row)

        Log.write = write_half
    else:
        sys.addaudithook(audit)
    sys.argv[1:] = sys.argv[4:]
    from gantoolkit.__main__ import run

    sys.exit(run())


if __name__ == "__main__":
    main()
