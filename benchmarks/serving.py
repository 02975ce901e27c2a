"""`gantoolkit serve` with many clients at once: errors, how long an answer takes, and how large the server becomes.

    python -m benchmarks.serving --clients 50 --requests 4 --out benchmarks/results/serving-cpu.json

A real server process, and clients that send one image after the other, each as soon as it has the answer before; one that is
told to come again (503) does so when it is told to. Then the same number of clients send files as large as is allowed that are
no images, which is what takes the most memory beside a translation. Memory is that of the server's process, as Linux counts it.
"""

import argparse
import io
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch
from PIL import Image

from benchmarks.inference import write_one
from benchmarks.timing import describe_machine, write_result
from gantoolkit.inference import Translator

MEGABYTES = 16
"""The bound of `--max-megabytes`."""


@dataclass
class Told:
    """What clients were told, and when."""

    statuses: Counter[int] = field(default_factory=Counter)
    answered: list[float] = field(default_factory=list)
    """Seconds from sending an image to its translation, of the request that was not put off."""
    served: list[float] = field(default_factory=list)
    """The same from the first try on."""
    problems: list[str] = field(default_factory=list)


class Process:
    """A server's process."""

    def __init__(self, number: int) -> None:
        self._status = Path(f"/proc/{number}/status")

    def megabytes(self, key: str) -> float:
        """`VmRSS`, its size, or `VmHWM`, the largest that it has had."""
        found = re.search(rf"{key}:\s+(\d+) kB", self._status.read_text())
        return round(int(found[1]) * 1024 / 1e6, 1) if found else 0.0


@contextmanager
def serve(models: Path, queue: int) -> Iterator[tuple[str, Process]]:
    """A server in a process of its own, from its first answer to Ctrl-C."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(models), "--port", str(port), "--queue", str(queue), "--max-megabytes", str(MEGABYTES)]
    server = subprocess.Popen([sys.executable, "-m", "gantoolkit", "serve", *words, "--device", "cpu"])
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                requests.get(f"{url}/api/health", timeout=5)
                break
            except requests.RequestException:
                if server.poll() is not None:
                    raise SystemExit("the server has ended") from None
                time.sleep(0.1)
        yield url, Process(server.pid)
        server.send_signal(signal.SIGINT)
        if server.wait(timeout=60) != 130:
            raise SystemExit(f"the server ended with exit code {server.returncode}")
    finally:
        server.kill()
        server.wait()


def send_all(url: str, body: bytes, *, clients: int, count: int) -> tuple[Told, float]:
    """Let clients send a body so many times each; what they were told, and in how many seconds."""
    told, lock = Told(), threading.Lock()

    def send(client: requests.Session) -> None:
        first = time.perf_counter()
        while True:
            began = time.perf_counter()
            answer = client.post(url, data=body, headers={"content-type": "image/png"}, timeout=600)
            ended = time.perf_counter()
            with lock:
                told.statuses[answer.status_code] += 1
                if answer.status_code not in (429, 503):
                    told.answered.append(ended - began)
                    told.served.append(ended - first)
                    return
            time.sleep(float(answer.headers.get("retry-after", 1)))

    def act() -> None:
        try:
            with requests.Session() as client:
                for _ in range(count):
                    send(client)
        except Exception as error:
            told.problems.append(repr(error))

    return told, _run_at_once(act, clients)


def _run_at_once(act: Callable[[], None], count: int) -> float:
    threads = [threading.Thread(target=act) for _ in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def summarize(told: Told, seconds: float) -> dict[str, Any]:
    """The figures of one load."""

    def spread(times: list[float]) -> dict[str, float]:
        return {"median": round(statistics.median(times), 3), "95": round(float(np.percentile(times, 95)), 3)}

    return {
        "seconds": round(seconds, 2),
        "answers": {str(status): count for status, count in sorted(told.statuses.items())},
        "errors": told.problems,
        "per_second": round(len(told.served) / seconds, 2),
        "seconds_to_answer": spread(told.answered),
        "seconds_with_waiting_to_be_let_in": spread(told.served),
    }


def main() -> None:
    """Measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=4, help="images that each client sends")
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    pixels = np.random.default_rng(0).integers(0, 256, (arguments.side, arguments.side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    loads: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "A2B.safetensors"
        write_one(model)
        translator = Translator.load(model, device="cpu")
        alone = []
        for _ in range(10):
            began = time.perf_counter()
            translator(Image.fromarray(pixels))
            alone.append(time.perf_counter() - began)
        with serve(model, arguments.queue) as (url, process):
            address = f"{url}/api/models/A2B/A2B"
            send_all(address, stream.getvalue(), clients=1, count=3)  # what the first images take is kept
            memory = {"before": process.megabytes("VmRSS")}
            size = {"clients": arguments.clients, "count": arguments.requests}
            loads[f"images of {arguments.side}²"] = summarize(*send_all(address, stream.getvalue(), **size))
            memory |= {"after": process.megabytes("VmRSS"), "peak": process.megabytes("VmHWM")}
            largest = stream.getvalue()[:1000] + bytes(MEGABYTES * 1_000_000 - 1000)
            loads[f"{MEGABYTES} MB, no image"] = summarize(*send_all(address, largest, **size))
            memory |= {"after_largest": process.megabytes("VmRSS"), "peak_with_largest": process.megabytes("VmHWM")}
    result = {
        "what": "serving",
        "clients": arguments.clients,
        "requests": arguments.requests,
        "queue": arguments.queue,
        **describe_machine(torch.device("cpu")),
        "loads": loads,
        "server_megabytes": memory,
        "translator_alone_per_second": round(1 / statistics.median(alone[3:]), 2),
    }
    write_result(result, arguments.out)


if __name__ == "__main__":
    main()
