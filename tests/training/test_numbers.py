"""Numbers that go bad in mid-run: in a batch, a loss, a gradient or a weight, once, for a while, or for good."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.small import make_dataset
from PIL import Image
from torch import nn

import gantoolkit
from gantoolkit.errors import TrainingError
from gantoolkit.files.tensors import read_header, read_tensors
from gantoolkit.recipes import Recipe
from gantoolkit.run import Run
from gantoolkit.runs import RunFolder
from gantoolkit.training import Event, StepDone, Trainer
from gantoolkit.training.loop import MAX_BAD_STEPS

BAD = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
Harm = Callable[[Trainer, dict[str, torch.Tensor], float], None]


def harm_batch(trainer: Trainer, batch: dict[str, torch.Tensor], value: float) -> None:
    batch["B"][0, 1, 3, 4] = value


def harm_gradient(trainer: Trainer, batch: dict[str, torch.Tensor], value: float) -> None:
    weight = next(trainer.system.networks["D_A"].parameters())

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        handle.remove()
        return gradient.index_put((torch.tensor([0]),), torch.tensor(value))

    handle = weight.register_hook(spoil)


def harm_weight(trainer: Trainer, batch: dict[str, torch.Tensor], value: float) -> None:
    with torch.no_grad():
        next(trainer.system.networks["G_BA"].parameters())[0] = value


def harm_moment(trainer: Trainer, batch: dict[str, torch.Tensor], value: float) -> None:
    optimizer = trainer.optimizers["G"]
    next(iter(optimizer.state.values()))["exp_avg"][0] = value


class Harmed:
    """Does something to the trainer, or to its batch, before chosen steps; those after a return are counted on."""

    def __init__(self, harm: Harm, value: float, steps: range) -> None:
        self.harm, self.value, self.steps = harm, value, steps
        self.taken = 0

    @contextmanager
    def injected(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        step = Trainer.step

        def harmed(trainer: Trainer, batch: dict[str, torch.Tensor], *more: Any) -> object:
            batch = {domain: images.clone() for domain, images in batch.items()}
            if self.taken in self.steps:
                self.harm(trainer, batch, self.value)
            self.taken += 1
            return step(trainer, batch, *more)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", harmed)
            yield


def assert_clean(folder: RunFolder) -> None:
    files = [*folder.list_checkpoints(), *folder.generators.glob("*.safetensors")]
    assert files
    for path in files:
        for name, tensor in read_tensors(path).items():
            assert torch.isfinite(tensor).all(), (path.name, name)


class TestInjected:
    @pytest.fixture
    def recipe(self, tiny: Recipe) -> Recipe:
        return tiny.swap({"training.epochs": 4, "training.checkpoint_every": 4})

    @pytest.mark.parametrize("value", BAD.values(), ids=BAD)
    @pytest.mark.parametrize("harm", [harm_batch, harm_gradient])
    def test_a_step_is_skipped(self, harm: Harm, value: float, recipe: Recipe, dataset, tmp_path, monkeypatch) -> None:
        events: list[Event] = []
        with Harmed(harm, value, range(6, 8)).injected(monkeypatch):
            run = gantoolkit.train(recipe, dataset, tmp_path / "run", device="cpu", callbacks=[events.append])
        skipped = {event.step: event.skipped for event in events if isinstance(event, StepDone) and event.skipped}
        assert skipped == dict.fromkeys((7, 8), "G" if harm is harm_batch else "D")
        assert "<tr><th>Skipped steps</th><td>2</td></tr>" in run.report.read_text()
        assert_clean(run.folder)

    def test_running_means_are_those_from_before(self, tiny_pix2pix: Recipe, tmp_path: Path, monkeypatch) -> None:
        data = make_dataset(tmp_path / "pairs", count_A=5, count_B=5)
        recipe = tiny_pix2pix.swap({"training.epochs": 1})  # five steps; the network has batch norm
        with Harmed(harm_batch, math.nan, range(2, 3)).injected(monkeypatch):
            run = gantoolkit.train(recipe, data, tmp_path / "run", device="cpu")
        saved = read_tensors(run.folder.list_checkpoints()[-1])
        assert any("running_var" in name for name in saved)
        assert read_header(run.folder.list_checkpoints()[-1])["progress"]["skipped_steps"] == 1
        assert_clean(run.folder)

    @pytest.mark.parametrize("at", [6, 7], ids=["amid steps", "before a checkpoint"])
    @pytest.mark.parametrize("harm", [harm_weight, harm_moment])
    def test_a_poisoned_weight_is_undone_by_going_back(
        self, harm: Harm, at: int, recipe: Recipe, dataset: Path, tmp_path: Path, monkeypatch
    ) -> None:
        """Nothing on the disk is poisoned at any time, and in the end the run is one that nothing has happened to."""
        whole = gantoolkit.train(recipe, dataset, tmp_path / "whole", device="cpu")
        harmed = Harmed(harm, math.inf, range(at, at + 1))

        def look(event: Event) -> None:
            if not isinstance(event, StepDone) and run.list_checkpoints():
                assert_clean(run)

        run = RunFolder(tmp_path / "run")
        with harmed.injected(monkeypatch):
            other = gantoolkit.train(recipe, dataset, run.path, device="cpu", callbacks=[look])
        assert harmed.taken > 20
        states = [read_tensors(one.folder.list_checkpoints()[-1]) for one in (whole, other)]
        for name, tensor in states[0].items():
            assert torch.equal(tensor, states[1][name]), name

    def test_what_stays_bad_stops_the_run(self, recipe: Recipe, dataset: Path, tmp_path: Path, monkeypatch) -> None:
        with (
            Harmed(harm_batch, math.nan, range(6, 1000)).injected(monkeypatch),
            pytest.raises(TrainingError, match=r"step 14: .* not finite in 10 steps in a row, also after a rollback"),
        ):
            gantoolkit.train(recipe, dataset, tmp_path / "run", device="cpu")
        assert_clean(RunFolder(tmp_path / "run"))
        assert Run.open(tmp_path / "run").train(device="cpu").reason == "finished"


class Fragile(nn.Module):
    """A generator whose output is not finite from some forward pass on."""

    size_multiple = 1
    passes = 0
    good_passes = 0

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        translated = self.mix(images).tanh()
        if self.training and images.device.type != "meta":
            Fragile.passes += 1
            if Fragile.passes > Fragile.good_passes:
                return translated * torch.nan
        return translated


class TestNumbers:
    def recipe(self, tiny: Recipe, good_passes: int) -> Recipe:
        Fragile.passes, Fragile.good_passes = 0, good_passes
        return tiny.swap({"generator": Fragile, "training.epochs": 8, "training.checkpoint_every": 3})

    def test_a_run_that_stays_non_finite_stops_with_the_reason_and_keeps_its_checkpoint(
        self, tiny: Recipe, dataset: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(
            TrainingError, match=rf"not finite in {MAX_BAD_STEPS} steps in a row, also after a rollback"
        ):
            gantoolkit.train(self.recipe(tiny, good_passes=20), dataset, tmp_path / "run", device="cpu")
        newest = RunFolder(tmp_path / "run").list_checkpoints()[-1]
        assert all(torch.isfinite(tensor).all() for tensor in read_tensors(newest).values())

    def test_a_run_without_a_checkpoint_says_so_at_once(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="steps in a row; nothing of these steps was kept"):
            gantoolkit.train(self.recipe(tiny, good_passes=0), dataset, tmp_path / "run", device="cpu")
        assert RunFolder(tmp_path / "run").list_checkpoints() == []

    def test_poisoned_weights_are_never_saved(self, tiny: Recipe, dataset: Path, tmp_path: Path) -> None:
        class Poisoned(Fragile):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                if self.training and images.device.type != "meta":
                    with torch.no_grad():
                        self.mix.bias[0] = torch.nan
                return self.mix(images).tanh().nan_to_num()

        recipe = tiny.swap({"generator": Poisoned})
        with pytest.raises(TrainingError, match=r"step 1: network/G_AB/mix\.bias was not finite; nothing of these"):
            gantoolkit.train(recipe, dataset, tmp_path / "run", device="cpu", stop_at=1)
        assert RunFolder(tmp_path / "run").list_checkpoints() == []

    def test_flat_images_train_without_nan(self, tiny: Recipe, tmp_path: Path) -> None:
        for domain, level in (("trainA", 0), ("trainB", 255)):
            (tmp_path / "flat" / domain).mkdir(parents=True)
            Image.new("RGB", (20, 20), (level, level, level)).save(tmp_path / "flat" / domain / "flat.png")
        events: list[Event] = []
        gantoolkit.train(tiny, tmp_path / "flat", tmp_path / "run", device="cpu", callbacks=[events.append])
        assert not any(event.skipped for event in events if isinstance(event, StepDone))
