"""Training processes that are killed or interrupted at any moment: what they leave, and how the run ends.

`GANTOOLKIT_KILLS` is the number of kills in the first test, 8 by default.
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
from _helpers.patience import PATIENCE, wait_for
from _helpers.small import make_dataset

from gantoolkit.files.tensors import read_header, read_tensors
from gantoolkit.runs import RunFolder
from gantoolkit.runs.log import read_log

pytestmark = pytest.mark.slow(reason="kills real processes")

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
MOMENTS = {
    "before the folder of the checkpoints is created": "os.mkdir */checkpoints",
    "while a checkpoint is written": "torn open */checkpoints/.*.part",
    "before a checkpoint is synced": "open */checkpoints/.*.part",
    "between the sync and the rename of a checkpoint": "os.rename */checkpoints/.*.part",
    "after the rename of a checkpoint": "open */checkpoints",
    "before an old checkpoint is removed": "os.remove */checkpoints/step-*",
    "between the checkpoint and its generators": "os.mkdir */generators",
    "while a generator is written": "torn open */generators/.*.part",
    "between two generators": "os.rename */generators/.B2A*",
    "between the best generators and their checkpoint": "os.rename */best/.B2A*",
    "while a sample is written": "torn open */samples/.*.part",
    "while a row of the log is written": "row",
    "while the log is truncated to the checkpoint": "os.rename */.log.jsonl.part",
    "while the table is written": "torn open */.log.csv.part",
    "while the report is written": "torn open */.report.html.part",
    "before the rename of the report": "os.rename */.report.html.part",
    "in the middle of a step": "backward",
}


@dataclass(frozen=True)
class Reference:
    """A run that was not interrupted."""

    data: Path
    folder: RunFolder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for all runs of this module and for their cache."""
    folder = tmp_path_factory.mktemp("kills")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANTOOLKIT_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("GANTOOLKIT_PLUGINS", "0")
        yield folder


@pytest.fixture(scope="module")
def reference(root: Path) -> Reference:
    data = make_dataset(root / "images")
    code, output = train(data, root / "reference")
    assert code == 0, output
    return Reference(data, RunFolder(root / "reference"))


def command(data: Path, out: Path, *, workers: int = 0, dying: Sequence[object] = ()) -> list[str]:
    """The command that starts or resumes a run; `dying` are the first arguments of dying.py."""
    program = [str(ROOT / "tests" / "_helpers" / "dying.py"), *map(str, dying)] if dying else ["-m", "gantoolkit"]
    arguments = ["cyclegan", "--data", str(data), "--out", str(out), "--device", "cpu", "--workers", str(workers)]
    settings = [argument for setting in SETTINGS for argument in ("--set", setting)]
    return [sys.executable, *program, "train", *arguments, *settings]


