"""Out-of-memory errors: their messages, and a real one in a process whose memory is limited."""

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from _helpers.small import TINY, make_dataset

import gantoolkit
from gantoolkit.cost import count_step
from gantoolkit.cost.out_of_memory import explain_out_of_memory
from gantoolkit.errors import TrainingError
from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit.run import Run
from gantoolkit.training.trainer import Trainer

LARGE = {**TINY, "generator.width": 16, "data.load_size": 144, "data.crop_size": 128, "training.batch_size": 12}


def measure_base_memory(dataset: Path, out: Path) -> int:
    """The data bytes (VmData) of a process that has trained a tiny recipe."""
    code = (
        "import sys; from pathlib import Path; import gantoolkit\n"
        "from gantoolkit.recipes import cyclegan; from _helpers.small import TINY\n"
        "gantoolkit.train(cyclegan().swap(TINY), sys.argv[1], sys.argv[2], device='cpu', stop_at=1)\n"
        "print(next(line for line in Path('/proc/self/status').read_text().splitlines() if 'VmData' in line).split()[1])\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code, str(dataset), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(completed.stdout) * 1024


def train(arguments: Sequence[object], limit: int) -> subprocess.CompletedProcess[str]:
    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "gantoolkit", "train", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=set_limit,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow(reason="trains in two subprocesses: about 15 s")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux applies RLIMIT_DATA to all private memory")
def test_message_names_the_needed_memory_and_the_run_can_resume(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "images", count_A=12)
    run = gantoolkit.train(
        cyclegan().swap({**LARGE, "training.epochs": 2}), dataset, tmp_path / "run", device="cpu", stop_at=1
    )
    before = {path: path.read_bytes() for path in sorted(run.folder.checkpoints.iterdir())}
    limit = measure_base_memory(dataset, tmp_path / "base") + count_step(run.recipe).peak_bytes // 2
    completed = train(["--resume", run.path, "--device", "cpu"], limit)
    assert completed.returncode == 2, completed.stderr
    assert "Traceback" not in completed.stderr
    message = completed.stderr.splitlines()[-1]
    assert "not enough memory" in message
    assert "a step needs about " in message
    # The limit does not change the free memory, so what would fit is unknown.
    assert "use a smaller data.crop_size, training.batch_size or generator" in message
    assert "run is at its last checkpoint" in message
    assert {path: path.read_bytes() for path in sorted(run.folder.checkpoints.iterdir())} == before
    assert Run.open(run.path).train(device="cpu", stop_at=2).step == 2


def test_trainer_is_freed_when_training_ends(tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
    """Also without the garbage collector, which may run much later."""
    run = gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=2)
    gc.collect()
    gc.disable()
    try:
        run.train(device="cpu")
        assert not any(type(value) is Trainer for value in gc.get_objects())
    finally:
        gc.enable()


class TestMessage:
    def explain(self, recipe: Recipe, free: int | None, monkeypatch: pytest.MonkeyPatch, **options: object) -> str:
        monkeypatch.setattr("gantoolkit.cost.out_of_memory.available_memory", lambda device: free)
        with (
            pytest.raises(TrainingError) as error,
            explain_out_of_memory(recipe.resolve(), torch.device("cpu"), **options),  # type: ignore[arg-type]
        ):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        return str(error.value)

    def test_settings_that_fit_are_proposed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe = cyclegan().swap({**TINY, "data.load_size": 64, "data.crop_size": 64, "training.batch_size": 8})
        message = self.explain(recipe, 20_000_000, monkeypatch, rest="the end")
        assert message.startswith(
            "cyclegan: not enough memory (CUDA out of memory. Tried to allocate 2 GiB); a step needs about "
        )
        assert ", 20 MB are free; use --set training.batch_size=" in message
        assert " or --set data.crop_size=" in message
        assert message.endswith("; the end")

    def test_errors_of_cpu_libraries_are_recognized(self, tiny: Recipe) -> None:
        for text in ("[enforce fail] DefaultCPUAllocator: can't allocate memory", "could not create a primitive"):
            with (
                pytest.raises(TrainingError, match="not enough memory"),
                explain_out_of_memory(tiny.resolve(), torch.device("cpu")),
            ):
                raise RuntimeError(text)

    def test_processes_share_the_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe = cyclegan().swap({**TINY, "training.batch_size": 4})
        alone = self.explain(recipe.swap({"training.batch_size": 2}), None, monkeypatch)
        assert self.explain(recipe, None, monkeypatch, world_size=2) == alone
        assert alone.endswith("use a smaller data.crop_size, training.batch_size or generator")

    def test_other_errors_are_not_changed(self, tiny: Recipe) -> None:
        with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(tiny, torch.device("cpu")):
            raise RuntimeError("shapes do not fit")
