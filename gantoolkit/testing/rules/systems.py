"""Rules of systems: what the trainer, the checkpoints and the translator count on."""

from typing import Any, get_args

import torch
from torch import Tensor, nn

from gantoolkit.blocks.schedulers import Constant
from gantoolkit.errors import first_line
from gantoolkit.plugins import Direction, NetworkTraits, Pairing, System, SystemContext, read_traits
from gantoolkit.testing.kit import Draw, Rulebook, Subject, expect, same_randomness
from gantoolkit.testing.rules.common import add_schema_rule, agree, check_inputs_kept
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


def take_step(trainer: Trainer, batch: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    with same_randomness(number):  # as a run does
        result = trainer.step(batch, number)
    expect(result.skipped is None, f"a loss or a gradient of phase {result.skipped} is not finite")
    return result.losses


def last_number(system: System) -> int:
    """A step in which every phase is due."""
    return 0 if not system.phases else int(torch.tensor([phase.every for phase in system.phases]).prod())


@systems.rule
def declares_networks_and_phases(subject: Subject, draw: Draw) -> None:
    """`pairing`, `networks`, `phases`, `directions` and `pools` are there; phases have names of their own and train networks
    that exist, and names hold no '/', which paths in checkpoints are made with.
    """
    system = make_system(subject)
    expect(system.pairing in get_args(Pairing), f"pairing is {system.pairing!r}; known: {', '.join(get_args(Pairing))}")
    expect(bool(system.networks), "there are no networks")
    for name, network in system.networks.items():
        expect(isinstance(network, nn.Module), f"the network {name} is a {type(network).__name__}")
    names = [phase.name for phase in system.phases]
    expect(len(set(names)) == len(names), f"the phases are called {names}")
    for phase in system.phases:
        unknown = [name for name in phase.trains if name not in system.networks]
        expect(bool(phase.trains) and not unknown, f"phase {phase.name} trains {phase.trains}")
    expect(
        bool(system.directions) and set(system.directions) <= {"A2B", "B2A"}, f"directions: {list(system.directions)}"
    )
    slashed = [name for name in (*system.networks, *system.pools, *names) if "/" in name]
    expect(not slashed, f"{', '.join(slashed)} has a '/' in its name")


@systems.rule
def returns_named_scalars(subject: Subject, draw: Draw) -> None:
    """Each phase's losses are named, weighted scalars, and their sum has a gradient for every network that it trains."""
    system, batch = make_system(subject), draw_batch(subject, draw)
    shared = system.forward(batch)
    for phase in system.phases:
        terms = phase.losses(batch, shared)
        expect(bool(terms), f"phase {phase.name} has no losses")
        for name, term in terms.items():
            expect(term.ndim == 0, f"{phase.name}/{name} has shape {tuple(term.shape)} where a scalar is wanted")
            expect(bool(torch.isfinite(term)), f"{phase.name}/{name} is {term.item()}")
        total = torch.stack(list(terms.values())).sum()
        for name in phase.trains:
            learning = [parameter for parameter in system.networks[name].parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(total, learning, retain_graph=True, allow_unused=True)
            expect(
                any(gradient is not None for gradient in gradients), f"phase {phase.name} has no gradient for {name}"
            )


@systems.rule
def step_changes_trained_networks_only(subject: Subject, draw: Draw) -> None:
    """A step changes every network that a phase trains, no other, and nothing that is frozen."""
    system, batch = make_system(subject), draw_batch(subject, draw)
    before = {name: [p.detach().clone() for p in network.parameters()] for name, network in system.networks.items()}
    frozen = {name: [not p.requires_grad for p in network.parameters()] for name, network in system.networks.items()}
    take_step(make_trainer(system), batch, last_number(system))
    trained = {name for phase in system.phases for name in phase.trains}
    for name, network in system.networks.items():
        moved = [not torch.equal(now, then) for now, then in zip(network.parameters(), before[name], strict=True)]
        expect(any(moved) == (name in trained), f"{name} {'is as it was' if name in trained else 'changed'}")
        expect(
            not any(m and f for m, f in zip(moved, frozen[name], strict=True)), f"{name}: a frozen parameter changed"
        )


@systems.rule
def does_not_modify_batch(subject: Subject, draw: Draw) -> None:
    """The images of a batch are read and never changed in place."""
    system, batch = make_system(subject), draw_batch(subject, draw)
    trainer = make_trainer(system)
    check_inputs_kept(lambda *images: take_step(trainer, batch, last_number(system)), list(batch.values()))


@systems.rule
def resumes_exactly(subject: Subject, draw: Draw) -> None:
    """All that a step depends on is in networks, optimizers, pools, the seed of the step and its number: a system that is made
    anew and loads the state of another takes the same step.
    """
    batch, system, other = draw_batch(subject, draw), make_system(subject), make_system(subject, seed=5)
    first, second = last_number(system), 2 * last_number(system)
    trainer, resumed = make_trainer(system), make_trainer(other)
    take_step(trainer, batch, first)
    resumed.load_state_dict({name: tensor.clone() for name, tensor in trainer.state_dict().items()})
    flipped = {domain: images.flip(-1) for domain, images in batch.items()}
    here, there = take_step(trainer, flipped, second), take_step(resumed, flipped, second)
    apart = [name for name in here if not torch.equal(here[name], there[name])]
    expect(not apart, f"after loading the state, the next step's {', '.join(apart)} differs")
    states = trainer.state_dict(), resumed.state_dict()
    apart = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    expect(not apart, f"after loading the state and a step, {', '.join(apart[:3])} differs")


@systems.rule
def steps_are_deterministic(subject: Subject, draw: Draw) -> None:
    """Equal seeds and equal batches give equal losses."""
    batch = draw_batch(subject, draw)
    losses = [take_step(make_trainer(system), batch, 0) for system in (make_system(subject), make_system(subject))]
    expect(agree(losses[0], losses[1], relative=0), "two systems of one seed have different losses")


@systems.rule
def translates_every_direction(subject: Subject, draw: Draw) -> None:
    """Each direction turns images of its domain into finite images of the other one, of the same size, in [−1, 1]."""
    system, batch = make_system(subject), draw_batch(subject, draw)
    take_step(make_trainer(system), batch, 0)
    for direction, network in system.directions.items():
        made = look(network.eval(), batch[Direction(direction).source])
        expect(made.shape == batch[Direction(direction).target].shape, f"{direction} made shape {tuple(made.shape)}")
        expect(bool(torch.isfinite(made).all()), f"{direction} made values that are not finite")
        low, high = made.min().item(), made.max().item()
        expect(low >= -1.001 and high <= 1.001, f"{direction} made values from {low:.4g} to {high:.4g}")
        multiple = read_traits(network, NetworkTraits).size_multiple
        expect(isinstance(multiple, int) and multiple >= 1, f"the size_multiple of {direction} is {multiple!r}")


@systems.rule
def returns_samples(subject: Subject, draw: Draw) -> None:
    """`sample` returns images by name: as many of each as the batch has."""
    system, batch = make_system(subject), draw_batch(subject, draw)
    take_step(make_trainer(system), batch, 0)
    for network in (*system.networks.values(), *system.directions.values()):
        network.eval()
    samples = look(system.sample, batch)
    expect(bool(samples), "there are no samples")
    for name, images in samples.items():
        right = images.ndim == 4 and len(images) == len(batch["A"]) and images.shape[1] in (1, 3)
        expect(right, f"{name} has shape {tuple(images.shape)}")


@systems.rule
def supports_meta_device(subject: Subject, draw: Draw) -> None:
    """On the device `meta` it can be built and its losses computed: so a recipe is checked before anything is trained."""
    side = side_of(subject)
    with torch.device("meta"), same_randomness(0):
        system = subject.factory()(SystemContext(3, 3, 0, crop_size=side))
        batch = {domain: torch.zeros(2, 3, side, side) for domain in "AB"}
        try:
            shared = system.forward(batch)
            devices = {str(term.device) for phase in system.phases for term in phase.losses(batch, shared).values()}
        except RuntimeError as error:
            return expect(False, f"it raised: {first_line(error)}")
    return expect(devices <= {"meta"}, f"its losses lie on {', '.join(sorted(devices))}")


def look(call: Any, images: Any) -> Any:
    with torch.no_grad(), same_randomness(0):
        return call(images)
