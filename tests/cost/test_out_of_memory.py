"""Memory that runs out for real: a limit on a process's data stands in for a small machine."""

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

LARGE = {**TINY, "generator.width": 16, "data.load_size": 144, "data.crop_size": 128, "training.batch_size": 12}


def measure_beginning(dataset: Path, out: Path) -> int:
    """Bytes of its own that a process has once it has trained something tiny."""
    code = (
        "import sys; from pathlib import Path\n"
        "from gantoolkit.recipes import cyclegan; from _helpers.small import TINY\n"
        "cyclegan().swap(TINY).train(sys.argv[1], sys.argv[2], device='cpu', stop_at=1)\n"
        "print(next(line for line in Path('/proc/self/status').read_text().splitlines() if 'VmData' in line).split()[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(dataset), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout) * 1024


def train(arguments: Sequence[object], limit: int) -> subprocess.CompletedProcess[str]:
    def obey() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "gantoolkit", "train", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=obey,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts all of a process's own memory in RLIMIT_DATA")
def test_the_message_says_what_is_needed_and_the_run_goes_on_elsewhere(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "images", count_A=12)
    run = gantoolkit.train(
        cyclegan().swap({**LARGE, "training.epochs": 2}), dataset, tmp_path / "run", device="cpu", stop_at=1
    )
    before = {path: path.read_bytes() for path in sorted(run.folder.checkpoints.iterdir())}
    limit = measure_beginning(dataset, tmp_path / "beginning") + count_step(run.recipe).peak_bytes // 2
    done = train(["--resume", run.path, "--device", "cpu"], limit)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    complaint = done.stderr.splitlines()[-1]
    assert "not enough memory" in complaint
    assert "a step needs about " in complaint
    assert (
        "use a smaller data.crop_size, training.batch_size or generator" in complaint
    )  # the limit is no lack of free memory
    assert "run is as it was at its last checkpoint" in complaint
    assert {path: path.read_bytes() for path in sorted(run.folder.checkpoints.iterdir())} == before
    assert Run.open(run.path).train(device="cpu", stop_at=2).step == 2


class TestMessage:
    def explain(self, recipe: Recipe, free: int | None, monkeypatch: pytest.MonkeyPatch, **options: object) -> str:
        monkeypatch.setattr("gantoolkit.cost.out_of_memory.available_memory", lambda device: free)
        with (
            pytest.raises(TrainingError) as caught,
            explain_out_of_memory(recipe.resolve(), torch.device("cpu"), **options),  # type: ignore[arg-type]
        ):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        return str(caught.value)

    def test_what_fits_is_proposed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe = cyclegan().swap({**TINY, "data.load_size": 64, "data.crop_size": 64, "training.batch_size": 8})
        message = self.explain(recipe, 20_000_000, monkeypatch, rest="the end")
        assert message.startswith(
            "cyclegan: not enough memory (CUDA out of memory. Tried to allocate 2 GiB); a step of it "
        )
        assert ", 20 MB are free; take --set training.batch_size=" in message
        assert " or --set data.crop_size=" in message
        assert message.endswith("; the end")

    def test_the_words_of_the_cpus_libraries_count(self, tiny: Recipe) -> None:
        for words in ("[enforce fail] DefaultCPUAllocator: can't allocate memory", "could not create a primitive"):
            with (
                pytest.raises(TrainingError, match="not enough memory"),
                explain_out_of_memory(tiny.resolve(), torch.device("cpu")),
            ):
                raise RuntimeError(words)

    def test_each_process_has_its_share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe = cyclegan().swap({**TINY, "training.batch_size": 4})
        alone = self.explain(recipe.swap({"training.batch_size": 2}), None, monkeypatch)
        assert self.explain(recipe, None, monkeypatch, processes=2) == alone
        assert alone.endswith("use a smaller data.crop_size, training.batch_size or generator")

    def test_other_errors_are_left_alone(self, tiny: Recipe) -> None:
        with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(tiny, torch.device("cpu")):
            raise RuntimeError("shapes do not fit")
