"""Deliberately wrong blocks: each breaks the rule that is meant for its mistake, and no other that is not named here."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.blocks.losses import NLL
from gantoolkit.blocks.pools import HistoryPool
from gantoolkit.recipes import BlockSpec
from gantoolkit.systems import SimGAN
from gantoolkit.testing import RULEBOOKS, Subject


def broken_rules(kind: str, block: Any, layers: Sequence[str] = ()) -> dict[str, str]:
    """The rules that a block breaks, with the messages."""
    subject = Subject(kind, BlockSpec.of(block), layers=layers)
    outcomes = [rule.run(subject) for rule in RULEBOOKS[kind].rules]
    return {outcome.rule.name: outcome.message for outcome in outcomes if outcome.state == "broken"}


class Generator(nn.Module):
    """A healthy generator."""

    size_multiple = 1

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.last = nn.Conv2d(4, out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.last(functional.leaky_relu(self.first(images))))


class OffByOne(Generator):
    """Loses a column."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[..., :-1]


class ChangesItsInput(Generator):
    """Centres its input in place."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.sub_(images.mean().item()))


class MixesBatchMates(Generator):
    """Normalizes over the batch, also in evaluation."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(dim=0, keepdim=True))


class Unbounded(Generator):
    """Forgets the last activation."""

    def forward(self, images: Tensor) -> Tensor:
        return self.last(functional.leaky_relu(self.first(images)))


class ForgetsState(Generator):
    """Counts its training steps in a plain attribute."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.steps = 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        return super().forward(images) * min(1.0, 0.1 * self.steps)


class DrawsInSecret(Generator):
    """Adds noise also when it translates."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 0.1 * torch.randn_like(images))


class DrawsFromPython(Generator):
    """Mirrors by the toss of a coin of Python's own."""

    def forward(self, images: Tensor) -> Tensor:
        made = super().forward(images)
        return made.flip(-1) if random.random() < 0.5 else made


class HasADeadParameter(Generator):
    """A layer that nothing uses."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.unused = nn.Conv2d(4, 4, 1)


class StopsTheGradient(Generator):
    """Cuts the graph in the middle, so that the first layer learns nothing."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.last(functional.leaky_relu(self.first(images).detach())))


class CastsSilently(Generator):
    """Computes in float32 whatever comes."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).float().to(images.dtype)


class ReturnsFloat(Generator):
    """Returns float32 whatever comes."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).float()


class LivesOnTheCPU(Generator):
    """Makes a tensor on a device of its own choice."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * torch.ones(1, device="cpu", dtype=images.dtype)


class LivesOnCUDA(Generator):
    """Makes a tensor on the one device that its author has."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * torch.ones(1, device="cuda", dtype=images.dtype)


class HidesItsSizes(Generator):
    """Does not say which sizes it takes."""

    size_multiple = None


class SwallowsKeywords(Generator):
    """Takes any keyword.

    Args:
        width: Not used.
    """

    def __init__(self, in_channels: int, out_channels: int, *, width: int = 4, **more: int) -> None:
        super().__init__(in_channels, out_channels)


class SaysNothing(Generator):
    """Has a parameter without a word about it."""

    def __init__(self, in_channels: int, out_channels: int, *, width: int = 4) -> None:
        super().__init__(in_channels, out_channels)


GENERATORS = {
    Generator: [],
    OffByOne: ["preserves_size"],
    ChangesItsInput: ["does_not_modify_input", "is_batch_invariant", "is_deterministic", "preserves_float64"],
    MixesBatchMates: ["is_batch_invariant"],
    Unbounded: ["output_is_in_range"],
    ForgetsState: ["saves_complete_state"],
    DrawsInSecret: ["is_batch_invariant", "is_deterministic", "preserves_float64"],
    DrawsFromPython: ["is_deterministic", "preserves_float64", "is_batch_invariant"],
    HasADeadParameter: ["trains_every_parameter"],
    StopsTheGradient: ["trains_every_parameter", "preserves_float64"],
    CastsSilently: ["preserves_float64"],
    ReturnsFloat: ["preserves_float64"],
    LivesOnTheCPU: ["follows_device"],
    LivesOnCUDA: ["follows_device", *(rule.name for rule in RULEBOOKS["generators"].rules)],
    HidesItsSizes: ["declares_size_multiple"],
    SwallowsKeywords: ["documents_parameters", *(rule.name for rule in RULEBOOKS["generators"].rules)],
    SaysNothing: ["documents_parameters"],
}


