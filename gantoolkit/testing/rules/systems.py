"""Rules of systems: what the trainer, the checkpoints and the translator rely on."""

from typing import Any, get_args

import torch
from torch import Tensor, nn

from gantoolkit.blocks.schedulers import Constant
from gantoolkit.errors import first_line
from gantoolkit.plugins import Direction, NetworkTraits, Pairing, System, SystemContext, read_traits
from gantoolkit.testing.kit import Draw, Rulebook, Subject, expect, same_randomness
from gantoolkit.testing.rules.common import add_schema_rule, all_close, check_inputs_unchanged
from gantoolkit.testing.strategies import image_pairs
from gantoolkit.training import Trainer

__all__ = ["systems"]

systems = Rulebook("systems", examples=4)
add_schema_rule(systems)

_SIDE = 32


def make_system(subject: Subject, seed: int = 0) -> System:
    system = subject.make(SystemContext(3, 3, seed, crop_size=side_of(subject)), seed=seed)
    for network in system.networks.values():
        network.to(subject.device).train()
    return system


def side_of(subject: Subject) -> int:
    return subject.sizes[0] if subject.sizes else _SIDE


def draw_batch(subject: Subject, draw: Draw) -> dict[str, Tensor]:
    side = side_of(subject)
    real_A, real_B = draw(image_pairs(sizes=(side,), max_count=2), "(A, B)")
    return {"A": real_A.to(subject.device), "B": real_B.to(subject.device)}


def make_trainer(system: System) -> Trainer:
    trainer = Trainer(system, optimizer=lambda p: torch.optim.Adam(p, lr=1e-3), scheduler=Constant(), epochs=1)
    trainer.begin_epoch(0)
    return trainer


