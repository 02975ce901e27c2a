"""Distributed training with real processes that torchrun starts and gloo connects."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from _helpers.patience import PATIENCE, wait_for
from _helpers.small import TINY, make_dataset
from _helpers.step_together import take_step
from safetensors.torch import load_file

import gantoolkit
from gantoolkit.data import open_dataset
from gantoolkit.data.sampling import TrainingBatches
from gantoolkit.errors import DataError, GantoolkitError, RecipeError, TrainingError
from gantoolkit.files.tensors import read_header, read_tensors
from gantoolkit.recipes import Recipe, cyclegan, find_recipe
from gantoolkit.recipes.settings import DataSettings
from gantoolkit.run import Run
from gantoolkit.runs import RunFolder
from gantoolkit.runs.log import read_log
from gantoolkit.runtime.device import select_device
from gantoolkit.training.distributed import SINGLE_PROCESS, ProcessGroup

TESTS = Path(__file__).parents[1]
LIVELY = {
    **TINY,
    "identity_weight": 5.0,
    "image_pool.size": 3,
    "generator.dropout": 0.5,
    "optimizer.lr": 1e-2,
    "training.batch_size": 3,
    "training.epochs": 12,
}


def launch(
    *command: object, processes: int = 2, nodes: str = "--standalone", cwd: Path | None = None
) -> subprocess.Popen[str]:
    """Run a command with torchrun, with one torch thread per process."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", *nodes.split(), "--nproc-per-node", str(processes)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
        "GANTOOLKIT_PLUGINS": "0",
    }
    return subprocess.Popen(
        [*torchrun, *map(str, command)],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a launcher to exit; returns its stdout and stderr."""
    try:
        return process.communicate(timeout=PATIENCE)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def find_process(launcher: subprocess.Popen[str], rank: int) -> int:
    """The process ID of a rank."""
    for child in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"the process of rank {rank} has exited")


def wait_for_rows(run: Path, count: int) -> None:
    wait_for(lambda: (run / "log.jsonl").is_file() and len((run / "log.jsonl").read_text().splitlines()) >= count)


def state_of(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(RunFolder(run).list_checkpoints()[-1])


def assert_same(run: Path, other: Path) -> None:
    ours, theirs = state_of(run), state_of(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


RECIPES: dict[str, tuple[str, dict[str, object], int]] = {
    "cyclegan": ("cyclegan", {**TINY, "identity_weight": 5.0}, 4),
    "uneven": ("cyclegan", {**TINY}, 5),
    "one image": ("cyclegan", {**TINY}, 1),
    "spectral": ("cyclegan", {**TINY, "discriminator.spectral_norm": True}, 2),
    "pix2pix": (
        "pix2pix",
        {**TINY, "generator": {"name": "unet", "width": 4, "depth": 3, "norm": "instance", "dropout": 0.0}},
        3,
    ),
    "simgan": ("simgan", {**TINY, "generator": {"name": "resnet", "width": 4, "blocks": 1}}, 2),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of one step of every recipe in two processes."""
    folder = tmp_path_factory.mktemp("steps")
    steps = [
        (name, find_recipe(base, changes).to_toml(), images, dtype)
        for name, (base, changes, images) in RECIPES.items()
        for dtype in ("float64", "float32")
    ]
    (folder / "recipes.json").write_text(json.dumps(steps))
    process = launch(TESTS / "_helpers" / "step_together.py", folder / "recipes.json", folder)
    _, stderr = finish(process)
    assert process.returncode == 0, stderr
    return folder


def gradient_of(state: dict[str, torch.Tensor], network: str) -> torch.Tensor:
    """All gradients of a network, or all losses, as one vector."""
    prefix = "loss/" if network == "loss" else f"gradient/{network}/"
    return torch.cat([tensor.double().flatten() for key, tensor in sorted(state.items()) if key.startswith(prefix)])


def relative_error(tensor: torch.Tensor, reference: torch.Tensor) -> float:
    return float((tensor - reference).norm() / reference.norm())


@pytest.mark.slow(reason="starts several processes")
class TestSteps:
    @pytest.mark.parametrize("name", RECIPES)
    def test_losses_and_gradients_are_those_of_the_joint_batch(self, name: str, results: Path) -> None:
        """Relative error at most 1e-10 in float64; in float32 1e-6 or twice the rounding error of one process."""
        base, changes, images = RECIPES[name]
        recipe = find_recipe(base, changes).resolve()
        joint = {dtype: take_step(recipe, images, getattr(torch, dtype)) for dtype in ("float64", "float32")}
        shared = {dtype: load_file(results / f"{name}-{dtype}.0.safetensors") for dtype in joint}
        networks = {key.split("/")[1] for key in joint["float64"] if key.startswith("gradient/")}
        assert len(networks) >= 2
        for network in ("loss", *networks):
            exact = gradient_of(joint["float64"], network)
            rounding = relative_error(gradient_of(joint["float32"], network), exact)
            assert relative_error(gradient_of(shared["float64"], network), exact) <= 1e-10, network
            error = relative_error(gradient_of(shared["float32"], network), gradient_of(joint["float32"], network))
            assert error <= max(1e-6, 2 * rounding), network
            assert rounding < 1e-5, network

    @pytest.mark.parametrize("name", RECIPES)
    def test_all_ranks_have_the_same_weights_and_gradients(self, name: str, results: Path) -> None:
        for dtype in ("float64", "float32"):
            first, second = (load_file(results / f"{name}-{dtype}.{rank}.safetensors") for rank in range(2))
            assert first.keys() == second.keys()
            assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())

    def test_collective_calls(self, results: Path) -> None:
        first, second = (json.loads((results / f"notes.{rank}.json").read_text()) for rank in range(2))
        assert first[0] == [None, None]
        assert first[1] == second[1] == [None, {"from": 1}]
        assert first[2] == second[2] == ["é", 0]
        assert first[3] != second[3]
        assert first[4] == [[[0, 0], [1, 1, 1]], [0, 1, 2], [0, 2]]
        assert second[4] == [[], [0, 1, 2], [0, 2]]

    @pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists the threads of a process")
    def test_no_gloo_thread_remains(self, results: Path) -> None:
        """A thread that runs while Python exits can abort the process."""
        for rank in range(2):
            names = json.loads((results / f"threads.{rank}.json").read_text())
            assert names
            assert not [name for name in names if "gloo" in name]


