"""Train for hours under repeated kills: check that the result equals an undisturbed run, and that nothing leaks.

    python -m benchmarks.soak --minutes 115 --folder runs/soak --out benchmarks/results/soak-cpu.json

Two runs of a small CycleGAN: the first loads images in the main process, the second in a worker process. Each is trained
twice: first undisturbed, in one process, until it is asked to stop; then to the same step, by processes that get SIGKILL,
SIGTERM or SIGINT at random times. Samples, checkpoints, metrics and the report are written throughout. Every few seconds, the
memory of the process and its workers is recorded, with open files, threads, CPU time and step. A life is one such process.

A process grows for some minutes, until its heap is large enough. Therefore there are two slopes: that after the warm-up, and
that of the second half of this time, which reveals a leak if lives are long. `--again FILE` recomputes both from a result,
optionally with another warm-up.

A slope is that of a linear regression with one common slope and an intercept per life, without the warm-up of each life.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import describe_machine, write_result
from gantoolkit.files.tensors import read_header, read_tensors
from gantoolkit.runs import RunFolder
from gantoolkit.runs.log import read_log

__all__ = ["main", "pooled_slope"]

SETTINGS = (
    "generator.width=8",
    "generator.blocks=2",
    "discriminator.width=8",
    "discriminator.layers=2",
    "data.load_size=72",
    "data.crop_size=64",
    "identity_weight=1.0",
    "metric=l1",
    "training.epochs=100000",
    "training.deterministic=true",
    "training.evaluate_images=4",
    "training.samples=2",
)
INTERVALS = {"log_every": 1, "sample_every": 6, "checkpoint_every": 6, "evaluate_every": 12}
"""Intervals in units of --beat steps."""

SHARES = (30, 34, 24, 27)
"""Shares of the time: undisturbed and disturbed without workers, then undisturbed and disturbed with a worker."""

SIGNALS = (signal.SIGKILL,) * 4 + (signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}

INTERVAL = 5.0
"""Seconds between two measurements of the processes."""

WARM_UP = 120.0
"""Seconds at the start of a life to exclude from slopes, while libraries load and caches fill."""


@dataclass(frozen=True)
class Look:
    """Measurements of a life at one time; sizes are in MB and include the workers.

    Args:
        rss: Resident memory, including shared libraries and mapped files.
        own: Private dirty memory, where leaks appear.
    """

    seconds: float
    rss: float
    own: float
    handles: int
    threads: int
    processor: float
    step: int


@dataclass
class Life:
    """One process from its start to its end."""

    run: str
    began_at: int
    ended_at: int = 0
    end: str = ""
    code: int = 0
    seconds: float = 0.0
    looks: list[Look] = field(default_factory=list)


def make_images(folder: Path, count: int = 24) -> Path:
    """Write a small data set with one invalid image file, and paired test images."""
    for index, (name, images) in enumerate((("trainA", count), ("trainB", count - 4), ("testA", 4), ("testB", 4))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            pixels = np.random.default_rng([index, number]).integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((96, 80), Image.Resampling.BICUBIC).save(folder / name / f"{number:02d}.png")
    (folder / "trainA" / "broken.png").write_text("not an image")
    return folder


def measure(process: int, since: float, step: int) -> Look | None:
    """Measure a process and its children through /proc; None if it has ended."""
    totals = {"rss": 0.0, "own": 0.0, "handles": 0, "threads": 0, "processor": 0.0}
    ticks = os.sysconf("SC_CLK_TCK")
    try:
        for number in [process, *children_of(process)]:
            folder = Path("/proc") / str(number)
            sizes = dict(line.split(":", 1) for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            totals["rss"] += int(sizes["Rss"].split()[0]) / 1000
            totals["own"] += int(sizes["Private_Dirty"].split()[0]) / 1000
            totals["handles"] += len(list((folder / "fd").iterdir()))
            totals["threads"] += int(fields[17])
            totals["processor"] += (int(fields[11]) + int(fields[12])) / ticks
    except (OSError, KeyError, IndexError):
        return None
    return Look(round(time.monotonic() - since, 2), step=step, **{name: round(n, 2) for name, n in totals.items()})  # type: ignore[arg-type]


def children_of(process: int) -> list[int]:
    """The process ids of all descendants of a process."""
    children: list[int] = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, listed.read_text().split()):
                children += [child, *children_of(child)]
    return children


def last_step(log: Path) -> int:
    """The step of the last complete row of a log."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        for line in reversed(file.read().splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return int(json.loads(line)["step"])
    return 0


def newest_step(folder: RunFolder) -> int:
    """The step that a run would resume from."""
    return max((int(path.stem.removeprefix("step-")) for path in folder.list_checkpoints()), default=0)


