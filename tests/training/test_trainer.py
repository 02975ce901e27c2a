import pytest
import torch
from _helpers.small import batch_of
from _helpers.systems import system_of
from torch import nn

from gantoolkit.plugins import Phase
from gantoolkit.recipes import Recipe
from gantoolkit.recipes.block_spec import bind
from gantoolkit.training import Trainer


def trainer_of(recipe: Recipe) -> Trainer:
    resolved = recipe.resolve()
    return Trainer(
        system_of(recipe),
        optimizer=bind("optimizers", resolved.optimizer),
        scheduler=bind("schedulers", resolved.scheduler)(),
        epochs=recipe.training.epochs,
    )


class Recorder(nn.Linear):
    """A network of one weight."""

    def __init__(self) -> None:
        super().__init__(1, 1, bias=False)
        nn.init.ones_(self.weight)


class TwoPhases:
    """A system that notes what the trainer does with it."""

    pairing = "unpaired"

    def __init__(self, every: int = 1) -> None:
        self.networks = {"first": Recorder(), "second": Recorder()}
        self.directions, self.pools = {}, {}
        self.seen: list[tuple[str, bool, bool, float]] = []
        self.phases = [
            Phase("one", ("first",), lambda batch, shared: self.note("one")),
            Phase("two", ("second",), lambda batch, shared: self.note("two"), every=every),
        ]

    def forward(self, batch):
        return {}

    def note(self, name: str) -> dict[str, torch.Tensor]:
        first, second = self.networks["first"].weight, self.networks["second"].weight
        self.seen.append((name, first.requires_grad, second.requires_grad, first.item()))
        return {"a": (first * second).sum(), "b": 2 * (first * second).sum()}

    def sample(self, batch):
        return {}


def sgd_trainer(system: TwoPhases) -> Trainer:
    scheduler = type("Half", (), {"multiplier": lambda self, epoch, epochs: 0.5})()
    return Trainer(system, optimizer=lambda p: torch.optim.SGD(p, lr=0.2), scheduler=scheduler, epochs=1)  # type: ignore[arg-type]


def test_phases_run_in_order_each_training_its_own_networks_alone() -> None:
    system = TwoPhases()
    trainer = sgd_trainer(system)
    result = trainer.step({}, 0)
    # The second phase sees what the first has made of its network: 1 − 0.2·(1 + 2).
    assert system.seen == [("one", True, False, 1.0), ("two", False, True, pytest.approx(0.4))]
    assert system.networks["second"].weight.item() == pytest.approx(1 - 0.2 * 3 * 0.4)
    assert {name: value.item() for name, value in result.losses.items()} == pytest.approx(
        {"one/a": 1, "one/b": 2, "one/total": 3, "two/a": 0.4, "two/b": 0.8, "two/total": 1.2}
    )


def test_a_phase_may_run_in_every_nth_step_only() -> None:
    system = TwoPhases(every=3)
    trainer = sgd_trainer(system)
    for number in range(7):
        trainer.step({}, number)
    assert [name for name, *_ in system.seen].count("two") == 3


def test_the_schedule_multiplies_the_optimizers_own_rate() -> None:
    trainer = sgd_trainer(TwoPhases())
    trainer.begin_epoch(0)
    assert trainer.learning_rates == {"one": pytest.approx(0.1), "two": pytest.approx(0.1)}
    trainer.begin_epoch(1)
    assert trainer.learning_rates == {"one": pytest.approx(0.1), "two": pytest.approx(0.1)}


def test_the_generators_step_comes_before_the_discriminators(tiny: Recipe) -> None:
    """Reimplementations that claim G first and train D first judge the generator by a newer discriminator."""
    trainer = trainer_of(tiny)
    order = []
    for name, optimizer in trainer.optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, name=name: order.append(name))
    trainer.step(batch_of(tiny))
    assert order == ["G", "D"]
    assert len(trainer.optimizers) == 2


def test_the_discriminators_judge_fakes_from_before_the_generators_step(tiny: Recipe) -> None:
    trainer, reference = trainer_of(tiny), system_of(tiny)
    batch = batch_of(tiny)
    shared = reference.forward(batch)
    expected = reference.phases[1].losses(batch, shared)["D_A"]
    torch.testing.assert_close(trainer.step(batch).losses["D/D_A"], expected.detach())


@pytest.mark.parametrize("where", ["batch", "loss", "gradient"])
def test_a_step_that_is_not_finite_changes_no_weight(where: str, tiny: Recipe) -> None:
    trainer = trainer_of(tiny)
    trainer.step(batch_of(tiny))
    before = {name: tensor.clone() for name, tensor in trainer.state_dict().items()}
    batch = batch_of(tiny)
    if where == "batch":
        batch["A"][0, 0, 0, 0] = torch.nan
    else:
        phase = trainer.system.phases[0]
        infinite = torch.inf if where == "loss" else 1.0

        def poisoned(batch, shared):
            terms = phase.losses(batch, shared)
            if where == "gradient":
                weight = next(trainer.system.networks["G_AB"].parameters())
                terms["extra"] = (weight - weight.detach()).abs().sum().sqrt()  # value 0, slope 0·∞
            else:
                terms["cycle_A"] = terms["cycle_A"] * infinite
            return terms

        trainer.system.phases[0] = Phase("G", phase.trains, poisoned)
    assert trainer.step(batch).skipped == "G"
    after = trainer.state_dict()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_a_restored_trainer_takes_the_same_steps(optimizer: str, tiny: Recipe) -> None:
    recipe = tiny.swap(optimizer=optimizer)
    trainer, restored = trainer_of(recipe), trainer_of(recipe.swap({"training.seed": 7}))
    for number in range(4):
        trainer.step(batch_of(recipe, seed=number))
    restored.load_state_dict({name: tensor.clone() for name, tensor in trainer.state_dict().items()})
    for number in range(4, 8):
        batch = batch_of(recipe, seed=number)
        first, second = trainer.step(batch).losses, restored.step(batch).losses
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_first_step_that_is_not_taken_leaves_moments_clean(tiny: Recipe) -> None:
    """Told on the device not to step, PyTorch's fused SGD keeps whatever lay in its moments' memory."""
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
    here, there = trainer_of(tiny), trainer_of(tiny)
    for trainer in (here, there):
        for network in trainer.system.networks.values():
            network.double()
    for network in there.system.networks.values():
        network.cuda()
    for number in range(6):  # beyond the pool's size, so that its decisions count
        batch = batch_of(tiny, seed=number, dtype=torch.float64)
        on_cuda = {domain: images.cuda() for domain, images in batch.items()}
        torch.testing.assert_close(
            {name: loss.cpu() for name, loss in there.step(on_cuda).losses.items()},
            here.step(batch).losses,
            rtol=1e-9,
            atol=1e-9,
        )
