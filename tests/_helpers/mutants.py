"""Deliberately wrong blocks, with the names of the rules that each of them breaks; the first one covers its mistake.

Blocks without such names are correct.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.blocks.losses import NLL
from gantoolkit.blocks.pools import HistoryPool
from gantoolkit.plugins import PIXEL_VALUES
from gantoolkit.recipes import BlockSpec
from gantoolkit.systems import SimGAN
from gantoolkit.testing import RULEBOOKS, Subject


def broken_rules(kind: str, block: Any, layers: Sequence[str] = ()) -> dict[str, str]:
    """The messages of the rules that a block breaks, by name."""
    subject = Subject(kind, BlockSpec.of(block), layers=layers)
    outcomes = [rule.run(subject) for rule in RULEBOOKS[kind].rules]
    return {outcome.rule.name: outcome.message for outcome in outcomes if outcome.state == "failed"}


class Generator(nn.Module):
    """A correct generator."""

    size_multiple = 1

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.last = nn.Conv2d(4, out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.last(functional.leaky_relu(self.first(images))))


class ScalesItsWeights(Generator):
    """Says that its weights may be rounded in advance, but computes with them."""

    narrow_weights = True

    def forward(self, images: Tensor) -> Tensor:
        weight = self.first.weight / 3
        return torch.tanh(self.last(functional.conv2d(images, weight, self.first.bias, padding=1)))


class ComputesInFloat32UnderAutocast(Generator):
    """Says that its weights may be rounded in advance, but disables autocast."""

    narrow_weights = True

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(images)


class OffByOne(Generator):
    """Drops the last column."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[..., :-1]


class ChangesItsInput(Generator):
    """Centers its input in place."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.sub_(images.mean().item()))


class NormalizesOverTheBatch(Generator):
    """Subtracts the mean of the batch, in evaluation mode too."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(dim=0, keepdim=True))


class Unbounded(Generator):
    """Has no final activation."""

    def forward(self, images: Tensor) -> Tensor:
        return self.last(functional.leaky_relu(self.first(images)))


class DoesNotSaveItsState(Generator):
    """Counts its training steps in a plain attribute."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.steps = 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        return super().forward(images) * min(1.0, 0.1 * self.steps)


class AddsNoise(Generator):
    """Adds noise in evaluation mode too."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 0.1 * torch.randn_like(images))


class FlipsAtRandom(Generator):
    """Flips half of its images, drawn from Python's random generator."""

    def forward(self, images: Tensor) -> Tensor:
        translations = super().forward(images)
        return translations.flip(-1) if random.random() < 0.5 else translations


class HasAnUnusedLayer(Generator):
    """Has a layer that it does not use."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.unused = nn.Conv2d(4, 4, 1)


class StopsTheGradient(Generator):
    """Detaches the features, so that the first layer is not trained."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.last(functional.leaky_relu(self.first(images).detach())))


class ComputesInFloat32(Generator):
    """Computes in float32 for every dtype."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).float().to(images.dtype)


class ReturnsFloat32(Generator):
    """Returns float32 for every dtype."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).float()


class UsesTheCPU(Generator):
    """Creates a tensor on the CPU, whatever the device of its input."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * torch.ones(1, device="cpu", dtype=images.dtype)


class UsesCUDA(Generator):
    """Creates a tensor on CUDA, whatever the device of its input."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * torch.ones(1, device="cuda", dtype=images.dtype)


class HasNoSizeMultiple(Generator):
    """Does not declare which sizes it accepts."""

    size_multiple = None


class AcceptsAnyKeyword(Generator):
    """Accepts any keyword argument.

    Args:
        width: Not used.
    """

    def __init__(self, in_channels: int, out_channels: int, *, width: int = 4, **more: int) -> None:
        super().__init__(in_channels, out_channels)


class HasAnUndocumentedParameter(Generator):
    """Has a parameter without a line under Args."""

    def __init__(self, in_channels: int, out_channels: int, *, width: int = 4) -> None:
        super().__init__(in_channels, out_channels)