class Discriminator(nn.Module):
    """A healthy discriminator."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(in_channels, 4, 4, stride=2), nn.Conv2d(4, 1, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(functional.leaky_relu(self.first(images)))


class GivesProbabilities(Discriminator):
    """Ends in a sigmoid."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).sigmoid()


class GivesBoundedLogits(Discriminator):
    """Ends in a hyperbolic tangent."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).tanh()


class GivesOneNumber(Discriminator):
    """Flattens its logits."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).flatten(1).mean(dim=1)


class ComparesWithTheBatch(Discriminator):
    """Appends the deviation over the batch, also in evaluation."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + images.std(dim=0, correction=0).mean()


class AdaptsWithoutSaving(Discriminator):
    """Follows its logits, in a plain attribute."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.strength = 0.0

    def observe(self, real: Tensor, fake: Tensor) -> None:
        self.strength += 0.1

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * (1 - self.strength))


DISCRIMINATORS = {
    Discriminator: [],
    GivesProbabilities: ["returns_logits"],
    GivesBoundedLogits: ["returns_logits"],
    GivesOneNumber: ["returns_one_channel"],
    ComparesWithTheBatch: ["is_batch_invariant"],
    AdaptsWithoutSaving: ["saves_complete_state"],
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
    """Sums over logits."""

    def real(self, logits: Tensor) -> Tensor:
        return functional.softplus(-logits).sum()


class SumsOverPatches(NLL):
    """Sums over patches, and takes the mean over images."""

    def fake(self, logits: Tensor) -> Tensor:
        return functional.softplus(logits).flatten(1).sum(dim=1).mean()


class SwapsTargets(NLL):
    """Takes real for fake."""

    def real(self, logits: Tensor) -> Tensor:
        return super().fake(logits)

    def fake(self, logits: Tensor) -> Tensor:
        return super().real(logits)


class GeneratorHelpsItsEnemy(NLL):
    """The generator wants to be found out."""

    def generator(self, logits: Tensor) -> Tensor:
        return self.fake(logits)


class Saturates(NLL):
    """The minimax form: log(1 − D)."""

    def generator(self, logits: Tensor) -> Tensor:
        return -super().fake(logits)


class Overflows(NLL):
    """An exponential that float32 cannot hold."""

    def real(self, logits: Tensor) -> Tensor:
        return torch.log(1 + torch.exp(-logits)).mean()


class ClampsInPlace(NLL):
    """Bounds the logits that it was given."""

    def real(self, logits: Tensor) -> Tensor:
        return functional.softplus(-logits.data.clamp_(-5, 5) + 0 * logits).mean()


class SmoothsByChance(NLL):
    """Random label smoothing from the global generator."""

    def real(self, logits: Tensor) -> Tensor:
        return super().real(logits - 0.1 * torch.rand((), dtype=logits.dtype))


class HasAFloat32Target(NLL):
    """Rounds its logits."""

    def real(self, logits: Tensor) -> Tensor:
        return super().real(logits.float()).to(logits.dtype)


class HasATargetOnTheCPU(NLL):
    """Its target is on a device of its own choice."""

    def real(self, logits: Tensor) -> Tensor:
        target = torch.ones(logits.shape, device="cpu", dtype=logits.dtype)
        return functional.binary_cross_entropy_with_logits(logits, target)


ADVERSARIAL_LOSSES = {
    NLL: [],
    SigmoidFirst: ["has_gradient_for_confident_errors"],
    Sums: ["is_mean"],
    SumsOverPatches: ["is_mean"],
    SwapsTargets: ["prefers_real_above_fake", "has_gradient_for_confident_errors"],
    GeneratorHelpsItsEnemy: ["prefers_real_above_fake", "has_gradient_for_confident_errors"],
    Saturates: ["has_gradient_for_confident_errors"],
    Overflows: ["returns_finite_scalars"],
    ClampsInPlace: ["does_not_modify_logits", "supports_float64_logits", "has_gradient_for_confident_errors"],
    SmoothsByChance: ["uses_no_randomness", "is_mean", "supports_float64_logits"],
    HasAFloat32Target: ["supports_float64_logits", "is_mean"],
    HasATargetOnTheCPU: ["follows_device_of_logits"],
}


class L1:
    """A healthy distance."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).abs().mean()


class SumsOverImages(L1):
    """Mean over pixels, sum over images."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).abs().flatten(1).mean(dim=1).sum()


class IsSigned(L1):
    """Forgets the absolute value."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).mean()


class TakesARoot(L1):
    """The slope of its root is infinite where images are equal."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return (images - targets).square().mean().sqrt()


class SubtractsInPlace(L1):
    """Uses the images as scratch paper."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return super().__call__(images, targets) + 0 * images.data.mul_(0.5).sum()


IMAGE_LOSSES = {
    L1: [],
    SumsOverImages: ["is_mean_over_images"],
    IsSigned: ["is_distance"],
    TakesARoot: ["has_gradient_at_zero"],
    SubtractsInPlace: [
        "does_not_modify_images",
        "is_mean_over_images",
        "is_distance",
        "supports_float64_images",
        "is_deterministic",
    ],
}


class OneByOne:
    """A right pool that decides image by image, so that its parts can be made wrong one at a time."""

    def __init__(self, generator: torch.Generator, *, size: Annotated[int, Field(ge=0)] = 50) -> None:
        """Make an empty pool.

        Args:
            size: Images kept.
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
        place = int(torch.randint(self.size, (), generator=self.generator, device="cpu"))
        earlier, self.images[place] = self.images[place], image.clone()
        return earlier

    def state_dict(self) -> dict[str, Tensor]:
        images = {f"image/{place}": image for place, image in enumerate(self.images)}
        return {"generator": self.generator.get_state(), **images}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.generator.set_state(state["generator"].cpu())
        self.images = [state[f"image/{place}"] for place in range(len(state) - 1)]


class NeverReturnsOldImages(OneByOne):
    """Stores, and always hands back the new."""

    def __call__(self, fakes: Tensor) -> Tensor:
        super().__call__(fakes)
        return fakes.detach()


class NeverReturnsNewImages(OneByOne):
    """Once full, hands out the past only."""

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < 5:
            return super()._exchange(image)
        return self.images[int(torch.randint(5, (), generator=self.generator))]


class KeepsTheGraph(OneByOne):
    """Stores images with all that they were made from."""

    def __call__(self, fakes: Tensor) -> Tensor:
        self.last = fakes
        return super().__call__(fakes)


class PassesTheGradient(OneByOne):
    """Hands images back with their graph."""

    def __call__(self, fakes: Tensor) -> Tensor:
        return torch.stack([self._exchange(image) for image in fakes])


class StoresViews(OneByOne):
    """Stores the batch itself."""

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < 5:
            self.images.append(image)
            return image.clone()
        return self.images[0].clone() if torch.rand((), generator=self.generator) < 0.5 else image


class SavesOnlyImages(OneByOne):
    """Forgets where its random generator stands."""

    def state_dict(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in super().state_dict().items() if name != "generator"}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.images = list(state.values())


class DecidesByChance(OneByOne):
    """Draws from the global generator."""

    def _exchange(self, image: Tensor) -> Tensor:
        self.generator = torch.default_generator
        return super()._exchange(image)


class BlendsImages(OneByOne):
    """Hands out images that nobody made."""

    def __call__(self, fakes: Tensor) -> Tensor:
        return 0.5 * (super().__call__(fakes) + fakes.detach())


IMAGE_POOLS = {
    HistoryPool: [],
    OneByOne: [],
    NeverReturnsOldImages: ["returns_old_images"],
    NeverReturnsNewImages: ["returns_new_images"],
    KeepsTheGraph: ["carries_no_gradient"],
    PassesTheGradient: ["carries_no_gradient"],
    StoresViews: ["stores_copies"],
    SavesOnlyImages: ["restores_state"],
    DecidesByChance: ["uses_only_its_generator", "restores_state"],
    BlendsImages: ["returns_only_given_images"],
}


class Linear:
    """A healthy schedule."""

    def multiplier(self, epoch: int, epochs: int) -> float:
        return max(0.0, 1 - epoch / epochs)


class GoesNegative(Linear):
    """Falls beyond zero."""

    def multiplier(self, epoch: int, epochs: int) -> float:
        return 1 - epoch / max(1, epochs - 1)


class NeverLearns(Linear):
    """A run of one epoch is already over."""

    def multiplier(self, epoch: int, epochs: int) -> float:
        return max(0.0, 1 - (epoch + 1) / epochs)


class CountsItsCalls(Linear):
    """Decays by each call."""

    def __init__(self) -> None:
        self.calls = 0

    def multiplier(self, epoch: int, epochs: int) -> float:
        self.calls += 1
        return 1 / self.calls


class ForgetsWhatItSaw(Linear):
    """Does not save the best value."""

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
    NeverLearns: ["starts_above_zero"],
    CountsItsCalls: ["depends_on_epoch_only"],
    ForgetsWhatItSaw: ["restores_state"],
}


