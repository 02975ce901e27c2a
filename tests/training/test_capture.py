"""Without CUDA a stand-in records: it calls the function, and to replay it calls it again on what lies where it read from."""

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from _helpers.small import batch_of as float32_batch_of
from torch import Tensor

from gantoolkit.blocks.discriminators import PatchGANDiscriminator
from gantoolkit.plugins import Batch, Phase
from gantoolkit.recipes import Recipe
from gantoolkit.training import Trainer, build_trainer
from gantoolkit.training.capture import CapturedStep, GraphRecorder


def batch_of(recipe: Recipe, count: int = 1, seed: int = 0) -> dict[str, Tensor]:
    return float32_batch_of(recipe, count, seed, torch.float64)


CPU = torch.device("cpu")
WARM_UP = 3


class Recorder(GraphRecorder):
    """What a graph does, on the CPU: the first replay has been done while it was recorded."""

    def __init__(self, trainer: Trainer) -> None:
        self.pools = trainer.system.pools
        self.recorded = self.replayed = 0

    def warm_up(self, function: Callable[[], Any]) -> Any:
        return function()

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        self.recorded += 1
        as_recorded = dict(self.pools)
        names, losses, non_finite = function()

        def replay() -> None:
            self.replayed += 1
            if replay.first:
                replay.first = False
                return
            originals = dict(self.pools)
            self.pools.update(as_recorded)
            _, new_losses, new_broken = function()
            self.pools.update(originals)
            losses.copy_(new_losses)
            non_finite.copy_(new_broken)

        replay.first = True
        return replay, (names, losses, non_finite)


def trainers(recipe: Recipe) -> tuple[Trainer, CapturedStep, Recorder]:
    """One that steps plainly, and one that is captured; both find on the device what is not finite.

    In float64: in float32 the biases in front of a norm follow rounding noise.
    """
    plain, captured = (build_trainer(recipe.resolve(), CPU) for _ in range(2))
    for trainer in (plain, captured):
        for network in trainer.system.networks.values():
            network.double()
    plain.is_asynchronous = captured.is_asynchronous = True
    recorder = Recorder(captured)
    return plain, CapturedStep(captured, recorder), recorder


def states(*made: Trainer) -> list[dict[str, Tensor]]:
    return [trainer.state_dict() for trainer in made]


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-6)  # the rates are float32