GENERATORS = {
    Generator: [],
    ScalesItsWeights: ["allows_narrow_weights"],
    ComputesInFloat32UnderAutocast: ["allows_narrow_weights"],
    OffByOne: ["preserves_size"],
    ChangesItsInput: ["does_not_modify_input", "is_batch_invariant", "is_deterministic", "supports_float64"],
    NormalizesOverTheBatch: ["is_batch_invariant"],
    Unbounded: ["output_is_in_range"],
    DoesNotSaveItsState: ["restores_state"],
    AddsNoise: ["is_batch_invariant", "is_deterministic", "supports_float64"],
    FlipsAtRandom: ["is_deterministic", "supports_float64", "is_batch_invariant"],
    HasAnUnusedLayer: ["trains_every_parameter"],
    StopsTheGradient: ["trains_every_parameter", "supports_float64"],
    ComputesInFloat32: ["supports_float64"],
    ReturnsFloat32: ["supports_float64"],
    UsesTheCPU: ["is_device_agnostic"],
    UsesCUDA: ["is_device_agnostic", *(rule.name for rule in RULEBOOKS["generators"].rules)],
    HasNoSizeMultiple: ["declares_size_multiple"],
    AcceptsAnyKeyword: ["documents_parameters", *(rule.name for rule in RULEBOOKS["generators"].rules)],
    HasAnUndocumentedParameter: ["documents_parameters"],
}


class Discriminator(nn.Module):
    """A correct discriminator."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(in_channels, 4, 4, stride=2), nn.Conv2d(4, 1, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(functional.leaky_relu(self.first(images)))


class ReturnsProbabilities(Discriminator):
    """Ends in a sigmoid."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).sigmoid()


class ReturnsBoundedLogits(Discriminator):
    """Ends in a hyperbolic tangent."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).tanh()


class ReturnsOneNumber(Discriminator):
    """Returns the mean of its logits."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).flatten(1).mean(dim=1)


class ComparesWithTheBatch(Discriminator):
    """Adds the standard deviation over the batch, in evaluation mode too."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + images.std(dim=0, correction=0).mean()


class AdaptsWithoutSaving(Discriminator):
    """Adapts to its logits, with its state in a plain attribute."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.strength = 0.0

    def observe(self, real: Tensor, fake: Tensor) -> None:
        self.strength += 0.1

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * (1 - self.strength))


DISCRIMINATORS = {
    Discriminator: [],
    ReturnsProbabilities: ["returns_unbounded_logits"],
    ReturnsBoundedLogits: ["returns_unbounded_logits"],
    ReturnsOneNumber: ["returns_one_channel"],
    ComparesWithTheBatch: ["is_batch_invariant"],
    AdaptsWithoutSaving: ["restores_state"],
}


class SigmoidFirst(NLL):
    """Passes logits through a sigmoid before the loss does."""

    def real(self, logits: Tensor) -> Tensor:
        return super().real(logits.sigmoid())

    def fake(self, logits: Tensor) -> Tensor:
        return super().fake(logits.sigmoid())

    def generator(self, logits: Tensor) -> Tensor:
        return super().real(logits.sigmoid())


class Sums(NLL):
    """Returns the sum over all logits."""

    def real(self, logits: Tensor) -> Tensor:
        return functional.softplus(-logits).sum()


class SumsOverPatches(NLL):
    """Returns the sum over patches, averaged over images."""

    def fake(self, logits: Tensor) -> Tensor:
        return functional.softplus(logits).flatten(1).sum(dim=1).mean()


class SwapsTargets(NLL):
    """Swaps the targets of real images and fakes."""

    def real(self, logits: Tensor) -> Tensor:
        return super().fake(logits)

    def fake(self, logits: Tensor) -> Tensor:
        return super().real(logits)


class GeneratorHelpsTheDiscriminator(NLL):
    """The generator minimizes the discriminator's loss on fakes."""

    def generator(self, logits: Tensor) -> Tensor:
        return self.fake(logits)


