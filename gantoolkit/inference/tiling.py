"""Translate images too large for memory in tiles without seams: instance norm uses the statistics of the whole image.

Without instance norm, a tile translates as it does within the whole image if it is padded by a border as wide as the radius
of the receptive field. Instance norm depends on every pixel of the image. Its statistics are therefore computed first, over
all tiles, one layer at a time in the order of the calls. A pass for a layer uses the statistics of the layers before it and
stops at that layer. The last pass translates.

If all instance norms of a network lie in one `gantoolkit.layers.fused.Chain`, a tile resumes where it stopped, as long as
its features fit into a cache. With room for all of them, an image takes no longer than without tiles, and its pixels are read
twice. Without a cache, each pass starts from the image: this needs the memory of one tile, and about half as many translations
as there are instance norms.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.errors import DataError
from gantoolkit.inference.feature_cache import ChainState, FeatureCache, Stopwatch
from gantoolkit.layers.fused import Chain, Identity, flatten
from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.recipes.building import size_multiple_of
from gantoolkit.runtime.memory_format import bare_copy

__all__ = ["Statistics", "measure_reach", "padded_tile_length", "translate_in_tiles", "uses_image_statistics"]

Statistics = Literal["image", "tile"]
"""Where instance norm takes its statistics. `tile` translates each tile as an image of its own, which leaves seams; it
exists for comparison."""

_CHANNELS_AT_ONCE = 16
"""Channels whose statistics CUDA computes in one launch."""

_LONGEST_PROBE = 4096
"""Side in pixels of the largest image on which the receptive field is measured."""


@dataclass(frozen=True)
class _Side:
    """The extent of a tile along one axis, in pixels of the image: [first, last), and with its border [begin, end)."""

    first: int
    last: int
    begin: int
    end: int

    @property
    def input(self) -> slice:
        return slice(self.begin, self.end)

    @property
    def output(self) -> slice:
        return slice(self.first, self.last)

    def inner(self, length: int) -> slice:
        """Where the tile without its border lies in features of `length` pixels.

        Raises:
            DataError: When the features do not scale with the image.
        """
        scaled = [length * (edge - self.begin) / (self.end - self.begin) for edge in (self.first, self.last)]
        if not all(edge.is_integer() for edge in scaled):
            raise DataError("the network's features do not scale with the image, so it cannot be translated in tiles")
        return slice(int(scaled[0]), int(scaled[1]))


@dataclass
class _Moments:
    """Mean and sum of squared deviations of each channel over all pixels added so far, in float64."""

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "_Moments":
        # A few channels at a time: all of them in float64 would take twice the memory of the network's own features.
        groups = features[0].split(_CHANNELS_AT_ONCE if features.is_cuda else 1)
        moments = [torch.var_mean(group.double(), dim=(1, 2), correction=0) for group in groups]
        variance, mean = (torch.cat(values) for values in zip(*moments, strict=True))
        count = features[0, 0].numel()
        return cls(count, mean, variance * count)

    def add(self, other: "_Moments") -> None:
        """Merge with the moments of other pixels (Chan, Golub and LeVeque 1983, §2): exact even where the mean is large."""
        count, gap = self.count + other.count, other.mean - self.mean
        self.mean = self.mean + gap * (other.count / count)
        self.squares = self.squares + other.squares + gap.square() * (self.count * other.count / count)
        self.count = count

    def normalize(self, norm: nn.InstanceNorm2d, features: Tensor) -> Tensor:
        mean, variance = self.mean.float(), (self.squares / self.count).float()
        normalized = functional.batch_norm(features.float(), mean, variance, norm.weight, norm.bias, eps=norm.eps)
        return normalized.to(features.dtype)


class _NormReachedError(Exception):
    """Stops a forward pass at the instance norm whose statistics are being computed."""


class _WholeImageNorms:
    """Replace a network's instance norms by ones that use the statistics of the whole image.

    The norms are identified by the order in which they are called.

    Args:
        network: The network.
        cache: Keeps features between passes.
    """

    def __init__(self, network: nn.Module, cache: FeatureCache) -> None:
        self._norms = [norm for norm in network.modules() if _uses_image_statistics(norm)]
        self._chain = _find_chain(network, self._norms)
        self._steps = [] if self._chain is None else list(flatten(self._chain))
        self._cache = cache
        self._moments: list[_Moments] = []
        self._next_moments: _Moments | None = None
        self._calls = 0
        self._tile: tuple[_Side, _Side] | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replace the `forward` of the norms, and of their chain, within the context."""
        forwards: list[tuple[nn.Module, Callable[[Tensor], Tensor]]]
        forwards = [(norm, lambda input, norm=norm: self._call(norm, input)) for norm in self._norms]
        if self._chain is not None:
            forwards.append((self._chain, self._walk))
        originals = [vars(layer).get("forward") for layer, _ in forwards]
        for layer, forward in forwards:
            layer.forward = forward
        try:
            yield
        finally:
            for (layer, _), forward in zip(forwards, originals, strict=True):
                if forward is None:
                    del layer.forward
                else:
                    layer.forward = forward

    def begin(self, tile: tuple[_Side, _Side]) -> None:
        """Prepare for the forward pass of a tile."""
        self._calls, self._tile = 0, tile

    def needs_pixels(self, tile: tuple[_Side, _Side]) -> bool:
        """Whether the pass of a tile depends on its pixels: not if it begins and stops within the chain."""
        state = self._cache.find(tile)
        following = [] if state is None else self._steps[state.step + 1 :]
        return not any(step is norm for step in following for norm in self._norms)

    def end_pass(self) -> bool:
        """Finish a pass over all tiles. Returns whether it computed the statistics of another norm."""
        if self._next_moments is None:
            return False
        self._moments.append(self._next_moments)
        self._next_moments = None
        return True

    def _walk(self, features: Tensor) -> Tensor:
        """Run a chain, from the step at which the tile stopped in the last pass."""
        assert self._tile is not None
        first, identities = 0, []
        state = self._cache.load(self._tile, features.device) if self._calls == 0 else None
        if state is not None:
            features, identities = state.features, list(state.identities)
            first, self._calls = state.step, state.norms
        may_cache = self._calls == (state.norms if state else 0)
        stopwatch = Stopwatch(features.device)
        for index in range(first, len(self._steps)):
            step = self._steps[index]
            if step is Identity.BRANCH:
                identities.append(features)
            elif step is Identity.ADD:
                features = identities.pop() + features
            else:
                try:
                    features = step(features)
                except _NormReachedError:
                    if may_cache:
                        stopped = ChainState(index, self._calls - 1, features, tuple(identities))
                        self._cache.store(self._tile, stopped, stopwatch)
                    raise
        return features

    def _call(self, norm: nn.InstanceNorm2d, features: Tensor) -> Tensor:
        assert self._tile is not None
        index = self._calls
        self._calls += 1
        if index < len(self._moments):
            return self._moments[index].normalize(norm, features)
        rows, columns = (side.inner(length) for side, length in zip(self._tile, features.shape[2:], strict=True))
        moments = _Moments.of(features[..., rows, columns])
        if self._next_moments is None:
            self._next_moments = moments
        else:
            self._next_moments.add(moments)
        raise _NormReachedError


