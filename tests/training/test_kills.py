"""Real training processes that are killed, or asked to stop, at any moment: what they leave, and where the run ends.

`GANTOOLKIT_KILLS=50` makes the first test as long as that; without it, it kills 8 times.
"""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from _helpers.small import make_dataset

from gantoolkit.files.tensors import read_header, read_tensors
from gantoolkit.runs import RunFolder
from gantoolkit.runs.log import read_log

KILLS = int(os.environ.get("GANTOOLKIT_KILLS", "8"))
ROOT = Path(__file__).parents[2]
SETTINGS = (
    "generator.width=4",
    "generator.blocks=1",
    "generator.dropout=0.5",
    "discriminator.width=4",
    "discriminator.layers=1",
    "identity_weight=5.0",
    "image_pool.size=3",
    "data.load_size=20",
    "data.crop_size=16",
    "metric=l1",
    "training.epochs=6",
    "training.log_every=2",
    "training.sample_every=10",
    "training.samples=1",
    "training.checkpoint_every=5",
    "training.evaluate_every=10",
    "training.evaluate_images=1",
    "training.deterministic=true",
)
STEPS = 30

IN_A_WRITE = {
    "before anything of a checkpoint is written": "os.mkdir */checkpoints",
    "in the middle of its bytes": "torn open */checkpoints/.*.part",
    "before it is synced": "open */checkpoints/.*.part",
    "between its sync and its rename": "os.rename */checkpoints/.*.part",
    "after its rename": "open */checkpoints",
    "before an old one is removed": "os.remove */checkpoints/step-*",
    "between the checkpoint and its generators": "os.mkdir */generators",
    "in a generator": "torn open */generators/.*.part",
    "between two generators": "os.rename */generators/.B2A*",
    "between the best generators and their checkpoint": "os.rename */best/.B2A*",
    "in a sample": "torn open */samples/.*.part",
    "in a row of the log": "row",
    "while the log is cut to the checkpoint": "os.rename */.log.jsonl.part",
    "in the table": "torn open */.log.csv.part",
    "in the report": "torn open */.report.html.part",
    "before the report's rename": "os.rename */.report.html.part",
    "in the middle of a step": "backward",
}