class Saturates(NLL):
    """Uses the minimax form log(1 − D), which saturates."""

    def generator(self, logits: Tensor) -> Tensor:
        return -super().fake(logits)


class Overflows(NLL):
    """Computes an exponential that overflows in float32."""

    def real(self, logits: Tensor) -> Tensor:
        return torch.log(1 + torch.exp(-logits)).mean()


class ClampsInPlace(NLL):
    """Clamps its logits in place."""

    def real(self, logits: Tensor) -> Tensor:
        return functional.softplus(-logits.data.clamp_(-5, 5) + 0 * logits).mean()


class SmoothsAtRandom(NLL):
    """Smooths labels at random, from the global generator."""

    def real(self, logits: Tensor) -> Tensor:
        return super().real(logits - 0.1 * torch.rand((), dtype=logits.dtype))


class RoundsToFloat32(NLL):
    """Rounds its logits to float32."""

    def real(self, logits: Tensor) -> Tensor:
        return super().real(logits.float()).to(logits.dtype)


class HasATargetOnTheCPU(NLL):
    """Creates its target on the CPU, whatever the device of the logits."""

    def real(self, logits: Tensor) -> Tensor:
        target = torch.ones(logits.shape, device="cpu", dtype=logits.dtype)
        return functional.binary_cross_entropy_with_logits(logits, target)


ADVERSARIAL_LOSSES = {
    NLL: [],
    SigmoidFirst: ["has_gradient_for_confident_errors"],
    Sums: ["is_mean_over_logits"],
    SumsOverPatches: ["is_mean_over_logits"],
    SwapsTargets: ["ranks_real_above_fake", "has_gradient_for_confident_errors"],
    GeneratorHelpsTheDiscriminator: ["ranks_real_above_fake", "has_gradient_for_confident_errors"],
    Saturates: ["has_gradient_for_confident_errors"],
    Overflows: ["returns_finite_scalars"],
    ClampsInPlace: ["does_not_modify_input", "supports_float64", "has_gradient_for_confident_errors"],
    SmoothsAtRandom: ["is_deterministic", "is_mean_over_logits", "supports_float64"],
    RoundsToFloat32: ["supports_float64", "is_mean_over_logits"],
    HasATargetOnTheCPU: ["is_device_agnostic"],
}


class L1:
    """A correct distance."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).abs().mean()


class SumsOverImages(L1):
    """Returns the mean over pixels, summed over images."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).abs().flatten(1).mean(dim=1).sum()


class IsSigned(L1):
    """Omits the absolute value."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).mean()


class TakesARoot(L1):
    """Has an infinite gradient for equal images."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).square().mean().sqrt()