def translate_in_tiles(
    network: nn.Module,
    forward: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    read: Callable[[slice, slice], Tensor],
    write: Callable[[slice, slice, Tensor], None],
    *,
    tile: int,
    reach: int,
    cache: FeatureCache | None = None,
    statistics: Statistics = "image",
) -> None:
    """Translate an image without ever having all of it in memory.

    Args:
        network: The network that `forward` calls; its instance norms are replaced during the call.
        forward: Translates (1, in_channels, H, W), with sides that are multiples of the network's `size_multiple`.
        size: Height and width of the image, multiples of `size_multiple`.
        read: Returns the pixels in some rows and columns, (1, in_channels, H, W) in [−1, 1], on the device of the network.
        write: Receives the translation of some rows and columns, (1, out_channels, H, W).
        tile: Largest side of a tile in pixels, without its border.
        reach: Width of the border, as `measure_reach` returns it.
        cache: Keeps features between passes, for speed. By default, each pass starts from the image.
        statistics: Where instance norm takes its statistics.

    Raises:
        DataError: When the network cannot translate in tiles.
    """
    multiple = size_multiple_of(network)
    tiles = list(itertools.product(*(_split(length, tile, reach, multiple) for length in size)))
    norms = _WholeImageNorms(network, cache or FeatureCache(0))
    if statistics == "tile":
        for rows, columns in tiles:
            _translate(forward, rows, columns, read(rows.input, columns.input), write)
        return
    with norms.installed():
        pixels = None
        while True:
            for rows, columns in tiles:
                norms.begin((rows, columns))
                if pixels is None or norms.needs_pixels((rows, columns)):
                    pixels = read(rows.input, columns.input)  # of one shape for all tiles
                try:
                    _translate(forward, rows, columns, pixels, write)
                except _NormReachedError:
                    continue
            if not norms.end_pass():
                return