def live(
    name: str, command: Sequence[str], folder: RunFolder, output: Path, seconds: float | None, kind: signal.Signals
) -> Life:
    """Train in a subprocess, and send it a signal after `seconds` unless it has ended."""
    life = Life(name, newest_step(folder))
    with output.open("a") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as process:
        start = time.monotonic()
        try:
            while process.poll() is None:
                remaining = float("inf") if seconds is None else seconds - (time.monotonic() - start)
                if remaining <= 0:
                    process.send_signal(kind)
                    life.end = kind.name
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(INTERVAL, remaining))
                look = measure(process.pid, start, last_step(folder.log)) if process.poll() is None else None
                life.looks += [look] if look is not None else []
            life.code = process.wait(300)
        finally:
            process.kill()
    life.seconds = round(time.monotonic() - start, 1)
    life.ended_at = last_step(folder.log)
    expected = CODES[kind] if life.end else 0
    # It may have ended just before the signal.
    if life.code not in (expected, 0):
        raise SystemExit(f"{name}: a life ended with exit code {life.code}, not {expected}; see {output}")
    life.end = life.end if life.code else "finished"
    return life


def train_command(arguments: argparse.Namespace, data: Path, out: Path, workers: int) -> list[str]:
    """The command that starts or resumes a run."""
    command = [sys.executable, "-m", "gantoolkit", "train", "cyclegan", "--data", str(data), "--out", str(out)]
    command += ["--workers", str(workers), "--device", "cpu"]
    intervals = [f"training.{name}={beats * arguments.beat}" for name, beats in INTERVALS.items()]
    for setting in (*SETTINGS, *intervals, f"training.seed={workers}"):
        command += ["--set", setting]
    return command


def differences(one: RunFolder, other: RunFolder) -> list[str]:
    """The names of what differs between two finished runs: tensors bit for bit, progress and log apart from times."""
    ours, theirs = one.list_checkpoints()[-1], other.list_checkpoints()[-1]
    first, second = read_tensors(ours), read_tensors(theirs)
    names = [name for name in first.keys() | second.keys() if not _same(first.get(name), second.get(name))]
    states = [{**read_header(path)["progress"], "seconds": 0} for path in (ours, theirs)]
    names += ["progress"] if states[0] != states[1] else []
    rows = [[{**row, "seconds": 0} for row in read_log(folder.log)] for folder in (one, other)]
    return names + (["log"] if rows[0] != rows[1] else [])


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and one.numpy().tobytes() == other.numpy().tobytes()