class SubtractsInPlace(L1):
    """Modifies the images in place."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return super().__call__(images, targets) + 0 * images.data.mul_(0.5).sum()


IMAGE_LOSSES = {
    L1: [],
    SumsOverImages: ["is_mean_over_images"],
    IsSigned: ["is_distance"],
    TakesARoot: ["has_finite_gradient_at_zero"],
    SubtractsInPlace: [
        "does_not_modify_input",
        "is_mean_over_images",
        "is_distance",
        "supports_float64",
        "is_deterministic",
    ],
}


class OneByOne:
    """A correct pool that decides for one image at a time, so that a subclass can change one part of it."""

    def __init__(self, generator: torch.Generator, *, size: Annotated[int, Field(ge=0)] = 50) -> None:
        """Create an empty pool.

        Args:
            size: The number of stored images.
        """
        self.size, self.generator = size, generator
        self.images: list[Tensor] = []

    def __call__(self, fakes: Tensor) -> Tensor:
        fakes = fakes.detach()
        return torch.stack([self._exchange(image) for image in fakes]) if self.size else fakes

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        if torch.rand((), generator=self.generator, device="cpu") < 0.5:
            return image
        index = int(torch.randint(self.size, (), generator=self.generator, device="cpu"))
        earlier, self.images[index] = self.images[index], image.clone()
        return earlier

    def state_dict(self) -> dict[str, Tensor]:
        images = {f"image/{index}": image for index, image in enumerate(self.images)}
        return {"generator": self.generator.get_state(), **images}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.generator.set_state(state["generator"].cpu())
        self.images = [state[f"image/{index}"] for index in range(len(state) - 1)]


class NeverReturnsOldImages(OneByOne):
    """Stores images, and always returns the new ones."""

    def __call__(self, fakes: Tensor) -> Tensor:
        super().__call__(fakes)
        return fakes.detach()


class NeverReturnsNewImages(OneByOne):
    """Returns only old images once it is full."""

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < 5:
            return super()._exchange(image)
        return self.images[int(torch.randint(5, (), generator=self.generator))]


class KeepsTheGraph(OneByOne):
    """Stores images with their graph."""

    def __call__(self, fakes: Tensor) -> Tensor:
        self.last = fakes
        return super().__call__(fakes)


class PassesTheGradient(OneByOne):
    """Returns images with their graph."""

    def __call__(self, fakes: Tensor) -> Tensor:
        return torch.stack([self._exchange(image) for image in fakes])


class StoresViews(OneByOne):
    """Stores views of the batch."""

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < 5:
            self.images.append(image)
            return image.clone()
        return self.images[0].clone() if torch.rand((), generator=self.generator) < 0.5 else image


class SavesOnlyImages(OneByOne):
    """Does not save the state of its random generator."""

    def state_dict(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in super().state_dict().items() if name != "generator"}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.images = list(state.values())


class DrawsFromTheGlobalGenerator(OneByOne):
    """Draws from the global generator."""

    def _exchange(self, image: Tensor) -> Tensor:
        self.generator = torch.default_generator
        return super()._exchange(image)


class BlendsImages(OneByOne):
    """Returns means of two images."""

    def __call__(self, fakes: Tensor) -> Tensor:
        return 0.5 * (super().__call__(fakes) + fakes.detach())


IMAGE_POOLS = {
    HistoryPool: [],
    OneByOne: [],
    NeverReturnsOldImages: ["returns_old_images"],
    NeverReturnsNewImages: ["returns_new_images"],
    KeepsTheGraph: ["detaches_images"],
    PassesTheGradient: ["detaches_images"],
    StoresViews: ["stores_copies"],
    SavesOnlyImages: ["restores_state"],
    DrawsFromTheGlobalGenerator: ["uses_only_its_generator", "restores_state"],
    BlendsImages: ["returns_only_given_images"],
}


class Linear:
    """A correct schedule."""

    def multiplier(self, epoch: int, epochs: int) -> float:
        return max(0.0, 1 - epoch / epochs)


class GoesNegative(Linear):
    """Falls below zero."""

    def multiplier(self, epoch: int, epochs: int) -> float:
        return 1 - epoch / max(1, epochs - 1)


class IsZeroFromTheStart(Linear):
    """Is zero throughout a run of one epoch."""

    def multiplier(self, epoch: int, epochs: int) -> float:
        return max(0.0, 1 - (epoch + 1) / epochs)


class CountsItsCalls(Linear):
    """Decays with every call."""

    def __init__(self) -> None:
        self.calls = 0

    def multiplier(self, epoch: int, epochs: int) -> float:
        self.calls += 1
        return 1 / self.calls


class DoesNotSaveTheBestValue(Linear):
    """Does not save the best value that it observed."""

    def __init__(self) -> None:
        self.best = float("inf")
        self.factor = 1.0

    def multiplier(self, epoch: int, epochs: int) -> float:
        return self.factor

    def observe(self, metrics: Mapping[str, float]) -> None:
        value = metrics["G/total"]
        self.factor *= 1.0 if value < self.best else 0.5
        self.best = min(self.best, value)

    def state_dict(self) -> dict[str, float]:
        return {"factor": self.factor}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.factor = state["factor"]


SCHEDULERS = {
    Linear: [],
    GoesNegative: ["is_non_negative"],
    IsZeroFromTheStart: ["is_not_always_zero"],
    CountsItsCalls: ["depends_on_epoch_only"],
    DoesNotSaveTheBestValue: ["restores_state"],
}


class Uniform:
    """A correct initializer."""

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        for parameter in network.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:
                nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)


class DrawsGlobally(Uniform):
    """Ignores its generator."""

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        for parameter in network.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:
                nn.init.uniform_(parameter, -0.1, 0.1)


class SkipsLinearLayers(Uniform):
    """Initializes only convolutions."""

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        for parameter in network.parameters():
            if parameter.ndim == 4 and parameter.requires_grad:
                nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)


class InitializesFrozenWeights(Uniform):
    """Initializes all weights, frozen or not."""

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        for parameter in network.parameters():
            if parameter.ndim > 1:
                nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)


INITIALIZERS = {
    Uniform: [],
    DrawsGlobally: ["uses_only_its_generator"],
    SkipsLinearLayers: ["initializes_every_weight", "uses_only_its_generator"],
    InitializesFrozenWeights: ["skips_frozen_parameters"],
}


class MeanDifference:
    """A correct metric."""

    against = "ground_truth"
    higher_is_better = False
    units = {"difference": PIXEL_VALUES}

    def __init__(self) -> None:
        self.reset()

    def update(self, images: Tensor, targets: Tensor) -> None:
        self.total += float((images - targets).detach().double().abs().flatten(1).mean(dim=1).sum())
        self.count += len(images)

    def compute(self) -> dict[str, float]:
        return {"difference": self.total / self.count}

    def reset(self) -> None:
        self.total, self.count = 0.0, 0


class AveragesBatches(MeanDifference):
    """Returns the mean of the means of batches, without weighting them by size."""

    def update(self, images: Tensor, targets: Tensor) -> None:
        self.total += float((images - targets).detach().double().abs().mean())
        self.count += 1


class DoesNotResetItsSum(MeanDifference):
    """Does not clear its sum in `reset`."""

    def reset(self) -> None:
        self.total, self.count = getattr(self, "total", 0.0), 0


class HasTheWrongDirection(MeanDifference):
    """Declares that higher is better."""

    higher_is_better = True


class HasOtherStatistics(MeanDifference):
    """Computes its value from other statistics than it returns."""

    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        values = (images - targets).detach().double().square().flatten(1).mean(dim=1)
        return torch.stack([values, torch.ones_like(values)], dim=1)

    def values(self, sums: Tensor) -> dict[str, float]:
        return {"difference": float(sums[0] / sums[1])}


class WeightsPixelsOnTheCPU(MeanDifference):
    """Says that it computes on any device, but has a table on the CPU."""

    any_device = True

    def update(self, images: Tensor, targets: Tensor) -> None:
        super().update(images * torch.ones(images.shape[-1]), targets)


class MeasuresPixelsWithoutData(MeanDifference):
    """Says that it leaves out pixels without data, and does not."""

    excludes_nodata = True

    def statistics(self, images: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
        values = (images - targets).detach().double().abs().flatten(1).mean(dim=1)
        return torch.stack([values, torch.ones_like(values)], dim=1)

    def values(self, sums: Tensor) -> dict[str, float]:
        return {"difference": float(sums[0] / sums[1])}


class DividesByAllPixels(MeasuresPixelsWithoutData):
    """Counts pixels without data as equal to their targets, and images of such pixels too."""

    def statistics(self, images: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
        return super().statistics(images if valid is None else torch.where(valid, images, targets), targets)


class StatesNoUnit(MeanDifference):
    """Does not say that its value is a difference of pixels."""

    units = {}


class MeasuresLevels(MeanDifference):
    """Measures in levels from 0 to 255, whatever the values of the domain are."""

    def compute(self) -> dict[str, float]:
        return {"difference": 127.5 * super().compute()["difference"]}


class SquaresDifferences(MeanDifference):
    """Returns a mean square, whose unit is not that of pixels."""

    def update(self, images: Tensor, targets: Tensor) -> None:
        self.total += float((images - targets).detach().double().square().flatten(1).mean(dim=1).sum())
        self.count += len(images)


class MisspellsItsValue(MeanDifference):
    """States the unit of a value that it does not return."""

    units = {"difference": PIXEL_VALUES, "diference": PIXEL_VALUES}


METRICS = {
    MeanDifference: [],
    MeasuresPixelsWithoutData: ["excludes_pixels_without_data"],
    DividesByAllPixels: ["excludes_pixels_without_data"],
    StatesNoUnit: ["states_units"],
    MeasuresLevels: ["states_units"],
    SquaresDifferences: ["states_units"],
    MisspellsItsValue: ["states_units"],
    WeightsPixelsOnTheCPU: ["is_device_agnostic"],
    HasOtherStatistics: ["statistics_are_additive"],
    AveragesBatches: ["is_batch_size_invariant"],
    DoesNotResetItsSum: ["reset_clears_state", "is_batch_size_invariant", "is_deterministic", "prefers_ground_truth"],
    HasTheWrongDirection: ["prefers_ground_truth"],
}


class CountsItsSteps(SimGAN):
    """Scales its losses by the number of steps, which it does not save."""

    def generator_losses(self, batch: Mapping[str, Tensor], shared: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = super().generator_losses(batch, shared)
        self.steps = getattr(self, "steps", 0) + 1
        return {name: loss * self.steps for name, loss in losses.items()}


class ChangesAnotherNetwork(SimGAN):
    """Changes a network that no phase trains."""

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            self.extra.weight.add_(1)
        return super().forward(batch)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return self._networks

    @networks.setter
    def networks(self, networks: dict[str, nn.Module]) -> None:
        self.extra = nn.Linear(1, 1)
        self._networks = {**networks, "extra": self.extra}


class TrainsNothing(SimGAN):
    """Detaches the images of its generator."""

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: images.detach() for name, images in super().forward(batch).items()}


class ScalesTheBatchInPlace(SimGAN):
    """Modifies the real images in place."""

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        batch["B"].mul_(0.9)
        return super().forward(batch)


class ReturnsVectors(SimGAN):
    """Returns losses that are not scalars."""

    def generator_losses(self, batch: Mapping[str, Tensor], shared: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = super().generator_losses(batch, shared)
        return {name: loss.expand(2) for name, loss in losses.items()}


class NamesALossTotal(SimGAN):
    """Uses the logged name of the sum for one of its losses."""

    def generator_losses(self, batch: Mapping[str, Tensor], shared: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = super().generator_losses(batch, shared)
        return {"total": torch.stack(list(losses.values())).sum()}


_NO_STEP = [  # the rules that fail if a step raises
    "returns_named_scalars",
    "updates_only_trained_networks",
    "does_not_modify_input",
    "resumes_exactly",
    "is_deterministic",
    "translates_every_direction",
    "returns_samples",
]
SYSTEMS = {
    SimGAN: [],
    CountsItsSteps: ["resumes_exactly"],
    ChangesAnotherNetwork: ["updates_only_trained_networks"],
    TrainsNothing: _NO_STEP,
    ScalesTheBatchInPlace: ["does_not_modify_input", "resumes_exactly", "is_deterministic"],
    ReturnsVectors: _NO_STEP,
    NamesALossTotal: _NO_STEP,
}

MUTANTS: dict[str, Mapping[Callable[..., Any], list[str]]] = {
    "generators": GENERATORS,
    "discriminators": DISCRIMINATORS,
    "adversarial_losses": ADVERSARIAL_LOSSES,
    "image_losses": IMAGE_LOSSES,
    "image_pools": IMAGE_POOLS,
    "schedulers": SCHEDULERS,
    "initializers": INITIALIZERS,
    "metrics": METRICS,
    "systems": SYSTEMS,
}
