"""Wrong blocks of kinds that are written more rarely, and for rules that break more rarely: with them every rule has one."""

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch
from _helpers.mutants import L1, MUTANTS, Generator, MeanDifference, broken_rules
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.blocks.losses import NLL
from gantoolkit.blocks.pools import HistoryPool
from gantoolkit.plugins import Phase
from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit.systems import SimGAN
from gantoolkit.testing import RULEBOOKS

Features = dict[str, Tensor]


class RunningMeans:
    """A healthy feature extractor: a layer is a scale."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return {layer: functional.avg_pool2d(images, int(layer)) for layer in layers}


class AnswersWithALayerLess(RunningMeans):
    """Forgets the last layer."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images, layers[:-1])


class CutsTheGraph(RunningMeans):
    """Looks without a graph."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images.detach(), layers)


class Learns(RunningMeans):
    """Has a weight that nobody froze."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.ones(()))

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images * self.weight.to(images), layers)


class CentersTheBatch(RunningMeans):
    """Takes the mean of the batch off."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images - images.mean(dim=0), layers)


class NormalizesInPlace(RunningMeans):
    """Uses the images as scratch paper."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        with torch.no_grad():
            images.mul_(0.5)
        return super().__call__(images, layers)


class LooksThroughNoise(RunningMeans):
    """Adds noise."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images + 0.1 * torch.randn_like(images), layers)


class ScalesOnTheCPU(RunningMeans):
    """Makes a tensor on a device of its own choice."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images * torch.full(images.shape, 0.5, device="cpu", dtype=images.dtype), layers)


FEATURE_EXTRACTORS = {
    RunningMeans: [],
    AnswersWithALayerLess: ["returns_every_layer"],
    CutsTheGraph: ["passes_gradients"],
    Learns: ["passes_gradients"],
    CentersTheBatch: ["is_batch_invariant", "passes_gradients"],
    NormalizesInPlace: ["does_not_modify_input", "is_deterministic", "is_batch_invariant"],
    LooksThroughNoise: ["is_deterministic", "is_batch_invariant"],
    ScalesOnTheCPU: ["supports_meta_device"],
}


class Descent(torch.optim.SGD):
    """A healthy optimizer."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, lr=0.01, momentum=0.5)


class Ascent(torch.optim.SGD):
    """Goes uphill."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, lr=0.01, maximize=True)


class KeepsItsRate(Descent):
    """Hears of no scheduler."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["lr"] = 0.01
        super().step(closure)


class ForgetsItsMoments(Descent):
    """Saves its settings only."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


OPTIMIZERS = {
    Descent: [],
    Ascent: ["decreases_loss"],
    KeepsItsRate: ["zero_lr_changes_nothing"],
    ForgetsItsMoments: ["restores_state"],
}


def healthy(*, cycle_weight: float = 5.0) -> Recipe:
    """CycleGAN with a smaller weight."""
    return cyclegan(cycle_weight=cycle_weight)


def wants_an_argument(*, cycle_weight: float) -> Recipe:
    """Has a parameter without a default."""
    return cyclegan(cycle_weight=cycle_weight)


_CALLS = itertools.count()


def is_another_each_time(*, seed: int = 0) -> Recipe:
    """Counts its calls."""
    return cyclegan(cycle_weight=float(next(_CALLS)))


def makes_a_table() -> dict[str, Any]:
    """Returns no recipe."""
    return {"name": "cyclegan"}


def does_not_fit() -> Recipe:
    """A generator that cannot take its crops."""
    return cyclegan(data={"load_size": 32, "crop_size": 30})


def names_nothing_that_a_file_can_say() -> Recipe:
    """A class that no registry knows."""
    return cyclegan(generator=Generator)


def comes_from_nowhere() -> Recipe:
    """Says that it is a change of what does not exist."""
    return cyclegan().swap(name="comes_from_nowhere", base="nowhere")


_ALL = ["callable_without_arguments", "passes_check", "round_trips_toml", "records_base"]
RECIPES = {
    healthy: [],
    wants_an_argument: _ALL,
    is_another_each_time: ["callable_without_arguments"],
    makes_a_table: _ALL,
    does_not_fit: ["passes_check"],
    names_nothing_that_a_file_can_say: ["round_trips_toml"],
    comes_from_nowhere: ["records_base", "round_trips_toml", "passes_check"],
}


