"""Deliberately wrong blocks of less common kinds, and for rules that break less often; see `mutants`."""

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from _helpers.mutants import L1, Generator, MeanDifference
from gantoolkit.blocks.losses import NLL
from gantoolkit.blocks.pools import HistoryPool
from gantoolkit.plugins import Phase
from gantoolkit.recipes import Recipe, cyclegan
from gantoolkit.systems import SimGAN

Features = dict[str, Tensor]


class RunningMeans:
    """A correct feature extractor: a layer's name is the window of a running mean."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return {layer: functional.avg_pool2d(images, int(layer)) for layer in layers}


class OmitsTheLastLayer(RunningMeans):
    """Does not return the last layer."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images, layers[:-1])


class DetachesImages(RunningMeans):
    """Detaches the images."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images.detach(), layers)


class HasATrainableWeight(RunningMeans):
    """Has a weight that is not frozen."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.ones(()))

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images * self.weight.to(images), layers)


class CentersTheBatch(RunningMeans):
    """Subtracts the mean of the batch."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images - images.mean(dim=0), layers)


class NormalizesInPlace(RunningMeans):
    """Modifies the images in place."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        with torch.no_grad():
            images.mul_(0.5)
        return super().__call__(images, layers)


class AddsNoise(RunningMeans):
    """Adds noise to the images."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images + 0.1 * torch.randn_like(images), layers)


class ScalesOnTheCPU(RunningMeans):
    """Creates a tensor on the CPU, whatever the device of the images."""

    def __call__(self, images: Tensor, layers: Sequence[str]) -> Features:
        return super().__call__(images * torch.full(images.shape, 0.5, device="cpu", dtype=images.dtype), layers)


FEATURE_EXTRACTORS = {
    RunningMeans: [],
    OmitsTheLastLayer: ["returns_every_layer"],
    DetachesImages: ["passes_gradients"],
    HasATrainableWeight: ["passes_gradients"],
    CentersTheBatch: ["is_batch_invariant", "passes_gradients"],
    NormalizesInPlace: ["does_not_modify_input", "is_deterministic", "is_batch_invariant"],
    AddsNoise: ["is_deterministic", "is_batch_invariant"],
    ScalesOnTheCPU: ["is_device_agnostic"],
}


class Descent(torch.optim.SGD):
    """A correct optimizer."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, lr=0.01, momentum=0.5)


class Ascent(torch.optim.SGD):
    """Maximizes the loss."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, lr=0.01, maximize=True)


class IgnoresSchedulers(Descent):
    """Resets its learning rate in every step."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["lr"] = 0.01
        super().step(closure)


class DoesNotSaveItsMoments(Descent):
    """Saves only its settings."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


OPTIMIZERS = {
    Descent: [],
    Ascent: ["decreases_loss"],
    IgnoresSchedulers: ["zero_lr_changes_nothing"],
    DoesNotSaveItsMoments: ["restores_state"],
}


def correct_recipe(*, cycle_weight: float = 5.0) -> Recipe:
    """CycleGAN with a smaller weight."""
    return cyclegan(cycle_weight=cycle_weight)


def requires_an_argument(*, cycle_weight: float) -> Recipe:
    """Has a parameter without a default."""
    return cyclegan(cycle_weight=cycle_weight)


_CALLS = itertools.count()


def depends_on_its_calls(*, seed: int = 0) -> Recipe:
    """Returns a different recipe for every call."""
    return cyclegan(cycle_weight=float(next(_CALLS)))


def returns_a_table() -> dict[str, Any]:
    """Returns a dictionary."""
    return {"name": "cyclegan"}


def has_an_invalid_crop_size() -> Recipe:
    """Has crops of a size that its generator does not accept."""
    return cyclegan(data={"load_size": 32, "crop_size": 30})


def contains_a_class() -> Recipe:
    """Contains a class that is not registered, which TOML cannot express."""
    return cyclegan(generator=Generator)


def has_an_unknown_base() -> Recipe:
    """Names a base that does not exist."""
    return cyclegan().swap(name="has_an_unknown_base", base="nowhere")


_ALL = ["is_callable_without_arguments", "passes_check", "round_trips_through_toml", "records_base"]
RECIPES = {
    correct_recipe: [],
    requires_an_argument: _ALL,
    depends_on_its_calls: ["is_callable_without_arguments"],
    returns_a_table: _ALL,
    has_an_invalid_crop_size: ["passes_check"],
    contains_a_class: ["round_trips_through_toml"],
    has_an_unknown_base: ["records_base", "round_trips_through_toml", "passes_check"],
}


class Pair(nn.Module):
    """A correct coupled generator."""

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
    """Returns the images of both domains in the wrong order."""

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        images_A, images_B = super().forward(latents)
        return images_B, images_A


class OmitsOneTanh(Pair):
    """Bounds only the images of A."""

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        images_A, images_B = super().forward(latents)
        return images_A, 3 * images_B


class Discriminators(nn.Module):
    """A correct coupled discriminator."""

    def __init__(self, channels_A: int, channels_B: int, side: int) -> None:
        super().__init__()
        self.own_A, self.own_B = nn.Conv2d(channels_A, 4, 4, stride=4), nn.Conv2d(channels_B, 4, 4, stride=4)
        self.tied = nn.Conv2d(4, 1, 3)

    def forward(self, images_A: Tensor, images_B: Tensor) -> tuple[Tensor, Tensor]:
        return self.tied(self.own_A(images_A).relu()), self.tied(self.own_B(images_B).relu())


class ReturnsOneTensor(Discriminators):
    """Returns the sum of both logits."""

    def forward(self, images_A: Tensor, images_B: Tensor) -> Any:
        logits_A, logits_B = super().forward(images_A, images_B)
        return (logits_A + logits_B,)


class ReturnsTwoProbabilities(Discriminators):
    """Ends in a sigmoid."""

    def forward(self, images_A: Tensor, images_B: Tensor) -> tuple[Tensor, Tensor]:
        logits_A, logits_B = super().forward(images_A, images_B)
        return logits_A.sigmoid(), logits_B.sigmoid()


COUPLED_GENERATORS = {Pair: [], SwapsDomains: ["renders_both_domains"], OmitsOneTanh: ["output_is_in_range"]}
COUPLED_DISCRIMINATORS = {
    Discriminators: [],
    ReturnsOneTensor: ["returns_logits_for_both_domains"],
    ReturnsTwoProbabilities: ["returns_unbounded_logits"],
}


class MeasuresInSinglePrecision(L1):
    """Computes in float32 for every dtype."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return super().__call__(images.float(), targets.float())