def train(data: Path, out: Path, *, workers: int = 0, dying: Sequence[object] = ()) -> tuple[int, str]:
    """Train until the process exits; returns the exit code and the output."""
    result = subprocess.run(
        command(data, out, workers=workers, dying=dying),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return result.returncode, result.stdout


def train_until(data: Path, out: Path, rng: random.Random, kind: signal.Signals) -> tuple[int, str]:
    """Train and send a signal at a random moment: during the start, or up to half a second after a row of the log."""
    folder = RunFolder(out)
    steps = rng.randrange(0, 14, 2)
    last_step = steps + max((int(path.stem.removeprefix("step-")) for path in folder.list_checkpoints()), default=0)
    with subprocess.Popen(
        command(data, out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        if steps:  # measured by the log, not by time, because other processes may slow the machine down
            wait_for(
                lambda: process.poll() is not None or any(row["step"] >= last_step for row in read_log(folder.log))
            )
        time.sleep(rng.uniform(0, 0.5 if steps else 3))
        process.send_signal(kind)
        output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def without_time(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def assert_same_end(run: RunFolder, reference: RunFolder) -> None:
    """Assert that the files are the same, tensors and samples bit for bit, and progress and log except for the time."""
    ours, theirs = (
        sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if "tensorboard" not in path.parts)
        for folder in (run, reference)
    )
    assert ours == theirs
    for name in ours:
        our_file, their_file = run.path / name, reference.path / name
        if name.endswith(".safetensors"):
            left, right = read_tensors(our_file), read_tensors(their_file)
            assert left.keys() == right.keys()
            different = [key for key in left if left[key].numpy().tobytes() != right[key].numpy().tobytes()]
            assert different == [], name
            headers = read_header(our_file), read_header(their_file)
            for header in headers:
                header.get("progress", {}).pop("seconds", None)
            assert headers[0] == headers[1], name
        elif name.endswith(".png"):
            assert our_file.read_bytes() == their_file.read_bytes(), name
    assert without_time(read_log(run.log)) == without_time(read_log(reference.log))


def test_a_run_that_is_killed_at_any_moment_ends_like_an_uninterrupted_one(
    reference: Reference, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(8)
    moments = list(MOMENTS)
    rng.shuffle(moments)
    next_moments = itertools.cycle(moments)
    counts = {"kills": 0, "at a random time": 0, "at a chosen moment": 0, "runs": 0, "resumed": 0}
    kills = 0
    while kills < KILLS:
        counts["runs"] += 1
        folder = RunFolder(root / f"killed-{counts['runs']}")
        code = -signal.SIGKILL
        while code != 0:
            counts["resumed"] += bool(folder.list_checkpoints())
            if kills == KILLS:
                code, output = train(reference.data, folder.path)
            elif kills % 2:
                code, output = train_until(reference.data, folder.path, rng, signal.SIGKILL)
                counts["at a random time"] += code != 0
            else:
                dying = ("SIGKILL", MOMENTS[next(next_moments)], rng.randint(1, 2))
                code, output = train(reference.data, folder.path, dying=dying)
                counts["at a chosen moment"] += code != 0
            assert code in (0, -signal.SIGKILL), output
            assert "damaged" not in output, output
            kills += code != 0
        assert_same_end(folder, reference.folder)
    counts["kills"] = kills
    with capsys.disabled():
        print(f"\n{json.dumps(counts)}")


def test_a_signal_stops_the_run_with_its_exit_code_and_a_second_one_stops_it_at_once(
    reference: Reference, root: Path
) -> None:
    folder = RunFolder(root / "signals")

    def expect(kinds: str, pattern: str, count: int, expected_code: int, message: str) -> None:
        code, output = train(reference.data, folder.path, dying=(kinds, pattern, count))
        assert code == expected_code, (pattern, output)
        assert message in output
        assert "Traceback" not in output

    saved = "continue with: gantoolkit train --resume"
    expect("SIGINT", "import gantoolkit.cli.app", 1, 130, "error: interrupted")
    expect("SIGTERM", "import torch", 1, 143, "error: terminated")
    assert folder.list_checkpoints() == []
    expect("SIGTERM", "open */testA/*", 1, 143, saved)
    assert newest_step(folder) == 0  # before the first step
    expect("SIGINT", "backward", 3, 130, saved)
    assert newest_step(folder) == 2  # a step has two backward passes: the third is in the second step
    expect("SIGTERM", "open */samples/.*.part", 1, 143, saved)
    assert newest_step(folder) == 10
    expect("SIGINT", "torn open */checkpoints/.*.part", 1, 2, "was not saved")  # the file is truncated too
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
    assert_same_end(folder, reference.folder)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_a_random_moment(kind: signal.Signals, reference: Reference, root: Path) -> None:
    rng = random.Random(int(kind))
    folder = RunFolder(root / f"signal-{kind.name}")
    for _ in range(max(1, KILLS // 16)):
        code, output = train_until(reference.data, folder.path, rng, kind)
        assert code in (0, 128 + kind), output
        assert "Traceback" not in output
        assert code == 0 or "continue with" in output or output.count("\n") <= 2, output


def test_workers_end_when_the_run_is_killed(reference: Reference, root: Path) -> None:
    folder = RunFolder(root / "workers")
    code, children = signal_with_worker(
        signal.SIGKILL, reference, folder, lambda: bool(folder.list_checkpoints()), main_process_only=True
    )
    assert code == -signal.SIGKILL
    assert children
    wait_for(lambda: not any(map(is_alive, children)))
    code, output = train(reference.data, folder.path)
    assert code == 0, output
    assert_same_end(folder, reference.folder)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_the_main_process_handles_a_signal_to_the_process_group(
    kind: signal.Signals, reference: Reference, root: Path
) -> None:
    folder = RunFolder(root / f"group-{kind.name}")
    # SIGTERM is sent while the worker starts, which is just after the first samples are drawn.
    is_early = kind == signal.SIGTERM
    condition = (lambda: any(folder.samples.glob("step-*"))) if is_early else (lambda: bool(folder.list_checkpoints()))
    code, children = signal_with_worker(kind, reference, folder, condition)
    assert code == 128 + kind
    assert folder.list_checkpoints()
    wait_for(lambda: not any(map(is_alive, children)))


def signal_with_worker(
    kind: signal.Signals,
    reference: Reference,
    folder: RunFolder,
    condition: Callable[[], bool],
    *,
    main_process_only: bool = False,
) -> tuple[int, list[int]]:
    """Train with a worker until a condition holds; then send a signal to all processes, or to the main process only.

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
        wait_for(lambda: condition() or process.poll() is not None)
        wait_for(lambda: bool(children_of(process.pid)) or process.poll() is not None)
        children = children_of(process.pid)
        if main_process_only:
            process.send_signal(kind)
        else:
            os.killpg(process.pid, kind)
        return process.wait(PATIENCE), children


def newest_step(folder: RunFolder) -> int:
    return read_header(folder.list_checkpoints()[-1])["progress"]["step"]


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.checkpoints.iterdir()}


def children_of(process: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [descendant for child in map(int, children) for descendant in (child, *children_of(child))]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
