"""Every extension point: the Protocol of each kind of block, and the registry that finds blocks of that kind.

A block is a plain class or function. A *system* passes its positional arguments (channels, a random generator, the tensors of a
call); a *recipe* sets its keyword-only parameters, which are typed, documented, and thereby its schema. Blocks inherit from
nothing: a block fits if it has what its Protocol lists. Images are float tensors (N, C, H, W) in [−1, 1]; logits are
(N, 1, H', W') and never pass through a sigmoid.

Optional attributes of networks and metrics are listed in `NetworkTraits` and `MetricTraits`.

A network may contain parts that are frozen when it is built (`requires_grad` is false), such as a pretrained network: neither
initializers nor optimizers change them. Random numbers in training come from torch's global generators, which a run seeds
before every step, so that their state need not be saved.

Any block may have an attribute `expected_failures`: a mapping from names of rules of `gantoolkit.testing`, from which it
deviates on purpose, to reasons.

Importing this module does not import torch, so that blocks can be listed quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
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
"""How images of A and B are combined. `unpaired`: A in shuffled order, B drawn at random. `paired`: image i of A and image i
of B show the same thing and are cropped alike. `sequential`: both in shuffled order, so that an epoch contains every image."""


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
    def domains(self) -> tuple[str, str]:
        """The domains of the inputs and of the results."""
        return self.source, self.target

    @property
    def reverse(self) -> Direction:
        """The direction from the target back to the source."""
        return Direction(f"{self.target}2{self.source}")


PIXEL_VALUES = "pixel values"
"""The unit of values of a metric that are differences of pixels in [−1, 1], such as a mean absolute error."""

Shared = dict[str, "Tensor"]
"""Images that a step computes once and its phases share, by name: fake_B, rec_A, ..."""


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
        narrow_weights: Whether the weights of its convolutions and linear layers may be in bfloat16 or float16: it uses them
            only by calling the layers, under the autocast of the caller. They are then rounded once, at each step of a training
            or when a generator is loaded, not in every forward pass.
    """

    size_multiple: int | None = None
    smallest_size: int = 1
    channels_last: bool = False
    stochastic: bool = False
    optimizes: bool = False
    narrow_weights: bool = False


@dataclass(frozen=True)
class MetricTraits:
    """The optional attributes of a metric, with their defaults; see `read_traits`.

    Args:
        direction: The only direction that it applies to, `A2B` or `B2A`; None if it applies to all.
        label_maps: Whether its targets are label maps, which are resized without mixing colors.
        notes: What must be reported beside each of its values, such as the network that it uses.
        any_device: Whether it takes images on any device and computes there, with its networks and tables. Other metrics get
            images on the CPU.
        units: The units of its values by name, such as `{"psnr": "dB"}`; a value without one is a pure number. `PIXEL_VALUES`
            marks differences of pixels in [−1, 1]: they are reported in the values of the domain's files.
        excludes_nodata: Whether `statistics` has an optional third argument `valid` (N, 1, H, W), which is false at pixels
            without data, and leaves these out. Other metrics measure all pixels.
    """

    direction: str | None = None
    label_maps: bool = False
    notes: str = ""
    any_device: bool = False
    units: Mapping[str, str] = field(default_factory=dict)
    excludes_nodata: bool = False


def read_traits(block: object, table: type[Traits]) -> Traits:
    """The optional attributes of a block: `read_traits(network, NetworkTraits).stochastic`."""
    names = [trait.name for trait in fields(table)]
    return table(**{name: getattr(block, name) for name in names if hasattr(block, name)})


class Generator(Protocol):
    """A network (`nn.Module`) that translates images, built by `block(in_channels, out_channels, *, ...)`."""

    size_multiple: int
    """Height and width of its images must be multiples of this. Optional attributes are listed in `NetworkTraits`."""

    def __call__(self, images: Tensor) -> Tensor:
        """Translate `images` (N, in_channels, H, W) to (N, out_channels, H, W), both in [−1, 1]."""
        ...


