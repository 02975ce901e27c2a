"""Non-finite values in a batch, a loss, a gradient or a weight during a run: once, for a while, or permanently."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.small import make_dataset
from _helpers.states import assert_same_state
from PIL import Image
from torch import nn

import gantoolkit
from gantoolkit.errors import TrainingError
from gantoolkit.files.tensors import read_header, read_tensors
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run
from gantoolkit.runs import RunFolder
from gantoolkit.training import Event, StepDone, Trainer
from gantoolkit.training.pending import MAX_BAD_STEPS

VALUES = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
Injection = Callable[[Trainer, dict[str, torch.Tensor], float], None]


def inject_batch(trainer: Trainer, batch: dict[str, torch.Tensor], value: float) -> None:
    batch["B"][0, 1, 3, 4] = value


def inject_gradient(trainer: Trainer, batch: dict[str, torch.Tensor], value: float) -> None:
    weight = next(trainer.system.networks["D_A"].parameters())

    def inject(gradient: torch.Tensor) -> torch.Tensor:
        handle.remove()
        return gradient.index_put((torch.tensor([0]),), torch.tensor(value))

    handle = weight.register_hook(inject)


def inject_weight(trainer: Trainer, batch: dict[str, torch.Tensor], value: float) -> None:
    with torch.no_grad():
        next(trainer.system.networks["G_BA"].parameters())[0] = value


def inject_moment(trainer: Trainer, batch: dict[str, torch.Tensor], value: float) -> None:
    optimizer = trainer.optimizers["G"]
    next(iter(optimizer.state.values()))["exp_avg"][0] = value


class Injector:
    """Inject a value before the given steps. Steps that are repeated after a rollback have new numbers."""

    def __init__(self, inject: Injection, value: float, steps: range) -> None:
        self.inject, self.value, self.steps = inject, value, steps
        self.steps_taken = 0

    @contextmanager
    def active(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        take_step = Trainer.step

        def inject_and_step(trainer: Trainer, batch: dict[str, torch.Tensor], *more: Any) -> object:
            batch = {domain: images.clone() for domain, images in batch.items()}
            if self.steps_taken in self.steps:
                self.inject(trainer, batch, self.value)
            self.steps_taken += 1
            return take_step(trainer, batch, *more)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", inject_and_step)
            yield


def assert_all_finite(folder: RunFolder) -> None:
    files = [*folder.list_checkpoints(), *folder.generators.glob("*.safetensors")]
    assert files
    for path in files:
        for name, tensor in read_tensors(path).items():
            assert torch.isfinite(tensor).all(), (path.name, name)


class TestInjectedValues:
    @pytest.fixture
    def recipe(self, tiny: Recipe) -> Recipe:
        return tiny.swap({"training.epochs": 4, "training.checkpoint_every": 4})

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
    @pytest.mark.parametrize("inject", [inject_batch, inject_gradient])
    def test_a_step_is_skipped(
        self, inject: Injection, value: float, recipe: Recipe, dataset, tmp_path, monkeypatch
    ) -> None:
        events: list[Event] = []
        with Injector(inject, value, range(6, 8)).active(monkeypatch):
            run = gantoolkit.train(recipe, dataset, tmp_path / "run", device="cpu", callbacks=[events.append])
        skipped = {event.step: event.skipped for event in events if isinstance(event, StepDone) and event.skipped}
        assert skipped == dict.fromkeys((7, 8), "G" if inject is inject_batch else "D")
        assert "<tr><th>Skipped steps</th><td>2</td></tr>" in run.report.read_text()
        assert_all_finite(run.folder)

    def test_a_skipped_step_restores_running_statistics(
        self, tiny_pix2pix: Recipe, tmp_path: Path, monkeypatch
    ) -> None:
        data = make_dataset(tmp_path / "pairs", count_A=5, count_B=5)
        recipe = tiny_pix2pix.swap({"training.epochs": 1})  # five steps; the network has batch norm
        with Injector(inject_batch, math.nan, range(2, 3)).active(monkeypatch):
            run = gantoolkit.train(recipe, data, tmp_path / "run", device="cpu")
        saved = read_tensors(run.folder.list_checkpoints()[-1])
        assert any("running_var" in name for name in saved)
        assert read_header(run.folder.list_checkpoints()[-1])["progress"]["skipped_steps"] == 1
        assert_all_finite(run.folder)

    @pytest.mark.parametrize("step", [6, 7], ids=["between checkpoints", "before a checkpoint"])
    @pytest.mark.parametrize("inject", [inject_weight, inject_moment])
    def test_a_rollback_undoes_a_non_finite_weight(
        self, inject: Injection, step: int, recipe: Recipe, dataset: Path, tmp_path: Path, monkeypatch
    ) -> None:
        """All files stay finite at all times, and the run ends with the same state as an undisturbed one."""
        whole = gantoolkit.train(recipe, dataset, tmp_path / "whole", device="cpu")
        injector = Injector(inject, math.inf, range(step, step + 1))

        def check_files(event: Event) -> None:
            if not isinstance(event, StepDone) and folder.list_checkpoints():
                assert_all_finite(folder)

        folder = RunFolder(tmp_path / "run")
        with injector.active(monkeypatch):
            run = gantoolkit.train(recipe, dataset, folder.path, device="cpu", callbacks=[check_files])
        assert injector.steps_taken > 20
        assert_same_state(whole, run)

    def test_non_finite_batches_stop_the_run(self, recipe: Recipe, dataset: Path, tmp_path: Path, monkeypatch) -> None:
        with (
            Injector(inject_batch, math.nan, range(6, 1000)).active(monkeypatch),
            pytest.raises(TrainingError, match=r"step 14: .* not finite in 10 steps in a row, also after a rollback"),
        ):
            gantoolkit.train(recipe, dataset, tmp_path / "run", device="cpu")
        assert_all_finite(RunFolder(tmp_path / "run"))
        assert Run.open(tmp_path / "run").train(device="cpu").reason == "finished"


class Diverging(nn.Module):
    """A generator whose output is non-finite after `finite_passes` forward passes."""

    size_multiple = 1
    passes = 0
    finite_passes = 0

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        translated = self.conv(images).tanh()
        if self.training and images.device.type != "meta":
            Diverging.passes += 1
            if Diverging.passes > Diverging.finite_passes:
                return translated * torch.nan
        return translated


class TestNonFiniteNetworks:
    def recipe(self, tiny: Recipe, finite_passes: int) -> Recipe:
        Diverging.passes, Diverging.finite_passes = 0, finite_passes
        return tiny.swap({"generator": Diverging, "training.epochs": 8, "training.checkpoint_every": 3})

    def test_a_run_that_stays_non_finite_stops_and_keeps_its_checkpoint(
        self, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(
            TrainingError, match=rf"not finite in {MAX_BAD_STEPS} steps in a row, also after a rollback"
        ):
            gantoolkit.train(self.recipe(tiny, finite_passes=20), dataset, tmp_path / "run", device="cpu")
        newest = RunFolder(tmp_path / "run").list_checkpoints()[-1]
        assert all(torch.isfinite(tensor).all() for tensor in read_tensors(newest).values())

    def test_a_run_without_a_checkpoint_stops_at_once(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="steps in a row; these steps were not saved"):
            gantoolkit.train(self.recipe(tiny, finite_passes=0), dataset, tmp_path / "run", device="cpu")
        assert RunFolder(tmp_path / "run").list_checkpoints() == []

    def test_non_finite_weights_are_never_saved(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        class NonFiniteBias(Diverging):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                if self.training and images.device.type != "meta":
                    with torch.no_grad():
                        self.conv.bias[0] = torch.nan
                return self.conv(images).tanh().nan_to_num()

        recipe = tiny.swap({"generator": NonFiniteBias})
        with pytest.raises(
            TrainingError, match=r"step 1: network/G_AB/conv\.bias was not finite; these steps were not saved"
        ):
            gantoolkit.train(recipe, dataset, tmp_path / "run", device="cpu", stop_at=1)
        assert RunFolder(tmp_path / "run").list_checkpoints() == []

    def test_flat_images_train_without_nan(self, tiny: Recipe, tmp_path: Path) -> None:
        for domain, level in (("trainA", 0), ("trainB", 255)):
            (tmp_path / "flat" / domain).mkdir(parents=True)
            Image.new("RGB", (20, 20), (level, level, level)).save(tmp_path / "flat" / domain / "flat.png")
        events: list[Event] = []
        gantoolkit.train(tiny, tmp_path / "flat", tmp_path / "run", device="cpu", callbacks=[events.append])
        assert not any(event.skipped for event in events if isinstance(event, StepDone))
