"""Every extension point: what each kind of block has to offer, and the registry that finds it.

A block is a plain class or function. What a *system* gives it is positional (channels, a random generator, the tensors of
a call); what a *recipe* may set are its keyword-only parameters, typed and documented, which are its schema. Nothing is
inherited: a block fits when it offers what its Protocol lists. Images are float tensors (N, C, H, W) in [−1, 1]
everywhere; logits are (N, 1, H', W') and never pass through a sigmoid.

The optional attributes of networks and metrics are in `NetworkTraits` and `MetricTraits`.

A network may hold parts that are frozen when it is made (`requires_grad` is false), such as a pretrained one: no initializer
and no optimizer touches them. What it draws at random while it trains, it draws from torch's global generators: a run seeds
these before every step, so that they need not be saved.

Any block may have an attribute `expected_failures`, a mapping from names of rules of `gantoolkit.testing` to reasons: where it
departs from its protocol on purpose.

Importing this module does not load torch, so that blocks can be listed in no time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeVar, runtime_checkable

from gantoolkit.registry.registry import Registry
from gantoolkit.registry.signature import Slot

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Traits = TypeVar("Traits", "NetworkTraits", "MetricTraits")

Batch = Mapping[str, "Tensor"]
"""Real images by domain: `{"A": ..., "B": ...}`, each (N, C, H, W) in [−1, 1]."""

Pairing = Literal["unpaired", "paired", "sequential"]
"""How images of A and B come together. `unpaired`: A in shuffled order, B drawn at random. `paired`: image i of A and image i
of B show the same thing and are cropped alike. `sequential`: both in shuffled order, so that an epoch sees every image."""


class Direction(str):
    """A direction of translation, written `<source>2<target>`.

    >>> direction = Direction("A2B")
    >>> direction.source, direction.target, direction.reverse
    ('A', 'B', 'B2A')
    """

    __slots__ = ()

    @property
    def source(self) -> str:
        """The domain of the inputs."""
        return self.partition("2")[0]

    @property
    def target(self) -> str:
        """The domain of the results."""
        return self.partition("2")[2]

    @property
    def reverse(self) -> Direction:
        """The direction from the target back to the source."""
        return Direction(f"{self.target}2{self.source}")


Shared = dict[str, "Tensor"]
"""Images that one step makes once and its phases share, by name: fake_B, rec_A, ..."""


@dataclass(frozen=True)
class NetworkTraits:
    """The optional attributes of a network, with their defaults; see `read_traits`.

    Args:
        size_multiple: Height and width of its images must be multiples of this. A generator must declare it.
        smallest_size: The smallest height and width that it accepts.
        channels_last: Whether it may run in the memory format channels_last. PyTorch's own `InstanceNorm2d` converts back from
            that format, and on a CPU its gradients in it are wrong; `gantoolkit.layers.normalization` has neither fault.
        stochastic: Whether its result depends on random numbers in evaluation mode too, or on the whole batch. Images are then
            translated one at a time, from a fixed seed.
        optimizes: Whether it translates by optimizing each image; it cannot be exported.
    """

    size_multiple: int | None = None
    smallest_size: int = 1
    channels_last: bool = False
    stochastic: bool = False
    optimizes: bool = False


@dataclass(frozen=True)
class MetricTraits:
    """The optional attributes of a metric, with their defaults; see `read_traits`.

    Args:
        direction: The only direction that it applies to, `A2B` or `B2A`; None if it applies to all.
        label_maps: Whether its targets are label maps, which are resized without mixing colors.
        notes: What must be reported beside each of its values, such as the network that it uses.
    """

    direction: str | None = None
    label_maps: bool = False
    notes: str = ""


def read_traits(block: object, table: type[Traits]) -> Traits:
    """The optional attributes of a block: `read_traits(network, NetworkTraits).stochastic`."""
    return table(**{trait.name: getattr(block, trait.name, trait.default) for trait in fields(table)})  # type: ignore[arg-type]


class Generator(Protocol):
    """A network (`nn.Module`) that translates images, made by `block(in_channels, out_channels, *, ...)`."""

    size_multiple: int
    """Heights and widths that it can take are multiples of this, from `smallest_size` on if it has that attribute too.

    Optional attributes are in `NetworkTraits`.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Translate `images` (N, in_channels, H, W) to (N, out_channels, H, W), both in [−1, 1]."""
        ...


class Discriminator(Protocol):
    """A network (`nn.Module`) that judges images, made by `block(in_channels, *, ...)`."""

    def __call__(self, images: Tensor) -> Tensor:
        """Judge `images` (N, in_channels, H, W): logits (N, 1, H', W'), higher is more real; no sigmoid."""
        ...


@runtime_checkable
class ObservingDiscriminator(Protocol):
    """A discriminator that follows how well it tells images apart, to adapt what it does next."""

    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Take its logits for real images and for fakes, once in each of its own steps; what it keeps is in `state_dict`."""
        ...