@pytest.mark.parametrize(
    "changes",
    [{}, {"alternating": True}, {"training.batch_size": 3}, {"image_pool": "none"}, {"identity_weight": 5.0}],
    ids=str,
)
def test_replayed_steps_are_the_plain_ones(changes: dict[str, Any], tiny: Recipe) -> None:
    """Losses of every step, and all that the next one depends on: weights, moments, pools and their decisions, rates."""
    recipe = tiny.swap(changes)
    plain, step, recorder = trainers(recipe)
    for number in range(12):
        batch = batch_of(recipe, count=recipe.training.batch_size, seed=number)
        for trainer in (plain, step.trainer):
            trainer.begin_epoch(number // 6)
        wanted, made = plain.step(batch, number), step(batch, number)
        assert made.skipped is None
        torch.testing.assert_close(made.losses, wanted.losses, rtol=1e-6, atol=1e-7)
    assert (step.problem, recorder.recorded, recorder.replayed) == ("", 1, 12 - WARM_UP)
    assert_same(*states(plain, step.trainer))


def test_each_kind_of_step_is_recorded_once(tiny: Recipe) -> None:
    """The last batch of an epoch may be smaller, and a phase may not be due."""
    plain, step, recorder = trainers(tiny)
    for trainer in (plain, step.trainer):
        first, second = trainer.system.phases
        trainer.system.phases = [first, Phase(second.name, second.trains, second.losses, every=2)]
    for number in range(20):
        batch = batch_of(tiny, count=1 + (number % 5 == 4), seed=number)
        torch.testing.assert_close(step(batch, number).losses, plain.step(batch, number).losses, rtol=1e-6, atol=1e-7)
    assert recorder.recorded == 2  # of four kinds, those of two images have not come often enough
    assert_same(*states(plain, step.trainer))


def test_a_restored_trainer_is_recorded_anew(tiny: Recipe) -> None:
    plain, step, recorder = trainers(tiny)
    for number in range(6):
        step(batch_of(tiny, seed=number), number)
    saved = {name: tensor.clone() for name, tensor in step.trainer.state_dict().items()}
    for trainer in (plain, step.trainer):
        trainer.load_state_dict({name: tensor.clone() for name, tensor in saved.items()})
    for number in range(6, 12):
        batch = batch_of(tiny, seed=number)
        torch.testing.assert_close(step(batch, number).losses, plain.step(batch, number).losses, rtol=1e-6, atol=1e-7)
    assert recorder.recorded == 2


def test_a_bad_step_changes_no_weight_without_the_host_knowing(tiny: Recipe) -> None:
    _, step, _ = trainers(tiny)
    for number in range(6):
        step(batch_of(tiny, seed=number), number)
    before = {name: tensor.clone() for name, tensor in step.trainer.state_dict().items()}
    bad = batch_of(tiny)
    bad["A"][0, 0, 0, 0] = torch.nan
    assert step(bad, 6).skipped == "G"
    after = step.trainer.state_dict()
    for name in before:
        if name.startswith(("network/", "optimizer/")):
            assert torch.equal(before[name], after[name]), name
        elif name.endswith("images"):
            assert after[name].isfinite().all()
    assert step(batch_of(tiny, seed=7), 7).skipped is None


class DrawsOnTheHost(PatchGANDiscriminator):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * random.choice([1.0, 1.1])


class Observes(PatchGANDiscriminator):
    def observe(self, real: Tensor, fake: Tensor) -> None:
        pass


class Whimsical:
    """A pool that decides when it is called."""

    def __init__(self, generator: torch.Generator) -> None:
        pass

    def __call__(self, fakes: Tensor) -> Tensor:
        return fakes.detach()

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"discriminator": {"name": Observes, "width": 4, "layers": 1}}, "D_A adapts to its logits"),
        ({"image_pool": Whimsical}, "the image pool fake_A makes its decisions when it is called"),
        ({"optimizer": "rmsprop"}, "the optimizer of G has no fused form"),
    ],
    ids=["observer", "pool", "optimizer"],
)
def test_what_cannot_be_captured_is_named_and_run_as_ever(changes, reason: str, tiny: Recipe) -> None:
    with pytest.warns(UserWarning, match=f"training.capture: the step runs without a graph: .*{reason}"):
        plain, step, recorder = trainers(tiny.swap(changes))
    for number in range(6):
        batch = batch_of(tiny, seed=number)
        torch.testing.assert_close(step(batch, number).losses, plain.step(batch, number).losses)
    assert recorder.recorded == 0
    assert_same(*states(plain, step.trainer))


def test_a_block_that_draws_on_the_host_is_noticed(tiny: Recipe) -> None:
    """Its number would be the same in every replay."""
    _, step, _ = trainers(tiny.swap(discriminator={"name": DrawsOnTheHost, "width": 4, "layers": 1}))
    for number in range(WARM_UP):
        step(batch_of(tiny, seed=number), number)
    with pytest.warns(UserWarning, match="one of its blocks draws random numbers on the host"):
        step(batch_of(tiny, seed=WARM_UP), WARM_UP)
    assert not step._graphs


def test_what_the_device_refuses_is_named_and_run_as_ever(tiny: Recipe) -> None:
    plain, step, recorder = trainers(tiny)

    def refuse(function: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand so on")

    recorder.record = refuse  # type: ignore[method-assign]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(8):
            batch = batch_of(tiny, seed=number)
            torch.testing.assert_close(step(batch, number).losses, plain.step(batch, number).losses)
    (warning,) = caught
    assert "it cannot be captured (operation not permitted when stream is capturing)" in str(warning.message)
    assert_same(*states(plain, step.trainer))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_cuda_graphs_take_the_same_steps(precision: str, tiny: Recipe) -> None:
    recipe = tiny.swap({"training.precision": precision}).resolve()
    device = torch.device("cuda")
    plain, captured = (build_trainer(recipe, device) for _ in range(2))
    step = CapturedStep(captured, GraphRecorder())

    def moved(batch: Batch) -> Batch:
        return {domain: images.cuda() for domain, images in batch.items()}

    for number in range(12):
        batch = moved(float32_batch_of(recipe, seed=number))
        torch.testing.assert_close(step(batch, number).losses, plain.step(batch, number).losses, rtol=1e-3, atol=1e-4)
    assert step.problem == ""
    assert step._graphs