class Uniform:
    """A healthy initializer."""

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        for parameter in network.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:
                nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)


class DrawsGlobally(Uniform):
    """Ignores the generator that it is given."""

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        for parameter in network.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:
                nn.init.uniform_(parameter, -0.1, 0.1)


class ForgetsLinearLayers(Uniform):
    """Knows convolutions only."""

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        for parameter in network.parameters():
            if parameter.ndim == 4 and parameter.requires_grad:
                nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)


class ThawsFrozenParts(Uniform):
    """Draws all weights, frozen or not."""

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        for parameter in network.parameters():
            if parameter.ndim > 1:
                nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)


INITIALIZERS = {
    Uniform: [],
    DrawsGlobally: ["uses_only_its_generator"],
    ForgetsLinearLayers: ["initializes_every_weight", "uses_only_its_generator"],
    ThawsFrozenParts: ["skips_frozen_parameters"],
}


class MeanDifference:
    """A healthy metric."""

    against = "ground_truth"
    higher_is_better = False

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
    """Takes the mean of batches' means, whatever their size."""

    def update(self, images: Tensor, targets: Tensor) -> None:
        self.total += float((images - targets).detach().double().abs().mean())
        self.count += 1


class CannotForget(MeanDifference):
    """Keeps its sum over a reset."""

    def reset(self) -> None:
        self.total, self.count = getattr(self, "total", 0.0), 0