class Pair(nn.Module):
    """A healthy coupled generator."""

    latent_size = 6

    def __init__(self, channels_A: int, channels_B: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.tied = nn.Linear(self.latent_size, 4)
        self.own_A, self.own_B = nn.Conv2d(4, channels_A, 1), nn.Conv2d(4, channels_B, 1)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        features = self.tied(latents)[:, :, None, None].expand(-1, -1, self.side, self.side)
        return self.own_A(features).tanh(), self.own_B(features).tanh()


class SwapsDomains(Pair):
    """Hands out B where A is wanted."""

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        images_A, images_B = super().forward(latents)
        return images_B, images_A


class ForgetsOneTanh(Pair):
    """Bounds the images of A only."""

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        images_A, images_B = super().forward(latents)
        return images_A, 3 * images_B


class Judges(nn.Module):
    """A healthy coupled discriminator."""

    def __init__(self, channels_A: int, channels_B: int, side: int) -> None:
        super().__init__()
        self.own_A, self.own_B = nn.Conv2d(channels_A, 4, 4, stride=4), nn.Conv2d(channels_B, 4, 4, stride=4)
        self.tied = nn.Conv2d(4, 1, 3)

    def forward(self, images_A: Tensor, images_B: Tensor) -> tuple[Tensor, Tensor]:
        return self.tied(self.own_A(images_A).relu()), self.tied(self.own_B(images_B).relu())


class JudgesOneDomain(Judges):
    """Adds both up."""

    def forward(self, images_A: Tensor, images_B: Tensor) -> Any:
        logits_A, logits_B = super().forward(images_A, images_B)
        return (logits_A + logits_B,)


class JudgesByProbabilities(Judges):
    """Ends in a sigmoid."""

    def forward(self, images_A: Tensor, images_B: Tensor) -> tuple[Tensor, Tensor]:
        logits_A, logits_B = super().forward(images_A, images_B)
        return logits_A.sigmoid(), logits_B.sigmoid()


COUPLED_GENERATORS = {Pair: [], SwapsDomains: ["renders_both_domains"], ForgetsOneTanh: ["rendering_is_in_range"]}
COUPLED_DISCRIMINATORS = {
    Judges: [],
    JudgesOneDomain: ["returns_logits_for_both_domains"],
    JudgesByProbabilities: ["returns_unbounded_logits"],
}


class MeasuresInSinglePrecision(L1):
    """Computes in float32 whatever comes."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return super().__call__(images.float(), targets.float())


class MeasuresByChance(L1):
    """Scales by a random number."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return super().__call__(images, targets) * (1 + 0.1 * torch.rand(()).item())


class WeighsOnTheCPU(L1):
    """Its weights are on a device of its own choice."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return super().__call__(images * torch.ones(images.shape, device="cpu", dtype=images.dtype), targets)


class PenalizesNobody(NLL):
    """A penalty without a gradient."""

    def penalty(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        return discriminator(real).detach().square().mean()


class PenalizesTheImages(NLL):
    """A penalty whose gradient reaches the images, and so the generator."""

    def penalty(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        return discriminator(fake).square().mean()


class ReturnsOnTheCPU(HistoryPool):
    """Makes what it returns on a device of its own choice."""

    def __call__(self, fakes: Tensor) -> Tensor:
        returned = super().__call__(fakes)
        return returned if returned.is_cpu else torch.zeros(fakes.shape, device="cpu")


class ComputesATensor(MeanDifference):
    """Computes tensors."""

    def compute(self) -> dict[str, Any]:
        return {name: torch.tensor(value) for name, value in super().compute().items()}


class CentersWhatItMeasures(MeanDifference):
    """Uses the images as scratch paper."""

    def update(self, images: Tensor, targets: Tensor) -> None:
        with torch.no_grad():
            images.mul_(0.5)
        super().update(images, targets)


class MeasuresASample(MeanDifference):
    """Looks at one image of the batch, drawn at random."""

    def update(self, images: Tensor, targets: Tensor) -> None:
        chosen = int(torch.randint(len(images), ()))
        super().update(images[chosen : chosen + 1], targets[chosen : chosen + 1] + 0.1 * torch.rand(()).item())


class NamesAPath(SimGAN):
    """A phase whose name is a path."""

    @property
    def phases(self) -> Sequence[Phase]:
        return self._phases

    @phases.setter
    def phases(self, phases: Sequence[Phase]) -> None:
        self._phases = [dataclasses.replace(phase, name=f"steps/{phase.name}") for phase in phases]


class TossesACoin(SimGAN):
    """Scales a loss by a random number that no seed reaches."""

    def generator_losses(self, batch: Mapping[str, Tensor], shared: dict[str, Tensor]) -> dict[str, Tensor]:
        scale = 1 + random.SystemRandom().random()
        return {name: scale * loss for name, loss in super().generator_losses(batch, shared).items()}


class Brighter(nn.Module):
    """A translation that has left [−1, 1]."""

    size_multiple = 1

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + 2


class TranslatesTooBrightly(SimGAN):
    """What translates is not what was trained."""

    @property
    def directions(self) -> Mapping[str, nn.Module]:
        return self._directions

    @directions.setter
    def directions(self, directions: Mapping[str, nn.Module]) -> None:
        self._directions = {direction: Brighter(network) for direction, network in directions.items()}


class ShowsFeatures(SimGAN):
    """Shows what is no image."""

    def sample(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: images.flatten(1) for name, images in super().sample(batch).items()}


class PeeksAtNumbers(SimGAN):
    """Decides by a value, which on meta is none."""

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if batch["A"].mean().item() > 2:
            raise ValueError("too bright")
        return super().forward(batch)


RARER: dict[str, Mapping[Callable[..., Any], list[str]]] = {
    "feature_extractors": FEATURE_EXTRACTORS,
    "optimizers": OPTIMIZERS,
    "recipes": RECIPES,
    "coupled_generators": COUPLED_GENERATORS,
    "coupled_discriminators": COUPLED_DISCRIMINATORS,
    "image_losses": {
        MeasuresInSinglePrecision: ["supports_float64_images"],
        MeasuresByChance: ["is_deterministic", "is_mean_over_images", "supports_float64_images"],
        WeighsOnTheCPU: ["follows_device_of_images"],
    },
    "adversarial_losses": {
        PenalizesNobody: ["penalizes_the_discriminator"],
        PenalizesTheImages: ["penalizes_the_discriminator"],
    },
    "image_pools": {ReturnsOnTheCPU: ["follows_device"]},
    "metrics": {
        ComputesATensor: ["returns_named_values"],
        CentersWhatItMeasures: [
            "does_not_modify_input",
            "is_batch_size_invariant",
            "reset_clears_state",
            "is_deterministic",
        ],
        MeasuresASample: [
            "is_deterministic",
            "is_batch_size_invariant",
            "reset_clears_state",
            "prefers_ground_truth",
        ],
    },
    "systems": {
        NamesAPath: ["declares_networks_and_phases"],
        TossesACoin: ["steps_are_deterministic", "resumes_exactly"],
        TranslatesTooBrightly: ["translates_every_direction"],
        ShowsFeatures: ["returns_samples"],
        PeeksAtNumbers: ["supports_meta_device"],
    },
}


@pytest.mark.parametrize(
    ("kind", "mutant"), [pytest.param(kind, mutant, id=mutant.__name__) for kind in RARER for mutant in RARER[kind]]
)
def test_each_breaks_the_rule_meant_for_it(kind: str, mutant: Callable[..., Any]) -> None:
    meant = RARER[kind][mutant]
    found = broken_rules(kind, mutant, layers=["1", "4"] if kind == "feature_extractors" else [])
    assert set(meant[:1]) <= set(found), found
    assert set(found) <= set(meant), {name: found[name] for name in found if name not in meant}


def test_every_rule_has_a_mutant() -> None:
    """By name: a rule of that name is one function for all the kinds that have it."""
    meant = {names[0] for table in (MUTANTS, RARER) for kind in table.values() for names in kind.values() if names}
    assert {rule.name for book in RULEBOOKS.values() for rule in book.rules} - meant == set()
