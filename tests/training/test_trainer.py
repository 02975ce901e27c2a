"""The trainer: the order of phases, learning rates, non-finite steps and restored states."""

import pytest
import torch
from _helpers.small import batch_of
from _helpers.systems import system_of
from torch import nn

from gantoolkit.plugins import Phase
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.block_spec import bind
from gantoolkit.training import Trainer, build_trainer


def trainer_of(recipe: Recipe) -> Trainer:
    resolved = recipe.resolve()
    return Trainer(
        system_of(recipe),
        optimizer=bind("optimizers", resolved.optimizer),
        scheduler=bind("schedulers", resolved.scheduler)(),
        epochs=recipe.training.epochs,
    )


class OneWeight(nn.Linear):
    """A network with one weight."""

    def __init__(self) -> None:
        super().__init__(1, 1, bias=False)
        nn.init.ones_(self.weight)


class TwoPhases:
    """A system that records the calls of the trainer."""

    pairing = "unpaired"

    def __init__(self, every: int = 1) -> None:
        self.networks = {"first": OneWeight(), "second": OneWeight()}
        self.directions, self.pools = {}, {}
        self.calls: list[tuple[str, bool, bool, float]] = []
        self.phases = [
            Phase("one", ("first",), lambda batch, shared: self.compute_losses("one")),
            Phase("two", ("second",), lambda batch, shared: self.compute_losses("two"), every=every),
        ]

    def forward(self, batch):
        return {}

    def compute_losses(self, name: str) -> dict[str, torch.Tensor]:
        first, second = self.networks["first"].weight, self.networks["second"].weight
        self.calls.append((name, first.requires_grad, second.requires_grad, first.item()))
        return {"a": (first * second).sum(), "b": 2 * (first * second).sum()}

    def sample(self, batch):
        return {}


def sgd_trainer(system: TwoPhases) -> Trainer:
    scheduler = type("Half", (), {"multiplier": lambda self, epoch, epochs: 0.5})()
    return Trainer(system, optimizer=lambda p: torch.optim.SGD(p, lr=0.2), scheduler=scheduler, epochs=1)  # type: ignore[arg-type]


def test_phases_run_in_order_and_train_only_their_own_networks() -> None:
    system = TwoPhases()
    trainer = sgd_trainer(system)
    result = trainer.step({}, 0)
    # The second phase uses the weight after the first phase: 1 − 0.2·(1 + 2).
    assert system.calls == [("one", True, False, 1.0), ("two", False, True, pytest.approx(0.4))]
    assert system.networks["second"].weight.item() == pytest.approx(1 - 0.2 * 3 * 0.4)
    assert {name: value.item() for name, value in result.losses.items()} == pytest.approx(
        {"one/a": 1, "one/b": 2, "one/total": 3, "two/a": 0.4, "two/b": 0.8, "two/total": 1.2}
    )


def test_a_phase_can_run_every_nth_step() -> None:
    system = TwoPhases(every=3)
    trainer = sgd_trainer(system)
    for index in range(7):
        trainer.step({}, index)
    assert [name for name, *_ in system.calls].count("two") == 3


def test_the_scheduler_multiplies_the_initial_learning_rate() -> None:
    trainer = sgd_trainer(TwoPhases())
    trainer.begin_epoch(0)
    assert trainer.learning_rates == {"one": pytest.approx(0.1), "two": pytest.approx(0.1)}
    trainer.begin_epoch(1)
    assert trainer.learning_rates == {"one": pytest.approx(0.1), "two": pytest.approx(0.1)}


def test_the_generators_are_trained_before_the_discriminators(tiny: Recipe) -> None:
    """Training D first would judge the generator by a newer discriminator."""
    trainer = trainer_of(tiny)
    names = []
    for name, optimizer in trainer.optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, name=name: names.append(name))
    trainer.step(batch_of(tiny))
    assert names == ["G", "D"]
    assert len(trainer.optimizers) == 2


