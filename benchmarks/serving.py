"""Measure `gantoolkit serve` under many concurrent clients: errors, latency, throughput and memory.

    python -m benchmarks.serving --clients 50 --requests 4 --out benchmarks/results/serving-cpu.json

Each client sends images to a real server process, each as soon as the previous response has arrived; after a 503 it waits as
the response asks. Then the same number of clients send files of the maximum size that are not images, the requests that need
the most memory besides translations. Memory is that of the server process, as Linux counts it.
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
"""Value of `--max-megabytes`."""


@dataclass
class Responses:
    """Status codes, latencies and errors that clients observed."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    """Seconds from sending an image to its translation, for the attempt that was accepted."""
    total_latencies: list[float] = field(default_factory=list)
    """The same, from the first attempt on."""
    errors: list[str] = field(default_factory=list)


class Process:
    """The memory of a server process."""

    def __init__(self, number: int) -> None:
        self._status = Path(f"/proc/{number}/status")

    def megabytes(self, key: str) -> float:
        """Read `VmRSS`, its current size, or `VmHWM`, its peak."""
        match = re.search(rf"{key}:\s+(\d+) kB", self._status.read_text())
        return round(int(match[1]) * 1024 / 1e6, 1) if match else 0.0


@contextmanager
def serve(models: Path, queue: int) -> Iterator[tuple[str, Process]]:
    """Run a server in its own process, from its first response to Ctrl-C."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [str(models), "--port", str(port), "--queue", str(queue), "--max-megabytes", str(MEGABYTES)]
    server = subprocess.Popen([sys.executable, "-m", "gantoolkit", "serve", *arguments, "--device", "cpu"])
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


def send_all(url: str, body: bytes, *, clients: int, count: int) -> tuple[Responses, float]:
    """Let each client send `body` `count` times; return their responses and the total seconds."""
    responses, lock = Responses(), threading.Lock()

    def send(client: requests.Session) -> None:
        first = time.perf_counter()
        while True:
            start = time.perf_counter()
            response = client.post(url, data=body, headers={"content-type": "image/png"}, timeout=600)
            end = time.perf_counter()
            with lock:
                responses.statuses[response.status_code] += 1
                if response.status_code not in (429, 503):
                    responses.latencies.append(end - start)
                    responses.total_latencies.append(end - first)
                    return
            time.sleep(float(response.headers.get("retry-after", 1)))

    def run_client() -> None:
        try:
            with requests.Session() as client:
                for _ in range(count):
                    send(client)
        except Exception as error:
            responses.errors.append(repr(error))

    return responses, _run_concurrently(run_client, clients)


def _run_concurrently(run_client: Callable[[], None], count: int) -> float:
    threads = [threading.Thread(target=run_client) for _ in range(count)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def summarize(responses: Responses, seconds: float) -> dict[str, Any]:
    """Summarize the responses to one load."""

    def spread(times: list[float]) -> dict[str, float]:
        return {"median": round(statistics.median(times), 3), "95": round(float(np.percentile(times, 95)), 3)}

    return {
        "seconds": round(seconds, 2),
        "answers": {str(status): count for status, count in sorted(responses.statuses.items())},
        "errors": responses.errors,
        "per_second": round(len(responses.total_latencies) / seconds, 2),
        "seconds_to_answer": spread(responses.latencies),
        "seconds_with_waiting_to_be_let_in": spread(responses.total_latencies),
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
        alone_seconds = []
        for _ in range(10):
            start = time.perf_counter()
            translator(Image.fromarray(pixels))
            alone_seconds.append(time.perf_counter() - start)
        with serve(model, arguments.queue) as (url, process):
            address = f"{url}/api/models/A2B/A2B"
            send_all(address, stream.getvalue(), clients=1, count=3)  # memory of the first images stays allocated
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
        "translator_alone_per_second": round(1 / statistics.median(alone_seconds[3:]), 2),
    }
    write_result(result, arguments.out)


if __name__ == "__main__":
    main()