def pooled_slope(lives: Iterable[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """The common slope of a linear regression with an intercept per pair of x and y; None without enough points."""
    products = squares = 0.0
    for x, y in lives:
        if len(x) < 3:
            continue
        centered = np.asarray(x) - np.mean(x)
        products += float(centered @ (np.asarray(y) - np.mean(y)))
        squares += float(centered @ centered)
    return products / squares if squares else None


def describe(lives: Sequence[Life], warm_up: float) -> dict[str, Any]:
    """Compute slopes and rates of lives."""
    # The process may have been ending at the last measurement.
    warm = [[look for look in life.looks[:-1] if look.seconds >= warm_up] for life in lives]

    def slope(name: str) -> float | None:
        value = pooled_slope(
            ([look.seconds / 3600 for look in looks], [getattr(look, name) for look in looks]) for looks in warm
        )
        return None if value is None else round(value, 3)

    def rates(part: int) -> dict[str, float]:
        steps = seconds = processor = 0.0
        for looks in warm:
            middle = len(looks) // 2
            half = (looks[: middle + 1], looks[middle:])[part]
            if len(half) > 1:
                steps += half[-1].step - half[0].step
                seconds += half[-1].seconds - half[0].seconds
                processor += half[-1].processor - half[0].processor
        if not seconds or not processor:
            return {}
        return {"per_second": round(steps / seconds, 3), "per_processor_second": round(steps / processor, 3)}

    late = [looks[len(looks) // 2 :] for looks in warm]
    late_own = pooled_slope(([look.seconds / 3600 for look in looks], [look.own for look in looks]) for looks in late)
    return {
        "lives": len(lives),
        "minutes": round(sum(life.seconds for life in lives) / 60, 1),
        "steps": sum(life.ended_at - life.began_at for life in lives),
        "slope_rss_megabytes_per_hour": slope("rss"),
        "slope_own_megabytes_per_hour": slope("own"),
        "slope_own_megabytes_per_hour_in_second_halves": None if late_own is None else round(late_own, 3),
        "slope_handles_per_hour": slope("handles"),
        "slope_threads_per_hour": slope("threads"),
        "rate_of_first_halves": rates(0),
        "rate_of_second_halves": rates(1),
        "largest_rss_megabytes": max((look.rss for life in lives for look in life.looks), default=None),
    }


def summarize(
    lives: Sequence[Life], runs: dict[str, Any], arguments: argparse.Namespace, start: float
) -> dict[str, Any]:
    """The result as JSON, with one measurement per minute."""
    signals = [life.end for life in lives if life.end in {kind.name for kind in SIGNALS}]
    longest = max(lives, key=lambda life: life.seconds, default=None)
    entries = []
    for life in lives:
        thinned = life.looks[:: max(1, round(60 / INTERVAL))]
        entries.append({**asdict(life), "looks": [[*asdict(look).values()] for look in thinned]})
    return {
        "what": "training that is killed again and again",
        "minutes": round((time.monotonic() - start) / 60, 1),
        **describe_machine(torch.device("cpu")),
        "warm_up_seconds": arguments.warm_up,
        "signals": {name: signals.count(name) for name in sorted(set(signals))},
        "longest_life_minutes": round(longest.seconds / 60, 1) if longest else 0,
        "runs": runs,
        "all": describe(lives, arguments.warm_up),
        "looks_hold": list(Look.__dataclass_fields__),
        "lives": entries,
    }


def describe_again(result: dict[str, Any], warm_up: float) -> dict[str, Any]:
    """Recompute slopes and rates of a result from its measurements, one per minute."""
    lives = [Life(**{**life, "looks": [Look(*look) for look in life["looks"]]}) for life in result["lives"]]
    runs = {
        name: run
        | {
            kind: run[kind] | describe([life for life in lives if life.run == f"{name}, {kind}"], warm_up)
            for kind in ("undisturbed", "disturbed")
        }
        for name, run in result["runs"].items()
    }
    return {**result, "warm_up_seconds": warm_up, "runs": runs, "all": describe(lives, warm_up)}


def size_of(folder: Path) -> float:
    """The size of a folder in megabytes."""
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 2)


def main() -> None:
    """Train, kill, resume and compare; update the result after every life."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=115)
    parser.add_argument("--mean-life", type=float, default=3, help="average minutes between signals")
    parser.add_argument("--beat", type=int, default=50, help="steps between two rows of the log")
    parser.add_argument(
        "--warm-up", type=float, default=WARM_UP, help="seconds at the start of each life to exclude from slopes"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data", type=Path, help="a data set with paired test images; by default a small generated one"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"), help="folder of the runs; emptied first")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--again", type=Path, help="a result to recompute instead of training")
    arguments = parser.parse_args()
    if arguments.again is not None:
        write_result(describe_again(json.loads(arguments.again.read_text()), arguments.warm_up), arguments.out)
        return
    # A shell makes background processes ignore SIGINT, but the runs have to handle it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shutil.rmtree(arguments.folder, ignore_errors=True)
    arguments.folder.mkdir(parents=True)
    os.environ["GANTOOLKIT_CACHE"] = str(arguments.folder.resolve() / "cache")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    data = arguments.data or make_images(arguments.folder / "images")
    rng = random.Random(arguments.seed)
    start = time.monotonic()
    lives: list[Life] = []
    runs: dict[str, Any] = {}
    shares = iter(share / sum(SHARES) * 60 * arguments.minutes for share in SHARES)
    for workers in (0, 1):
        name = f"{workers} workers"
        whole, parts = (RunFolder(arguments.folder / f"{kind}-{workers}") for kind in ("undisturbed", "disturbed"))
        command = train_command(arguments, data, whole.path, workers)
        output = arguments.folder / "output.txt"
        lives.append(live(f"{name}, undisturbed", command, whole, output, next(shares), signal.SIGTERM))
        goal = newest_step(whole)
        command = [*train_command(arguments, data, parts.path, workers), "--stop-at", str(goal)]
        first, until = len(lives), time.monotonic() + next(shares)
        while newest_step(parts) < goal:
            kind = rng.choice(SIGNALS)
            after = rng.uniform(0.15, 1.85) * 60 * arguments.mean_life
            # After its share of time it may finish undisturbed.
            after = None if time.monotonic() + after > until else after
            lives.append(live(f"{name}, disturbed", command, parts, output, after, kind))
            write_result(summarize(lives, runs, arguments, start), arguments.out)
        differing = differences(whole, parts)
        runs[name] = {
            "steps": goal,
            "differences": differing,
            "undisturbed": {
                **describe(lives[first - 1 : first], arguments.warm_up),
                "folder_megabytes": size_of(whole.path),
            },
            "disturbed": {**describe(lives[first:], arguments.warm_up), "folder_megabytes": size_of(parts.path)},
        }
        write_result(summarize(lives, runs, arguments, start), arguments.out)
    if any(run["differences"] for run in runs.values()):
        raise SystemExit("a run that was killed differs from the undisturbed run")


if __name__ == "__main__":
    main()