def test_the_discriminators_judge_fakes_from_before_the_generator_step(tiny: Recipe) -> None:
    trainer, reference = trainer_of(tiny), system_of(tiny)
    batch = batch_of(tiny)
    expected = reference.phases[1].losses(batch, reference.forward(batch))["D_A"]
    torch.testing.assert_close(trainer.step(batch).losses["D/D_A"], expected.detach())


@pytest.mark.parametrize("location", ["batch", "loss", "gradient"])
def test_a_non_finite_step_changes_no_weight(location: str, tiny: Recipe) -> None:
    trainer = trainer_of(tiny)
    trainer.step(batch_of(tiny))
    before = {name: tensor.clone() for name, tensor in trainer.state_dict().items()}
    batch = batch_of(tiny)
    if location == "batch":
        batch["A"][0, 0, 0, 0] = torch.nan
    else:
        phase = trainer.system.phases[0]

        def non_finite_losses(batch, shared):
            terms = phase.losses(batch, shared)
            if location == "gradient":
                weight = next(trainer.system.networks["G_AB"].parameters())
                terms["extra"] = (weight - weight.detach()).abs().sum().sqrt()  # value 0, gradient 0·∞
            else:
                terms["cycle_A"] = terms["cycle_A"] * torch.inf
            return terms

        trainer.system.phases[0] = Phase("G", phase.trains, non_finite_losses)
    assert trainer.step(batch).skipped == "G"
    after = trainer.state_dict()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_a_restored_trainer_takes_the_same_steps(optimizer: str, tiny: Recipe) -> None:
    recipe = tiny.swap(optimizer=optimizer)
    trainer, restored = trainer_of(recipe), trainer_of(recipe.swap({"training.seed": 7}))
    for index in range(4):
        trainer.step(batch_of(recipe, seed=index))
    restored.load_state_dict({name: tensor.clone() for name, tensor in trainer.state_dict().items()})
    for index in range(4, 8):
        batch = batch_of(recipe, seed=index)
        first, second = trainer.step(batch).losses, restored.step(batch).losses
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_skipped_first_step_leaves_the_moments_clean(tiny: Recipe) -> None:
    """PyTorch's fused SGD leaves its moments uninitialized if a flag on the device skips its first step."""
    trainer = trainer_of(tiny.swap(optimizer={"name": "sgd", "momentum": 0.9}))
    trainer.is_asynchronous = True
    bad = batch_of(tiny)
    bad["A"][:] = torch.nan
    assert trainer.step(bad).skipped == "G"
    assert trainer.step(batch_of(tiny)).skipped is None
    clean = trainer_of(tiny.swap(optimizer={"name": "sgd", "momentum": 0.9}))
    clean.step(batch_of(tiny))
    for name, tensor in clean.state_dict().items():
        if name.startswith("network/G"):
            torch.testing.assert_close(trainer.state_dict()[name], tensor)


def test_float64_stays_float64(tiny: Recipe) -> None:
    trainer = trainer_of(tiny)
    for network in trainer.system.networks.values():
        network.double()
    losses = trainer.step(batch_of(tiny, dtype=torch.float64)).losses
    assert {loss.dtype for loss in losses.values()} == {torch.float64}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_takes_the_same_step_as_the_cpu(tiny: Recipe) -> None:
    on_cpu, on_cuda = (build_trainer(tiny.resolve(), torch.device(device)) for device in ("cpu", "cuda"))
    for trainer in (on_cpu, on_cuda):
        for network in trainer.system.networks.values():
            network.double()
    for index in range(6):  # more than the pool size, so that the pool swaps images
        batch = batch_of(tiny, seed=index, dtype=torch.float64)
        cuda_batch = {domain: images.cuda() for domain, images in batch.items()}
        torch.testing.assert_close(
            {name: loss.cpu() for name, loss in on_cuda.step(cuda_batch).losses.items()},
            on_cpu.step(batch).losses,
            rtol=1e-9,
            atol=1e-9,
        )