class CoupledGenerator(Protocol):
    """Two generators of images from one latent, early layers tied (an `nn.Module`).

    Made by `block(channels_A, channels_B, side, *, ...)` for square images of `side` pixels.
    """

    latent_size: int
    """Numbers in a latent."""

    def __call__(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Render `latents` (N, latent_size) in both domains: (N, channels_A, side, side) and (N, channels_B, side, side)."""
        ...


class CoupledDiscriminator(Protocol):
    """Two discriminators, late layers tied (an `nn.Module`), made by `block(channels_A, channels_B, side, *, ...)`."""

    def __call__(self, images_A: Tensor, images_B: Tensor) -> tuple[Tensor, Tensor]:
        """Judge images of A and of B, each (N, C, side, side): logits (N, 1, H', W') for each; no sigmoid."""
        ...


class FeatureExtractor(Protocol):
    """A pretrained network that is looked at and never trained, made by `block(*, ...)`.

    It loads its weights when it is first used, so that what only translates needs none; it follows its images to their
    device and precision, and for images without memory (on the device `meta`) it does without weights.
    """

    def __call__(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features (N, C', H', W') of `images` (N, 1 or 3, H, W) in [−1, 1] at each of `layers`; gradients pass."""
        ...


class AdversarialLoss(Protocol):
    """What a discriminator and its generator minimize, made by `block(*, ...)`; each method returns a mean (a scalar)."""

    def real(self, logits: Tensor) -> Tensor:
        """The discriminator's loss on its logits for real images."""
        ...

    def fake(self, logits: Tensor) -> Tensor:
        """The discriminator's loss on its logits for fakes."""
        ...

    def generator(self, logits: Tensor) -> Tensor:
        """The generator's loss on the discriminator's logits for its fakes."""
        ...


@runtime_checkable
class PenalizedLoss(Protocol):
    """An adversarial loss that also penalizes the discriminator itself, as WGAN-GP does."""

    def penalty(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        """A weighted scalar to add to the discriminator's loss; `real` and `fake` are (N, C, H, W)."""
        ...


class ImageLoss(Protocol):
    """A distance between two batches of images, made by `block(*, ...)`."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """The mean distance between `images` and `targets`, both (N, C, H, W) in [−1, 1]: a scalar ≥ 0, 0 if equal."""
        ...


class ImagePool(Protocol):
    """A memory of past fakes, made by `block(generator, *, ...)` from a host-side `torch.Generator`."""

    def __call__(self, fakes: Tensor) -> Tensor:
        """Exchange some of `fakes` (N, C, H, W) for earlier ones; same shape, no gradient."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next call depends on, as tensors."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


@runtime_checkable
class PlannedPool(ImagePool, Protocol):
    """An image pool whose decisions can be drawn ahead: a step with it can be replayed as a CUDA graph."""

    def decide(self, count: int) -> Tensor:
        """Draw, on the host, what the next call does with `count` fakes; the shape follows from `count` alone."""
        ...

    def exchange(self, fakes: Tensor, decisions: Tensor) -> Tensor:
        """Do it: the same operations whatever was decided, without asking the host; `decisions` are on the fakes' device."""
        ...


class Scheduler(Protocol):
    """The learning rate over a run, made by `block(*, ...)`."""

    def multiplier(self, epoch: int, epochs: int) -> float:
        """The factor ≥ 0 on every optimizer's rate in `epoch` (counted from 0) of a run of `epochs`."""
        ...


@runtime_checkable
class ObservingScheduler(Protocol):
    """A scheduler that follows what is measured."""

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Take the means of one finished epoch by their logged names, such as `G/cycle_A`."""
        ...

    def state_dict(self) -> dict[str, float]: ...

    def load_state_dict(self, state: Mapping[str, float]) -> None: ...


class Initializer(Protocol):
    """Sets a fresh network's weights, made by `block(*, ...)`."""

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        """Draw all weights of `network` in place, from `generator` alone."""
        ...


class Optimizer(Protocol):
    """A function `block(parameters, *, ...)` that makes a `torch.optim.Optimizer`."""

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer: ...


class Metric(Protocol):
    """A figure for how good translations are, gathered over batches; made by `block(*, ...)`.

    Its optional attributes are in `MetricTraits`.
    """

    against: Literal["ground_truth", "input", "domain"]
    """What images are measured by. `ground_truth`: each by the right translation of its input, which paired data sets have;
    `input`: each by what it was made from; `domain`: all together by the real images of their domain, unpaired."""

    higher_is_better: bool

    def update(self, images: Tensor, targets: Tensor) -> None:
        """Take in `images` (N, C, H, W) and what they are measured by, in [−1, 1]; as many of each, but for `domain`."""
        ...

    def compute(self) -> Mapping[str, float]:
        """The figures over all that was taken in, by name; the first is the one that `higher_is_better` speaks of."""
        ...

    def reset(self) -> None:
        """Forget all that was taken in."""
        ...


@runtime_checkable
class SummedMetric(Protocol):
    """A metric whose figures follow from a sum over images: then single images can be ranked, and intervals be given."""

    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        """What each image adds to the sum: (N, K) in float64. `update` adds up its rows."""
        ...

    def figures(self, sums: Tensor) -> Mapping[str, float]:
        """What `compute` returns, from any sum (K,) of such rows."""
        ...


@dataclass(frozen=True)
class SystemContext:
    """What a run tells its system."""

    channels_A: int
    channels_B: int
    seed: int = 0
    crop_size: int = 256
    """Side of the training crops in pixels."""

    rank: int = 0
    """Which of the processes that share the run this is: each has image pools of its own."""


@dataclass(frozen=True)
class Phase:
    """One optimizer step: the networks it trains and the named losses it minimizes.

    Args:
        name: Heads the logged names of its losses: `G` gives `G/cycle_A`.
        trains: Names of the networks whose parameters the step changes; all others are frozen meanwhile.
        losses: Makes the weighted terms from the real images and from what the step shares; their sum is minimized.
        every: The phase runs in each step whose number is a multiple of this.
    """

    name: str
    trains: tuple[str, ...]
    losses: Callable[[Batch, Shared], dict[str, Tensor]]
    every: int = 1


class System(Protocol):
    """Networks and how they learn, made by `block(context, *, ...)` from a `SystemContext`.

    What its blocks are given and how objectives are put together, `gantoolkit.systems.objectives` offers to every system.
    """

    pairing: Pairing
    """How it wants its images."""

    networks: dict[str, nn.Module]
    """By name: G_AB, D_B, ..."""

    phases: Sequence[Phase]
    """In the order in which a step runs them."""

    directions: Mapping[str, nn.Module]
    """What translates, by direction, with all that it needs in its `state_dict`: `{"A2B": G_AB}`. See `Generator`."""

    pools: dict[str, ImagePool]
    """Image pools by name; their state is saved with every checkpoint."""

    def forward(self, batch: Batch) -> Shared:
        """What the phases share, computed once a step before the first of them, with every network's gradient on."""
        ...

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Images to look at, by name and in the order to show them: real_A, fake_B, rec_A, ..."""
        ...


CoupledGeneratorBlock = Annotated[Callable[[int, int, int], "nn.Module"], Slot("coupled_generators")]
CoupledDiscriminatorBlock = Annotated[Callable[[int, int, int], "nn.Module"], Slot("coupled_discriminators")]
FeatureExtractorBlock = Annotated[Callable[[], FeatureExtractor], Slot("feature_extractors")]
GeneratorBlock = Annotated[Callable[[int, int], "nn.Module"], Slot("generators")]
DiscriminatorBlock = Annotated[Callable[[int], "nn.Module"], Slot("discriminators")]
AdversarialLossBlock = Annotated[Callable[[], AdversarialLoss], Slot("adversarial_losses")]
ImageLossBlock = Annotated[Callable[[], ImageLoss], Slot("image_losses")]
ImagePoolBlock = Annotated[Callable[["torch.Generator"], ImagePool], Slot("image_pools")]

generators = Registry("generators")
discriminators = Registry("discriminators")
coupled_generators = Registry("coupled_generators")
coupled_discriminators = Registry("coupled_discriminators")
feature_extractors = Registry("feature_extractors")
adversarial_losses = Registry("adversarial_losses")
image_losses = Registry("image_losses")
image_pools = Registry("image_pools")
schedulers = Registry("schedulers")
initializers = Registry("initializers")
optimizers = Registry("optimizers")
metrics = Registry("metrics")
systems = Registry("systems")
recipes = Registry("recipes")
"""Functions that return a `Recipe`."""

REGISTRIES: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        generators,
        discriminators,
        coupled_generators,
        coupled_discriminators,
        feature_extractors,
        adversarial_losses,
        image_losses,
        image_pools,
        schedulers,
        initializers,
        optimizers,
        metrics,
        systems,
        recipes,
    )
}
"""Every kind of block, in the order in which it is shown."""