class TestBatches:
    def batches(self, root: Path, rank: int, world_size: int) -> TrainingBatches:
        settings = DataSettings(load_size=20, crop_size=16)
        return TrainingBatches(open_dataset(root), settings, batch_size=4, seed=3, rank=rank, world_size=world_size)

    @pytest.mark.parametrize("world_size", [1, 2, 3, 4])
    def test_the_ranks_split_each_batch(self, world_size: int, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "set", count_A=5, count_B=3)  # batches of four images and of one
        whole = [batch.images for batch in self.batches(root, 0, 1).iterate(0, 4)]
        parts = [list(self.batches(root, rank, world_size).iterate(0, 4)) for rank in range(world_size)]
        for step, images in enumerate(whole):
            shares = [part[step].share for part in parts]
            assert sum(shares) == pytest.approx(1)
            assert shares[0] == max(shares)
            for domain in "AB":
                images_of_all_ranks = torch.cat([part[step].images[domain] for part in parts if part[step].share])
                assert torch.equal(images_of_all_ranks, images[domain])
                assert all(len(part[step].images[domain]) for part in parts)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("shared run") / "images", count_A=7, count_B=5)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "lively.toml"
    path.write_text(cyclegan().swap(LIVELY).to_toml())
    return path


@pytest.fixture(scope="module")
def reference(data: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two processes, each with its own launcher, as on two machines."""
    out = tmp_path_factory.mktemp("reference") / "run"
    nodes = f"--nnodes 2 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{free_port()} --rdzv-id 7"
    launchers = [
        launch("-m", "gantoolkit", "train", recipe_file, "--data", data, "--out", out, processes=1, nodes=nodes)
        for _ in range(2)
    ]
    outputs = [finish(launcher) for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
    assert sorted("finished at step 36" in stdout for stdout, _ in outputs) == [False, True]
    return out


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(recipe_file: Path, data: Path, out: Path, *more: object, processes: int = 2) -> subprocess.Popen[str]:
    command = ("-m", "gantoolkit", "train", recipe_file, "--data", data, "--out", out, *more)
    return launch(*command, processes=processes)


@pytest.mark.slow(reason="starts several processes")
class TestRuns:
    def test_a_lost_process_ends_the_run_and_it_resumes_bit_for_bit(
        self, recipe_file: Path, data: Path, reference: Path, tmp_path: Path
    ) -> None:
        """First rank 1 is lost and the command is repeated; then rank 0 is lost and the launcher restarts the processes."""
        run = tmp_path / "run"
        command = ("train", recipe_file, "--data", data, "--out", run)
        launcher = launch(TESTS / "_helpers" / "lost_process.py", 1, 9, 0, *command)
        _, stderr = finish(launcher)
        assert launcher.returncode != 0
        assert "rank 0: error: another process of this run has exited or cannot be reached" in stderr
        assert read_header(RunFolder(run).list_checkpoints()[-1])["progress"]["step"] == 8
        nodes = "--standalone --max-restarts 1"
        launcher = launch(TESTS / "_helpers" / "lost_process.py", 0, 19, 3, *command, "--workers", "1", nodes=nodes)
        stdout, stderr = finish(launcher)
        assert launcher.returncode == 0, stderr
        assert "rank 1: error: another process of this run has exited or cannot be reached" in stderr
        assert "finished at step 36" in stdout
        assert_same(run, reference)
        logs = [[{**row, "seconds": 0} for row in read_log(folder / "log.jsonl")] for folder in (run, reference)]
        assert logs[0] == logs[1]
        assert len(logs[0]) == 18

    def test_every_process_reports_a_difference_in_settings(
        self, recipe_file: Path, data: Path, tmp_path: Path
    ) -> None:
        nodes = f"--nnodes 2 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{free_port()} --rdzv-id 8"
        launchers = [
            launch(
                *("-m", "gantoolkit", "train", recipe_file, "--data", data, "--out", tmp_path / f"run{rank}"),
                *("--set", f"cycle_weight={weight}"),
                processes=1,
                nodes=nodes,
            )
            for rank, weight in enumerate((10.0, 3.0))
        ]
        errors = [finish(launcher)[1] for launcher in launchers]
        assert all("cycle_weight is " in stderr for stderr in errors), errors
        assert all("all processes of a run need the same settings" in stderr for stderr in errors)
        assert not list(tmp_path.glob("run*/checkpoints"))

    def test_a_signal_to_one_process_stops_all_and_another_number_of_processes_resumes(
        self, recipe_file: Path, data: Path, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        launcher = train(recipe_file, data, run)
        wait_for_rows(run, 3)
        os.kill(find_process(launcher, 1), signal.SIGTERM)
        stdout, stderr = finish(launcher)
        match = re.search(r"terminated at step (\d+)", stdout)
        assert match, stderr
        assert "continue with: torchrun ... -m gantoolkit train --resume" in stdout
        assert read_header(RunFolder(run).list_checkpoints()[-1])["progress"]["step"] == int(match[1])
        assert any(name.startswith("rank/1/pool/") for name in state_of(run))
        launcher = train(recipe_file, data, run, "--stop-at", int(match[1]) + 3, processes=3)
        stdout, stderr = finish(launcher)
        assert launcher.returncode == 0, stderr
        assert "was trained by 2 processes and continues with 3" in stderr
        assert any(name.startswith("rank/2/pool/") for name in state_of(run))
        with pytest.warns(UserWarning, match="was trained by 3 processes and continues with 1"):
            assert Run.open(run).train(device="cpu").reason == "finished"
        assert not any(name.startswith("rank/") for name in state_of(run))

    def test_bad_files_of_all_ranks_count_together(self, recipe_file: Path, tmp_path: Path) -> None:
        root = make_dataset(tmp_path / "images", count_A=7, count_B=5)
        (root / "trainA" / "03.png").write_text("broken")
        (root / "trainB" / "01.png").write_text("broken")
        launcher = train(recipe_file, root, tmp_path / "run", "--set", "data.max_bad_files=1")
        _, stderr = finish(launcher)
        assert stderr.count("error: 2 files cannot be read, more than data.max_bad_files = 1") == 2
        assert "Traceback" not in stderr.partition("torch/distributed")[0]


class TestErrors:
    @pytest.mark.parametrize(
        ("environment", "message"),
        [
            ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc' in the environment; it must be a number that a launcher sets"),
            ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x' in the environment"),
            ({"WORLD_SIZE": "2", "RANK": "7"}, "RANK is 7 in the environment, and WORLD_SIZE 2"),
        ],
    )
    def test_invalid_environment(self, environment, message: str, command, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code, _, stderr = command("recipes")
        assert code == 2
        assert message in stderr

    def test_a_rank_without_a_world_size_is_ignored(
        self, tiny: Recipe, dataset: Path, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.setenv("RANK", "1")
        assert gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu", stop_at=1).folder.list_checkpoints()

    def test_a_signal_before_the_processes_have_joined(self, dataset: Path, tmp_path: Path) -> None:
        environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        environment |= {"MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
        command = ["train", "cyclegan", "--data", str(dataset), "--out", str(tmp_path / "run"), "--device", "cpu"]
        process = subprocess.Popen(
            [sys.executable, "-m", "gantoolkit", *command], env=environment, stderr=subprocess.PIPE, text=True
        )
        while not (tmp_path / "run" / "recipe.toml").is_file() and process.poll() is None:
            time.sleep(0.1)
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 143, stderr
        assert "Traceback" not in stderr

    def test_fewer_images_than_processes(self, tiny: Recipe) -> None:
        from gantoolkit.recipes.building import build_system
        from gantoolkit.training.agreement import check_recipe

        system = build_system(tiny.resolve())
        check_recipe(tiny.resolve(), system, SINGLE_PROCESS)
        with pytest.raises(
            RecipeError, match=r"share training\.batch_size = 1, which is too small for 2; set it to 2 or a multiple"
        ):
            check_recipe(tiny.resolve(), system, ProcessGroup(1, 2))

    def test_a_command_that_does_not_run_in_parallel(self, command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        code, _, stderr = command("evaluate", "runs/x")
        assert code == 2
        assert stderr == (
            "rank 1: error: gantoolkit evaluate cannot share its work among the processes that torchrun starts; call it "
            "without\n"
        )

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
    def test_the_local_rank_selects_the_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCAL_RANK", "3")
        assert select_device("cpu") == torch.device("cpu")
        with pytest.raises(GantoolkitError, match="'cuda:3' cannot be used here"):
            select_device("cuda")

    def test_different_data_sets(self, monkeypatch: pytest.MonkeyPatch, dataset: Path, tmp_path: Path) -> None:
        from gantoolkit.training.agreement import check_dataset

        objects: list[object] = []
        monkeypatch.setattr(
            ProcessGroup, "all_gather_object", lambda self, value: objects.append(value) or list(objects)
        )
        check_dataset(open_dataset(dataset), ProcessGroup(0, 2))
        check_dataset(open_dataset(dataset), ProcessGroup(1, 2))
        objects.pop()
        other = open_dataset(make_dataset(tmp_path / "more", count_A=6))
        with pytest.raises(
            DataError, match=r"rank 1 finds other images .6 of A, .* than the main process .5 of A, 4 of B"
        ):
            check_dataset(other, ProcessGroup(1, 2))

    def test_processes_that_do_not_find_each_other(
        self, tiny: Recipe, dataset: Path, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "0")
        monkeypatch.delenv("MASTER_ADDR", raising=False)
        with pytest.raises(TrainingError, match=r"did not find each other .* start them with torchrun"):
            gantoolkit.train(tiny, dataset, tmp_path / "run", device="cpu")