class Discriminator(Protocol):
    """A network (`nn.Module`) that judges images, built by `block(in_channels, *, ...)`."""

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, 1, H', W') of `images` (N, in_channels, H, W); higher means more real; no sigmoid."""
        ...


@runtime_checkable
class ObservingDiscriminator(Protocol):
    """A discriminator that adapts to its own logits."""

    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Receive its logits of real images and of fakes, once per step that trains it. Its state is in `state_dict`."""
        ...


class CoupledGenerator(Protocol):
    """Two generators of images from one latent vector, with shared early layers (an `nn.Module`).

    Built by `block(channels_A, channels_B, side, *, ...)` for square images of `side` pixels.
    """

    latent_size: int
    """The size of a latent vector."""

    def __call__(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Render `latents` (N, latent_size) in both domains: (N, channels_A, side, side) and (N, channels_B, side, side)."""
        ...


class CoupledDiscriminator(Protocol):
    """Two discriminators with shared late layers (an `nn.Module`), built by `block(channels_A, channels_B, side, *, ...)`."""

    def __call__(self, images_A: Tensor, images_B: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 1, H', W') of images of A and of B, each (N, C, side, side); no sigmoid."""
        ...


class FeatureExtractor(Protocol):
    """A pretrained network that is never trained, built by `block(*, ...)`.

    It loads its weights on first use, so that translating alone does not need them. It moves to the device and precision of its
    images, and runs without weights on the meta device.
    """

    def __call__(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features (N, C', H', W') of `images` (N, 1 or 3, H, W) in [−1, 1] at each of `layers`, with gradients."""
        ...


class AdversarialLoss(Protocol):
    """The loss of a discriminator and its generator, built by `block(*, ...)`. Each method returns a mean (a scalar)."""

    def real(self, logits: Tensor) -> Tensor:
        """The discriminator loss on its logits of real images."""
        ...

    def fake(self, logits: Tensor) -> Tensor:
        """The discriminator loss on its logits of fakes."""
        ...

    def generator(self, logits: Tensor) -> Tensor:
        """The generator loss on the discriminator's logits of its fakes."""
        ...


@runtime_checkable
class PenalizedLoss(Protocol):
    """An adversarial loss with a penalty on the discriminator itself, such as WGAN-GP."""

    def penalty(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        """A weighted scalar that is added to the discriminator loss; `real` and `fake` are (N, C, H, W)."""
        ...


class ImageLoss(Protocol):
    """A distance between two batches of images, built by `block(*, ...)`."""

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """The mean distance between `images` and `targets`, both (N, C, H, W) in [−1, 1]: a scalar ≥ 0, and 0 if they are
        equal.
        """
        ...


class ImagePool(Protocol):
    """A buffer of past fakes, built by `block(generator, *, ...)` with a `torch.Generator` on the CPU."""

    def __call__(self, fakes: Tensor) -> Tensor:
        """Swap some of `fakes` (N, C, H, W) for stored ones; same shape, no gradient."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors that the next call depends on."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


@runtime_checkable
class PlannedPool(ImagePool, Protocol):
    """An image pool whose decisions can be made ahead of time, so that a CUDA graph can capture its step."""

    def decide(self, count: int) -> Tensor:
        """Decide, on the host, what the next call does with `count` fakes. The shape depends on `count` only."""
        ...

    def exchange(self, fakes: Tensor, decisions: Tensor) -> Tensor:
        """Apply `decisions`, which are on the device of the fakes: the same operations for all decisions, without a host
        wait.
        """
        ...


class Scheduler(Protocol):
    """The learning rate over a run, built by `block(*, ...)`."""

    def multiplier(self, epoch: int, epochs: int) -> float:
        """The factor ≥ 0 on all learning rates in `epoch` (counted from 0) of a run of `epochs`."""
        ...


@runtime_checkable
class ObservingScheduler(Protocol):
    """A scheduler that adapts to losses and metrics."""

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Receive the means of a finished epoch by logged name, such as `G/cycle_A`."""
        ...

    def state_dict(self) -> dict[str, float]: ...

    def load_state_dict(self, state: Mapping[str, float]) -> None: ...


class Initializer(Protocol):
    """Initializes the weights of a network, built by `block(*, ...)`."""

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        """Initialize all weights of `network` in place, using `generator` only."""
        ...


class Optimizer(Protocol):
    """A function `block(parameters, *, ...)` that returns a `torch.optim.Optimizer`."""

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer: ...


class Metric(Protocol):
    """A measure of the quality of translations, accumulated over batches; built by `block(*, ...)`.

    Optional attributes are listed in `MetricTraits`.
    """

    against: Literal["ground_truth", "input", "domain"]
    """What translations are compared with. `ground_truth`: each with the correct translation of its input, which paired data
    sets have; `input`: each with its input; `domain`: all together with the real images of their domain, unpaired."""

    higher_is_better: bool

    def update(self, images: Tensor, targets: Tensor) -> None:
        """Accumulate `images` (N, C, H, W) and their targets, in [−1, 1]; the same number of each, except for `domain`."""
        ...

    def compute(self) -> Mapping[str, float]:
        """The values over all images, by name; `higher_is_better` refers to the first."""
        ...

    def reset(self) -> None:
        """Clear the accumulated state. A metric for any device also moves its networks back to the CPU, to free memory."""
        ...


@runtime_checkable
class SummedMetric(Protocol):
    """A metric whose values follow from a sum over images, so that single images can be ranked and intervals be computed."""

    def statistics(self, images: Tensor, targets: Tensor) -> Tensor:
        """The contribution of each image to the sum: (N, K) in float64."""
        ...

    def values(self, sums: Tensor) -> Mapping[str, float]:
        """What `compute` returns, for any sum (K,) of such rows."""
        ...


@dataclass(frozen=True)
class SystemContext:
    """What a run passes to its system."""

    channels_A: int
    channels_B: int
    seed: int = 0
    crop_size: int = 256
    """Side of the training crops in pixels."""

    rank: int = 0
    """The rank of this process; each process has image pools of its own."""


@dataclass(frozen=True)
class Phase:
    """One optimizer step: the networks that it trains and the losses that it minimizes.

    Args:
        name: Prefix of the logged names of its losses: `G` gives `G/cycle_A`.
        trains: The names of the networks that the step changes; all others are frozen meanwhile.
        losses: Computes the weighted terms from the batch and the shared images; their sum is minimized. No term may be named
            `total`, which is the logged name of the sum.
        every: The phase runs in each step whose number is a multiple of this.
    """

    name: str
    trains: tuple[str, ...]
    losses: Callable[[Batch, Shared], dict[str, Tensor]]
    every: int = 1


class System(Protocol):
    """Networks and how they are trained, built by `block(context, *, ...)` from a `SystemContext`.

    `gantoolkit.systems.objectives` has the parts of an objective for every system.
    """

    pairing: Pairing
    """How images of A and B are combined; an attribute of the class."""

    networks: dict[str, nn.Module]
    """By name: G_AB, D_B, ..."""

    phases: Sequence[Phase]
    """The phases in the order in which a step runs them."""

    directions: Mapping[str, nn.Module]
    """The translating modules by direction, `{"A2B": G_AB}`, with everything they need in their `state_dict`. See
    `Generator`.
    """

    pools: dict[str, ImagePool]
    """Image pools by name; checkpoints contain their state."""

    def forward(self, batch: Batch) -> Shared:
        """Compute the images that the phases share, once per step before the first phase, with gradients for every network."""
        ...

    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Sample images by name, in the order in which they are shown: real_A, fake_B, rec_A, ..."""
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