class MeasuresAtRandom(L1):
    """Scales by a random number."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return super().__call__(images, targets) * (1 + 0.1 * torch.rand(()).item())


class WeighsOnTheCPU(L1):
    """Creates its weights on the CPU, whatever the device of the images."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return super().__call__(images * torch.ones(images.shape, device="cpu", dtype=images.dtype), targets)


class PenaltyWithoutGradient(NLL):
    """Its penalty has no gradient."""

    def penalty(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        return discriminator(real).detach().square().mean()


class PenaltyOfTheImages(NLL):
    """The gradient of its penalty reaches the images, and so the generator."""

    def penalty(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        return discriminator(fake).square().mean()


class ReturnsOnTheCPU(HistoryPool):
    """Returns images on the CPU, whatever the device of the batch."""

    def __call__(self, fakes: Tensor) -> Tensor:
        returned = super().__call__(fakes)
        return returned if returned.is_cpu else torch.zeros(fakes.shape, device="cpu")


class ComputesATensor(MeanDifference):
    """Returns tensors in place of floats."""

    def compute(self) -> dict[str, Any]:
        return {name: torch.tensor(value) for name, value in super().compute().items()}


class ScalesImagesInPlace(MeanDifference):
    """Modifies the images in place."""

    def update(self, images: Tensor, targets: Tensor) -> None:
        with torch.no_grad():
            images.mul_(0.5)
        super().update(images, targets)


class MeasuresASample(MeanDifference):
    """Measures one image of the batch, drawn at random."""

    def update(self, images: Tensor, targets: Tensor) -> None:
        index = int(torch.randint(len(images), ()))
        super().update(images[index : index + 1], targets[index : index + 1] + 0.1 * torch.rand(()).item())


class NamesAPath(SimGAN):
    """Has phases with a '/' in their names."""

    @property
    def phases(self) -> Sequence[Phase]:
        return self._phases

    @phases.setter
    def phases(self, phases: Sequence[Phase]) -> None:
        self._phases = [dataclasses.replace(phase, name=f"steps/{phase.name}") for phase in phases]


class ScalesAtRandom(SimGAN):
    """Scales a loss by a random number that does not depend on a seed."""

    def generator_losses(self, batch: Mapping[str, Tensor], shared: dict[str, Tensor]) -> dict[str, Tensor]:
        scale = 1 + random.SystemRandom().random()
        return {name: scale * loss for name, loss in super().generator_losses(batch, shared).items()}


class Brighter(nn.Module):
    """Translates to images outside of [−1, 1]."""

    size_multiple = 1

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + 2


class TranslatesTooBrightly(SimGAN):
    """Translates with other networks than those that it trains."""

    @property
    def directions(self) -> Mapping[str, nn.Module]:
        return self._directions

    @directions.setter
    def directions(self, directions: Mapping[str, nn.Module]) -> None:
        self._directions = {direction: Brighter(network) for direction, network in directions.items()}


class SamplesVectors(SimGAN):
    """Returns samples that are not images."""

    def sample(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: images.flatten(1) for name, images in super().sample(batch).items()}


class DependsOnValues(SimGAN):
    """Branches on a value, which does not exist on the meta device."""

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if batch["A"].mean().item() > 2:
            raise ValueError("too bright")
        return super().forward(batch)


RARE_MUTANTS: dict[str, Mapping[Callable[..., Any], list[str]]] = {
    "feature_extractors": FEATURE_EXTRACTORS,
    "optimizers": OPTIMIZERS,
    "recipes": RECIPES,
    "coupled_generators": COUPLED_GENERATORS,
    "coupled_discriminators": COUPLED_DISCRIMINATORS,
    "image_losses": {
        MeasuresInSinglePrecision: ["supports_float64"],
        MeasuresAtRandom: ["is_deterministic", "is_mean_over_images", "supports_float64"],
        WeighsOnTheCPU: ["is_device_agnostic"],
    },
    "adversarial_losses": {
        PenaltyWithoutGradient: ["penalizes_discriminator_only"],
        PenaltyOfTheImages: ["penalizes_discriminator_only"],
    },
    "image_pools": {ReturnsOnTheCPU: ["is_device_agnostic"]},
    "metrics": {
        ComputesATensor: ["returns_named_values"],
        ScalesImagesInPlace: [
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
            "states_units",
        ],
    },
    "systems": {
        NamesAPath: ["declares_networks_and_phases"],
        ScalesAtRandom: ["is_deterministic", "resumes_exactly"],
        TranslatesTooBrightly: ["translates_every_direction"],
        SamplesVectors: ["returns_samples"],
        DependsOnValues: ["supports_meta_device"],
    },
}