class PointsTheWrongWay(MeanDifference):
    """Says that more is better."""

    higher_is_better = True


class RanksOtherwise(MeanDifference):
    """Offers rows whose sum is not what it computes from."""

    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        values = (images - targets).detach().double().square().flatten(1).mean(dim=1)
        return torch.stack([values, torch.ones_like(values)], dim=1)

    def values(self, sums: Tensor) -> dict[str, float]:
        return {"difference": float(sums[0] / sums[1])}


METRICS = {
    MeanDifference: [],
    RanksOtherwise: ["statistics_are_additive"],
    AveragesBatches: ["is_batch_size_invariant"],
    CannotForget: ["reset_clears_state", "is_batch_size_invariant", "is_deterministic", "prefers_ground_truth"],
    PointsTheWrongWay: ["prefers_ground_truth"],
}


class ForgetsItsMemory(SimGAN):
    """Keeps a running mean of losses in a plain attribute, and scales by it."""

    def generator_losses(self, batch: Mapping[str, Tensor], shared: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = super().generator_losses(batch, shared)
        self.seen = getattr(self, "seen", 0) + 1
        return {name: loss * self.seen for name, loss in losses.items()}


class TrainsInSecret(SimGAN):
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
    """Its generator's phase looks at images without a graph."""

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: images.detach() for name, images in super().forward(batch).items()}


class NormalizesTheBatch(SimGAN):
    """Uses the real images as scratch paper."""

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        batch["B"].mul_(0.9)
        return super().forward(batch)


class GivesMaps(SimGAN):
    """A loss for every pixel."""

    def generator_losses(self, batch: Mapping[str, Tensor], shared: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = super().generator_losses(batch, shared)
        return {name: loss.expand(2) for name, loss in losses.items()}


_NO_STEP = [  # what cannot be tried where a step raises
    "returns_named_scalars",
    "step_changes_trained_networks_only",
    "does_not_modify_batch",
    "resumes_exactly",
    "steps_are_deterministic",
    "translates_every_direction",
    "returns_samples",
]
SYSTEMS = {
    SimGAN: [],
    ForgetsItsMemory: ["resumes_exactly"],
    TrainsInSecret: ["step_changes_trained_networks_only"],
    TrainsNothing: _NO_STEP,
    NormalizesTheBatch: ["does_not_modify_batch", "resumes_exactly", "steps_are_deterministic"],
    GivesMaps: _NO_STEP,
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
