"""The servers of `study serve` and `serve`, each in its own process."""

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from _helpers.patience import PATIENCE, wait_for
from _helpers.small import make_image


def make_folders(root: Path, *, count: int = 60, names: Sequence[str] = ("one", "two")) -> list[str]:
    """Write folders of images; returns the arguments that name them."""
    for first, name in enumerate(("real", *names)):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            make_image(1000 * first + number, (32, 32)).save(root / name / f"secret-{name}-{number:03d}.png")
    fakes = [word for name in names for word in ("--fake", f"{name}={root / name}")]
    return ["--real", str(root / "real"), *fakes]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A command that serves, running inside a `with` block. `kill` sends SIGKILL; `start` restarts it on the same port.

    Args:
        command: The command's words, such as `study serve`.
        port: The port; None chooses a free one.
    """

    def __init__(self, *command: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "-m", "gantoolkit", *command, "--port", str(self.port)]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for(self._responds)

    def _responds(self) -> bool:
        process = self.process
        assert process is not None
        if process.poll() is not None:
            raise AssertionError(process.stdout.read() if process.stdout else "")
        try:
            requests.get(self.url, timeout=PATIENCE)
        except requests.RequestException:
            return False
        return True

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class StudyServer(Server):
    """`gantoolkit study serve`."""

    def __init__(self, arguments: Sequence[str], *, port: int | None = None) -> None:
        super().__init__("study", "serve", *arguments, port=port)


class ModelServer(Server):
    """`gantoolkit serve`."""

    def __init__(self, arguments: Sequence[str], *, port: int | None = None) -> None:
        super().__init__("serve", *arguments, port=port)