def take_step(trainer: Trainer, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    with same_randomness(step):  # as a run does
        result = trainer.step(batch, step)
    expect(result.skipped is None, f"phase {result.skipped} has a non-finite loss or gradient")
    return result.losses


def full_step(system: System) -> int:
    """The index of a step in which every phase runs."""
    return 0 if not system.phases else int(torch.tensor([phase.every for phase in system.phases]).prod())


@systems.rule
def declares_networks_and_phases(subject: Subject, draw: Draw) -> None:
    """The system has `pairing`, `networks`, `phases`, `directions` and `pools`. Phases have unique names and train existing
    networks. No name contains '/', the separator in checkpoints.
    """
    system = make_system(subject)
    expect(
        system.pairing in get_args(Pairing),
        f"pairing is {system.pairing!r}; known: {', '.join(get_args(Pairing))}",
    )
    expect(bool(system.networks), "there are no networks")
    for name, network in system.networks.items():
        expect(isinstance(network, nn.Module), f"the network {name} is a {type(network).__name__}")
    names = [phase.name for phase in system.phases]
    expect(len(set(names)) == len(names), f"the names of the phases are not unique: {names}")
    for phase in system.phases:
        unknown = [name for name in phase.trains if name not in system.networks]
        expect(bool(phase.trains) and not unknown, f"phase {phase.name} trains {phase.trains}")
    expect(
        bool(system.directions) and set(system.directions) <= {"A2B", "B2A"},
        f"directions are {list(system.directions)}",
    )
    slashed = [name for name in (*system.networks, *system.pools, *names) if "/" in name]
    expect(not slashed, f"{', '.join(slashed)} has a '/' in its name")


@systems.rule
def returns_named_scalars(subject: Subject, draw: Draw) -> None:
    """The losses of a phase are named, weighted scalars, none of them named `total`, which is the logged name of their sum. The
    sum has a gradient for every network that the phase trains.
    """
    system, batch = make_system(subject), draw_batch(subject, draw)
    shared = system.forward(batch)
    for phase in system.phases:
        terms = phase.losses(batch, shared)
        expect(bool(terms), f"phase {phase.name} has no losses")
        expect("total" not in terms, f"a loss of phase {phase.name} is named 'total'")
        for name, term in terms.items():
            expect(term.ndim == 0, f"{phase.name}/{name} has shape {tuple(term.shape)}, expected a scalar")
            expect(bool(torch.isfinite(term)), f"{phase.name}/{name} is {term.item()}")
        total = torch.stack(list(terms.values())).sum()
        for name in phase.trains:
            parameters = [parameter for parameter in system.networks[name].parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
            expect(
                any(gradient is not None for gradient in gradients), f"phase {phase.name} has no gradient for {name}"
            )


@systems.rule
def updates_only_trained_networks(subject: Subject, draw: Draw) -> None:
    """A step updates every network that a phase trains, no other network, and no frozen parameter."""
    system, batch = make_system(subject), draw_batch(subject, draw)
    before = {name: [p.detach().clone() for p in network.parameters()] for name, network in system.networks.items()}
    frozen = {name: [not p.requires_grad for p in network.parameters()] for name, network in system.networks.items()}
    take_step(make_trainer(system), batch, full_step(system))
    trained = {name for phase in system.phases for name in phase.trains}
    for name, network in system.networks.items():
        moved = [not torch.equal(now, then) for now, then in zip(network.parameters(), before[name], strict=True)]
        expect(any(moved) == (name in trained), f"{name} {'is unchanged' if name in trained else 'changed'}")
        expect(
            not any(m and f for m, f in zip(moved, frozen[name], strict=True)), f"{name}: a frozen parameter changed"
        )


@systems.rule
def does_not_modify_input(subject: Subject, draw: Draw) -> None:
    """The images of a batch are not changed in place."""
    system, batch = make_system(subject), draw_batch(subject, draw)
    trainer = make_trainer(system)
    check_inputs_unchanged(lambda *images: take_step(trainer, batch, full_step(system)), list(batch.values()))


@systems.rule
def resumes_exactly(subject: Subject, draw: Draw) -> None:
    """A step depends only on its index, its seed, and the state of networks, optimizers and pools: another system that loads
    this state takes the same step.
    """
    batch, system, other = draw_batch(subject, draw), make_system(subject), make_system(subject, seed=5)
    first, second = full_step(system), 2 * full_step(system)
    trainer, resumed = make_trainer(system), make_trainer(other)
    take_step(trainer, batch, first)
    resumed.load_state_dict({name: tensor.clone() for name, tensor in trainer.state_dict().items()})
    flipped = {domain: images.flip(-1) for domain, images in batch.items()}
    expected_losses, losses = take_step(trainer, flipped, second), take_step(resumed, flipped, second)
    different = [name for name in losses if not torch.equal(losses[name], expected_losses[name])]
    expect(not different, f"in the first step after loading the state, the loss {', '.join(different)} differs")
    states = trainer.state_dict(), resumed.state_dict()
    different = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    expect(not different, f"after loading the state and taking a step, {', '.join(different[:3])} differs")


@systems.rule
def is_deterministic(subject: Subject, draw: Draw) -> None:
    """Equal seeds and equal batches give equal losses."""
    batch = draw_batch(subject, draw)
    losses = [take_step(make_trainer(system), batch, 0) for system in (make_system(subject), make_system(subject))]
    expect(all_close(losses[0], losses[1], relative=0), "two systems with the same seed have different losses")


@systems.rule
def translates_every_direction(subject: Subject, draw: Draw) -> None:
    """Each direction translates images of its source domain to finite images of its target domain, of the same size and in
    [−1, 1].
    """
    system, batch = make_system(subject), draw_batch(subject, draw)
    take_step(make_trainer(system), batch, 0)
    for direction, network in system.directions.items():
        images = call_without_grad(network.eval(), batch[Direction(direction).source])
        shape = tuple(images.shape)
        expect(shape == batch[Direction(direction).target].shape, f"{direction} returned shape {shape}")
        expect(bool(torch.isfinite(images).all()), f"{direction} returned non-finite values")
        low, high = images.min().item(), images.max().item()
        expect(low >= -1.001 and high <= 1.001, f"{direction} returned values from {low:.4g} to {high:.4g}")
        multiple = read_traits(network, NetworkTraits).size_multiple
        expect(isinstance(multiple, int) and multiple >= 1, f"size_multiple of {direction} is {multiple!r}")


@systems.rule
def returns_samples(subject: Subject, draw: Draw) -> None:
    """`sample` returns a mapping from names to images, with as many images as the batch has under each name."""
    system, batch = make_system(subject), draw_batch(subject, draw)
    take_step(make_trainer(system), batch, 0)
    for network in (*system.networks.values(), *system.directions.values()):
        network.eval()
    samples = call_without_grad(system.sample, batch)
    expect(bool(samples), "there are no samples")
    for name, images in samples.items():
        fits = images.ndim == 4 and len(images) == len(batch["A"]) and images.shape[1] in (1, 3)
        expect(fits, f"{name} has shape {tuple(images.shape)}")


@systems.rule
def supports_meta_device(subject: Subject, draw: Draw) -> None:
    """The system can be built, and its losses computed, on the meta device, where recipes are checked before training."""
    side = side_of(subject)
    with torch.device("meta"), same_randomness(0):
        system = subject.factory()(SystemContext(3, 3, 0, crop_size=side))
        batch = {domain: torch.zeros(2, 3, side, side) for domain in "AB"}
        try:
            shared = system.forward(batch)
            devices = {str(term.device) for phase in system.phases for term in phase.losses(batch, shared).values()}
        except RuntimeError as error:
            return expect(False, f"it raised: {first_line(error)}")
    return expect(devices <= {"meta"}, f"its losses are on {', '.join(sorted(devices))}")


def call_without_grad(call: Any, images: Any) -> Any:
    with torch.no_grad(), same_randomness(0):
        return call(images)