@dataclass(frozen=True)
class Reference:
    """A run that nobody disturbed."""

    data: Path
    folder: RunFolder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for everything here, the decoded images too."""
    folder = tmp_path_factory.mktemp("kills")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANTOOLKIT_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("GANTOOLKIT_PLUGINS", "0")
        yield folder


@pytest.fixture(scope="module")
def reference(place: Path) -> Reference:
    data = make_dataset(place / "images")
    code, output = train(data, place / "undisturbed")
    assert code == 0, output
    return Reference(data, RunFolder(place / "undisturbed"))


def command(data: Path, out: Path, *, workers: int = 0, dying: Sequence[object] = ()) -> list[str]:
    """Start a run or continue it; `dying` are the first arguments of dying.py."""
    program = [str(ROOT / "tests" / "_helpers" / "dying.py"), *map(str, dying)] if dying else ["-m", "gantoolkit"]
    made = [sys.executable, *program, "train", "cyclegan", "--data", str(data), "--out", str(out), "--device", "cpu"]
    return [*made, "--workers", str(workers), *(word for setting in SETTINGS for word in ("--set", setting))]


def train(data: Path, out: Path, *, workers: int = 0, dying: Sequence[object] = ()) -> tuple[int, str]:
    """Run it to its end, whatever that is: the exit code, and all that was said."""
    done = subprocess.run(
        command(data, out, workers=workers, dying=dying),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


def train_until(data: Path, out: Path, draws: random.Random, kind: signal.Signals) -> tuple[int, str]:
    """The same with a signal at a random moment: while it starts, or up to half a second after a row of its log."""
    folder = RunFolder(out)
    steps = draws.randrange(0, 14, 2)
    goal = steps + max((int(path.stem.removeprefix("step-")) for path in folder.list_checkpoints()), default=0)
    with subprocess.Popen(
        command(data, out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        if steps:  # by its own progress, not by a clock: other processes may take the machine's time
            wait_for(lambda: process.poll() is not None or any(row["step"] >= goal for row in read_log(folder.log)))
        time.sleep(draws.uniform(0, 0.5 if steps else 3))
        process.send_signal(kind)
        output, _ = process.communicate(timeout=300)
    return process.returncode, output


def without_time(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def assert_same_end(run: RunFolder, reference: RunFolder) -> None:
    """Every tensor by its bits, the progress and the log but for the time, the samples, and not one file more or less."""
    ours, theirs = (
        sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if "tensorboard" not in path.parts)
        for folder in (run, reference)
    )
    assert ours == theirs
    for name in ours:
        mine, other = run.path / name, reference.path / name
        if name.endswith(".safetensors"):
            left, right = read_tensors(mine), read_tensors(other)
            assert left.keys() == right.keys()
            unlike = [key for key in left if left[key].numpy().tobytes() != right[key].numpy().tobytes()]
            assert unlike == [], name
            headers = read_header(mine), read_header(other)
            for header in headers:
                header.get("progress", {}).pop("seconds", None)
            assert headers[0] == headers[1], name
        elif name.endswith(".png"):
            assert mine.read_bytes() == other.read_bytes(), name
    assert without_time(read_log(run.log)) == without_time(read_log(reference.log))


def test_a_run_that_is_killed_at_any_moment_ends_where_an_undisturbed_one_does(
    reference: Reference, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draws = random.Random(8)
    moments = list(IN_A_WRITE)
    draws.shuffle(moments)
    waiting = itertools.cycle(moments)
    figures = {"kills": 0, "at a random time": 0, "in a write": 0, "runs": 0, "resumed": 0}
    kills = 0
    while kills < KILLS:
        figures["runs"] += 1
        folder = RunFolder(place / f"disturbed-{figures['runs']}")
        code = -signal.SIGKILL
        while code != 0:
            figures["resumed"] += bool(folder.list_checkpoints())
            if kills == KILLS:
                code, output = train(reference.data, folder.path)
            elif kills % 2:
                code, output = train_until(reference.data, folder.path, draws, signal.SIGKILL)
                figures["at a random time"] += code != 0
            else:
                dying = ("SIGKILL", IN_A_WRITE[next(waiting)], draws.randint(1, 2))
                code, output = train(reference.data, folder.path, dying=dying)
                figures["in a write"] += code != 0
            assert code in (0, -signal.SIGKILL), output
            assert "damaged" not in output, output
            kills += code != 0
        assert_same_end(folder, reference.folder)
    figures["kills"] = kills
    with capsys.disabled():
        print(f"\n{json.dumps(figures)}")


def test_a_signal_at_any_moment_ends_it_with_its_code_and_a_second_one_at_once(
    reference: Reference, place: Path
) -> None:
    folder = RunFolder(place / "signalled")

    def expect(kinds: str, pattern: str, count: int, code: int, said: str) -> None:
        found, output = train(reference.data, folder.path, dying=(kinds, pattern, count))
        assert found == code, (pattern, output)
        assert said in output
        assert "Traceback" not in output

    saved = "continue with: gantoolkit train --resume"
    expect("SIGINT", "import gantoolkit.cli.app", 1, 130, "error: interrupted")
    expect("SIGTERM", "import torch", 1, 143, "error: terminated")
    assert folder.list_checkpoints() == []
    expect("SIGTERM", "open */testA/*", 1, 143, saved)
    assert newest_step(folder) == 0  # no step had begun
    expect("SIGINT", "backward", 3, 130, saved)
    assert newest_step(folder) == 2  # the third one is in the middle of the second step
    expect("SIGTERM", "open */samples/.*.part", 1, 143, saved)
    assert newest_step(folder) == 10
    expect("SIGINT", "torn open */checkpoints/.*.part", 1, 2, "was not saved")  # a disk that lies, and a signal too
    assert newest_step(folder) == 10
    expect("SIGTERM", "open */checkpoints/.*.part", 1, 143, saved)
    assert newest_step(folder) == 15
    before = contents(folder)
    expect("SIGTERM+SIGTERM", "backward", 3, 143, "error: terminated")
    expect("SIGINT+SIGINT", "open */checkpoints/.*.part", 1, 130, "error: interrupted")
    assert contents(folder) == before
    expect("SIGINT", "os.rename */best/.B2A*", 1, 130, saved)
    code, output = train(reference.data, folder.path)
    assert code == 0, output
    # Where it was stopped a checkpoint was written; the undisturbed run kept other ones besides its last and its best.
    assert_same_end(folder, reference.folder)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_a_random_moment(kind: signal.Signals, reference: Reference, place: Path) -> None:
    draws = random.Random(int(kind))
    folder = RunFolder(place / f"asked-{kind.name}")
    for _ in range(max(1, KILLS // 16)):
        code, output = train_until(reference.data, folder.path, draws, kind)
        assert code in (0, 128 + kind), output
        assert "Traceback" not in output
        assert code == 0 or "continue with" in output or output.count("\n") <= 2, output


def test_no_worker_outlives_a_run_that_is_killed(reference: Reference, place: Path) -> None:
    folder = RunFolder(place / "workers")
    code, started = signal_with_worker(
        signal.SIGKILL, reference, folder, lambda: bool(folder.list_checkpoints()), alone=True
    )
    assert code == -signal.SIGKILL
    assert started
    wait_for(lambda: not any(map(is_alive, started)), seconds=60)
    code, output = train(reference.data, folder.path)
    assert code == 0, output
    assert_same_end(folder, reference.folder)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_a_signal_to_the_whole_group_to_the_run(
    kind: signal.Signals, reference: Reference, place: Path
) -> None:
    folder = RunFolder(place / f"group-{kind.name}")
    # For the second kind while the worker comes up: the first samples are drawn just before that.
    is_early = kind == signal.SIGTERM
    until = (lambda: any(folder.samples.glob("step-*"))) if is_early else (lambda: bool(folder.list_checkpoints()))
    code, started = signal_with_worker(kind, reference, folder, until)
    assert code == 128 + kind
    assert folder.list_checkpoints()
    wait_for(lambda: not any(map(is_alive, started)), seconds=60)


def signal_with_worker(
    kind: signal.Signals, reference: Reference, folder: RunFolder, until: Callable[[], bool], *, alone: bool = False
) -> tuple[int, list[int]]:
    """Train with a worker, until something is so; then send a signal to all processes, or to the run alone.

    Returns:
        The run's exit code, and the processes that it had started.
    """
    with subprocess.Popen(
        command(reference.data, folder.path, workers=1),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        wait_for(lambda: until() or process.poll() is not None)
        wait_for(lambda: bool(children_of(process.pid)) or process.poll() is not None)
        started = children_of(process.pid)
        if alone:
            process.send_signal(kind)
        else:
            os.killpg(process.pid, kind)
        return process.wait(120), started


def newest_step(folder: RunFolder) -> int:
    return read_header(folder.list_checkpoints()[-1])["progress"]["step"]


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.checkpoints.iterdir()}


def children_of(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [found for child in map(int, listed) for found in (child, *children_of(child))]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
