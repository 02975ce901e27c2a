"""CUDA graph capture. Without CUDA, a stand-in replays a step by calling it again on the tensors that it recorded."""

import random
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from _helpers.small import batch_of as float32_batch_of
from torch import Tensor

from gantoolkit.blocks.discriminators import PatchGANDiscriminator
from gantoolkit.plugins import Batch, Phase
from gantoolkit.recipes import Recipe
from gantoolkit.runtime.graphs import GraphRecorder
from gantoolkit.runtime.precision import backend_flags
from gantoolkit.runtime.randomness import isolated_random_state, seed_everything
from gantoolkit.training import Trainer, build_trainer
from gantoolkit.training.capture import CapturedStep


def batch_of(recipe: Recipe, count: int = 1, seed: int = 0) -> dict[str, Tensor]:
    return float32_batch_of(recipe, count, seed, torch.float64)


CPU = torch.device("cpu")
WARM_UP = 3


class Recorder(GraphRecorder):
    """Record and replay as a CUDA graph does, on the CPU. The first replay does nothing: recording has run the step."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.pools = trainer.system.pools
        self.recordings = self.replays = 0

    def warm_up(self, function: Callable[[], Any]) -> Any:
        return function()

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        self.recordings += 1
        recorded_pools = dict(self.pools)
        names, losses, non_finite = function()

        def replay() -> None:
            self.replays += 1
            if replay.first:
                replay.first = False
                return
            originals = dict(self.pools)
            self.pools.update(recorded_pools)
            _, new_losses, new_non_finite = function()
            self.pools.update(originals)
            losses.copy_(new_losses)
            non_finite.copy_(new_non_finite)

        replay.first = True
        return replay, (names, losses, non_finite)


def trainers(recipe: Recipe) -> tuple[Trainer, CapturedStep, Recorder]:
    """A trainer without capture, one with capture, and its recorder. Both check for non-finite values on the device.

    They use float64, so that differences are those of the learning rates, which are float32 in a graph.
    """
    plain, captured = (build_trainer(recipe.resolve(), CPU) for _ in range(2))
    for trainer in (plain, captured):
        for network in trainer.system.networks.values():
            network.double()
    plain.is_asynchronous = captured.is_asynchronous = True
    recorder = Recorder(captured)
    return plain, CapturedStep(captured, recorder), recorder


def assert_same_state(first: Trainer, second: Trainer) -> None:
    # Learning rates are float32.
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [{}, {"alternating": True}, {"training.batch_size": 3}, {"image_pool": "none"}, {"identity_weight": 5.0}],
    ids=str,
)
def test_replayed_steps_equal_steps_without_capture(changes: dict[str, Any], tiny: Recipe) -> None:
    """The losses of every step, and the final weights, moments, pools and learning rates are the same."""
    recipe = tiny.swap(changes)
    plain, step, recorder = trainers(recipe)
    for index in range(12):
        batch = batch_of(recipe, count=recipe.training.batch_size, seed=index)
        for trainer in (plain, step.trainer):
            trainer.begin_epoch(index // 6)
        expected, result = plain.step(batch, index), step(batch, index)
        assert result.skipped is None
        torch.testing.assert_close(result.losses, expected.losses, rtol=1e-6, atol=1e-7)
    assert (step.problem, recorder.recordings, recorder.replays) == ("", 1, 12 - WARM_UP)
    assert_same_state(plain, step.trainer)


def test_each_kind_of_step_is_recorded_once(tiny: Recipe) -> None:
    """The last batch of an epoch may be smaller, and a phase may not be due."""
    plain, step, recorder = trainers(tiny)
    for trainer in (plain, step.trainer):
        first, second = trainer.system.phases
        trainer.system.phases = [first, Phase(second.name, second.trains, second.losses, every=2)]
    for index in range(20):
        batch = batch_of(tiny, count=1 + (index % 5 == 4), seed=index)
        torch.testing.assert_close(step(batch, index).losses, plain.step(batch, index).losses, rtol=1e-6, atol=1e-7)
    assert recorder.recordings == 2  # of four kinds; those with two images are still warming up
    assert_same_state(plain, step.trainer)


def test_a_restored_trainer_is_recorded_again(tiny: Recipe) -> None:
    plain, step, recorder = trainers(tiny)
    for index in range(6):
        step(batch_of(tiny, seed=index), index)
    saved = {name: tensor.clone() for name, tensor in step.trainer.state_dict().items()}
    for trainer in (plain, step.trainer):
        trainer.load_state_dict({name: tensor.clone() for name, tensor in saved.items()})
    for index in range(6, 12):
        batch = batch_of(tiny, seed=index)
        torch.testing.assert_close(step(batch, index).losses, plain.step(batch, index).losses, rtol=1e-6, atol=1e-7)
    assert recorder.recordings == 2


def test_a_non_finite_step_changes_no_weight(tiny: Recipe) -> None:
    _, step, _ = trainers(tiny)
    for index in range(6):
        step(batch_of(tiny, seed=index), index)
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


class HostRandomDiscriminator(PatchGANDiscriminator):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * random.choice([1.0, 1.1])


class ObservingDiscriminator(PatchGANDiscriminator):
    def observe(self, real: Tensor, fake: Tensor) -> None:
        pass


class EagerPool:
    """A pool that makes its decisions when it is called."""

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
        ({"discriminator": {"name": ObservingDiscriminator, "width": 4, "layers": 1}}, "D_A adapts to its logits"),
        ({"image_pool": EagerPool}, "the image pool fake_A makes its decisions when it is called"),
        ({"optimizer": "rmsprop"}, "the optimizer of G has no fused form"),
    ],
    ids=["observer", "pool", "optimizer"],
)
def test_a_step_that_cannot_be_captured_runs_without_a_graph(changes, reason: str, tiny: Recipe) -> None:
    with pytest.warns(UserWarning, match=f"training.capture: the step runs without a graph: .*{reason}"):
        plain, step, recorder = trainers(tiny.swap(changes))
    for index in range(6):
        batch = batch_of(tiny, seed=index)
        torch.testing.assert_close(step(batch, index).losses, plain.step(batch, index).losses)
    assert recorder.recordings == 0
    assert_same_state(plain, step.trainer)


class ForgetfulRecorder(Recorder):
    """Leaves the tensors of the trainer unchanged, as the capture of a graph does; only the host notices that it ran."""

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        before = {name: tensor.clone() for name, tensor in self.trainer.state_dict().items()}
        recorded = super().record(function)
        self.trainer.load_state_dict(before)
        self.trainer.restored -= 1
        return recorded


def test_a_block_that_draws_random_numbers_on_the_host_is_detected(tiny: Recipe) -> None:
    """Every replay would use the same number. The step is repeated with the number that it would have drawn."""
    recipe = tiny.swap(discriminator={"name": HostRandomDiscriminator, "width": 4, "layers": 1})
    plain, step, _ = trainers(recipe)
    step.recorder = ForgetfulRecorder(step.trainer)
    for index in range(WARM_UP + 2):
        batch = batch_of(tiny, seed=index)
        seed_everything(index)
        expected = plain.step(batch, index).losses
        seed_everything(index)
        with pytest.warns(UserWarning, match="draws random numbers on the host") if index == WARM_UP else nullcontext():
            torch.testing.assert_close(step(batch, index).losses, expected, rtol=1e-6, atol=1e-7)
    assert step.problem == "one of its blocks draws random numbers on the host"
    assert not step._graphs


def test_a_capture_that_fails_is_reported_once_and_steps_run_without_a_graph(tiny: Recipe) -> None:
    plain, step, recorder = trainers(tiny)

    def fail(function: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand so on")

    recorder.record = fail  # type: ignore[method-assign]
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        for index in range(8):
            batch = batch_of(tiny, seed=index)
            torch.testing.assert_close(step(batch, index).losses, plain.step(batch, index).losses)
    (warning,) = caught_warnings
    assert "it cannot be captured (operation not permitted when stream is capturing)" in str(warning.message)
    assert_same_state(plain, step.trainer)


def test_the_reason_is_available_without_a_warning(tiny: Recipe) -> None:
    trainer = build_trainer(tiny.swap(optimizer="rmsprop").resolve(), CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step = CapturedStep(trainer, Recorder(trainer), warn=False)
    assert step.problem == "the optimizer of G has no fused form"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float64", "bf16"])
def test_cuda_graphs_take_the_same_steps(precision: str, tiny: Recipe) -> None:
    """In float64 up to rounding; in bfloat16 with deterministic algorithms, since atomics alone change losses by more than the
    tolerance within twelve steps.
    """
    recipe = tiny.swap({"training.precision": "fp32" if precision == "float64" else precision}).resolve()
    device, dtype = torch.device("cuda"), torch.float64 if precision == "float64" else torch.float32
    plain, captured = (build_trainer(recipe, device) for _ in range(2))
    if precision == "float64":
        for trainer in (plain, captured):
            for network in trainer.system.networks.values():
                network.double()
    step = CapturedStep(captured)

    def to_cuda(batch: Batch) -> Batch:
        return {domain: images.cuda() for domain, images in batch.items()}

    with (
        isolated_random_state(device, deterministic=True),
        backend_flags(plain.precision, try_algorithms=False),
    ):
        for index in range(12):
            batch = to_cuda(float32_batch_of(recipe, seed=index, dtype=dtype))
            expected, result = plain.step(batch, index).losses, step(batch, index).losses
            tolerances = {"rtol": 1e-6, "atol": 1e-7} if precision == "float64" else {"rtol": 1e-3, "atol": 1e-4}
            torch.testing.assert_close(result, expected, **tolerances)
    assert step.problem == ""
    assert step._graphs