def _translate(
    forward: Callable[[Tensor], Tensor],
    rows: _Side,
    columns: _Side,
    pixels: Tensor,
    write: Callable[[slice, slice, Tensor], None],
) -> None:
    translation = forward(pixels)
    height, width = translation.shape[2:]
    write(rows.output, columns.output, translation[..., rows.inner(height), columns.inner(width)])


def padded_tile_length(length: int, tile: int, reach: int, multiple: int) -> int:
    """The length of a tile with its border, along one side of an image.

    Args:
        length: Length of the side, a multiple of `multiple`.
        tile, reach: As in `translate_in_tiles`.
        multiple: The network's `size_multiple`.
    """
    side = _split(length, tile, reach, multiple)[0]
    return side.end - side.begin


def _split(length: int, tile: int, reach: int, multiple: int) -> list[_Side]:
    """Split a side into tiles of about the same length, with borders that make their inputs equally long.

    Inputs of one shape let the allocator reuse their memory; several shapes would fragment it.
    """
    units, border = length // multiple, -(-reach // multiple) * multiple
    count = -(-units // max(1, tile // multiple))
    edges = [units * index // count * multiple for index in range(count + 1)]
    padded = max(min(length, last + border) - max(0, first - border) for first, last in itertools.pairwise(edges))
    begins = [min(max(0, first - border), length - padded) for first in edges[:-1]]
    return [
        _Side(first, last, begin, begin + padded)
        for (first, last), begin in zip(itertools.pairwise(edges), begins, strict=True)
    ]


def _find_chain(network: nn.Module, norms: Sequence[nn.Module]) -> Chain | None:
    """The chain that contains all of these norms as steps, or None."""
    for layer in network.modules():
        if isinstance(layer, Chain):
            steps = {id(step) for step in flatten(layer)}
            if norms and all(id(norm) in steps for norm in norms):
                return layer
    return None


def uses_image_statistics(network: nn.Module) -> bool:
    """Whether the network has an instance norm, so that tiles are translated in several passes."""
    return any(map(_uses_image_statistics, network.modules()))


def _uses_image_statistics(layer: nn.Module) -> TypeGuard[nn.InstanceNorm2d]:
    return isinstance(layer, nn.InstanceNorm2d) and not layer.track_running_stats


def measure_reach(network: nn.Module, channels: int) -> int:
    """Measure the radius of a network's receptive field in pixels, ignoring instance norm.

    One column of an image is set to NaN, then one row; the radius is how far NaN spreads in the output. A copy of the network
    computes this in float64, for which convolutions use only direct algorithms.

    Args:
        network: A generator.
        channels: Number of input channels.

    Raises:
        DataError: When the receptive field has no bound, or the network draws random numbers.
    """
    traits = read_traits(network, NetworkTraits)
    if traits.stochastic:
        raise DataError(
            "the network draws random numbers or depends on the whole image, so tiles would not fit together"
        )
    multiple = size_multiple_of(network)
    probe = bare_copy(network).cpu()
    for layer in probe.modules():
        if _uses_image_statistics(layer):
            layer.forward = nn.Identity().forward
    probe.double().eval()
    smallest = max(4 * multiple, traits.smallest_size)
    thin = -(-smallest // multiple) * multiple
    length = max(-(-256 // multiple) * multiple, 4 * thin)
    while length <= max(_LONGEST_PROBE, 8 * multiple):
        reaches = [_probe(probe, channels, thin, length, multiple, vertical) for vertical in (False, True)]
        if all(reach is not None for reach in reaches):
            return max(reach for reach in reaches if reach is not None)
        length *= 2
    raise DataError("each pixel of a translation depends on the whole image, so tiles would not fit together")


def _probe(network: nn.Module, channels: int, thin: int, length: int, multiple: int, vertical: bool) -> int | None:
    """How far NaN spreads along one axis; None if it reaches the edge."""
    middle = length // 2 // multiple * multiple
    image = torch.zeros(1, channels, thin, length, dtype=torch.float64)
    image[..., middle : middle + multiple] = torch.nan
    with torch.inference_mode():
        output = network(image.mT.contiguous()).mT if vertical else network(image)
    affected = output.isnan().flatten(0, 2).any(0).nonzero().flatten()
    if len(affected) == 0:
        return 0
    first, last = int(affected[0]), int(affected[-1])
    if first == 0 or last == output.shape[-1] - 1:
        return None
    return max(middle - first, last - (middle + multiple - 1), 0)
