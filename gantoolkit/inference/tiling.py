"""Images too large for memory: translated in tiles, with the instance norm of the whole image, so that none shows.

A network without instance norm gives a tile's pixels the values that they have in the whole image, as soon as the tile
brings along all that they depend on: a border as wide as the receptive field. Instance norm depends on every pixel, however
far away. So its statistics are gathered first, over all tiles, for one layer after the other in the order in which they are
called: what comes before a layer is known by then, and what comes after it is not computed. A last pass translates.

Where a network's instance norms all lie in one `gantoolkit.layers.fused.Chain`, a tile goes on from where it stopped, as long as there
is memory to keep its features; with memory for all of them an image takes no longer than otherwise. Without any, each pass
begins anew: memory is that of one tile, and time about half as many translations as there are layers of instance norm.
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
from gantoolkit.layers.fused import Chain, Identity, Step, flatten
from gantoolkit.plugins import NetworkTraits, read_traits
from gantoolkit.recipes.building import size_multiple_of
from gantoolkit.runtime.memory_format import bare_copy

__all__ = ["Statistics", "measure_reach", "seen_length", "translate_in_tiles"]

Statistics = Literal["image", "tile"]
"""Over what instance norm takes its statistics. `tile` is what comes of translating each tile as an image of its own, with
seams where the statistics jump; it is there to be compared with."""

_LONGEST_PROBE = 4096
"""A network whose receptive field is not found within so many pixels has none that a tile could bring along."""


@dataclass(frozen=True)
class _Side:
    """One side of a tile: what it is to give, and with the border what it has to see; pixels of the image."""

    first: int
    last: int
    begin: int
    end: int

    @property
    def seen(self) -> slice:
        return slice(self.begin, self.end)

    @property
    def given(self) -> slice:
        return slice(self.first, self.last)

    def own(self, length: int) -> slice:
        """Where what it is to give lies in features that are `length` long.

        Raises:
            DataError: When the features do not halve and double with the image.
        """
        scaled = [length * (at - self.begin) / (self.end - self.begin) for at in (self.first, self.last)]
        if not all(at.is_integer() for at in scaled):
            raise DataError("its features do not grow as the image does, so that it cannot be translated in tiles")
        return slice(int(scaled[0]), int(scaled[1]))


@dataclass
class _Moments:
    """Mean and sum of squared deviations of each channel, over all the pixels added so far; float64."""

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "_Moments":
        # One feature map at a time: all of them in float64 would be twice what the network itself takes.
        found = [torch.var_mean(values.double(), correction=0) for values in features[0]]
        variance, mean = (torch.stack(each) for each in zip(*found, strict=True))
        count = features[0, 0].numel()
        return cls(count, mean, variance * count)

    def add(self, other: "_Moments") -> None:
        """Chan, Golub and LeVeque 1983, §2: nothing is lost where the mean is large."""
        both, gap = self.count + other.count, other.mean - self.mean
        self.mean = self.mean + gap * (other.count / both)
        self.squares = self.squares + other.squares + gap.square() * (self.count * other.count / both)
        self.count = both

    def normalize(self, norm: nn.InstanceNorm2d, features: Tensor) -> Tensor:
        mean, variance = self.mean.float(), (self.squares / self.count).float()
        made = functional.batch_norm(features.float(), mean, variance, norm.weight, norm.bias, eps=norm.eps)
        return made.to(features.dtype)


class _NormReachedError(Exception):
    """A forward pass came to the instance norm whose statistics are being gathered, and goes no further."""


@dataclass(frozen=True)
class _Stop:
    """Where a tile's way through a chain stopped: at which step, after how many norms, and with what."""

    step: int
    norms: int
    features: Tensor
    identities: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in {id(one): one for one in (self.features, *self.identities)}.values())


class _WholeImageNorms:
    """Instance norms with the statistics of the whole image; which one is called is told by its place in the order.

    Args:
        network: Whose norms.
        keep: Bytes of features that may be kept from pass to pass.
    """

    def __init__(self, network: nn.Module, keep: int) -> None:
        self._norms = [norm for norm in network.modules() if _looks_at_the_image(norm)]
        self._chain = _find_chain(network, self._norms)
        self._room = keep
        self._stops: dict[tuple[_Side, _Side], _Stop] = {}
        self._known: list[_Moments] = []
        self._gathered: _Moments | None = None
        self._called = 0
        self._tile: tuple[_Side, _Side] | None = None

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network's norms be these meanwhile."""
        forwards: list[tuple[nn.Module, Callable[[Tensor], Tensor]]]
        forwards = [(norm, lambda input, norm=norm: self._call(norm, input)) for norm in self._norms]
        if self._chain is not None:
            steps = list(flatten(self._chain))
            forwards.append((self._chain, lambda input: self._walk(steps, input)))
        before = [vars(layer).get("forward") for layer, _ in forwards]
        for layer, forward in forwards:
            layer.forward = forward
        try:
            yield
        finally:
            for (layer, _), forward in zip(forwards, before, strict=True):
                if forward is None:
                    del layer.forward
                else:
                    layer.forward = forward

    def begin(self, tile: tuple[_Side, _Side]) -> None:
        """A forward pass over a tile follows."""
        self._called, self._tile = 0, tile

    def end_pass(self) -> bool:
        """All tiles have been seen; whether one more norm has been found and is known now."""
        if self._gathered is None:
            return False
        self._known.append(self._gathered)
        self._gathered = None
        return True

    def _walk(self, steps: Sequence[Step], features: Tensor) -> Tensor:
        """Go through a chain, from where the tile stopped the last time."""
        assert self._tile is not None
        first, identities = 0, []
        stop = self._stops.get(self._tile) if self._called == 0 else None
        if stop is not None:
            features = stop.features.to(features.device)
            first, self._called, identities = (
                stop.step,
                stop.norms,
                [one.to(features.device) for one in stop.identities],
            )
        may_keep = self._called == (stop.norms if stop else 0)
        for at in range(first, len(steps)):
            step = steps[at]
            if step is Identity.LEAVES:
                identities.append(features)
            elif step is Identity.RETURNS:
                features = identities.pop() + features
            else:
                try:
                    features = step(features)
                except _NormReachedError:
                    if may_keep:
                        self._keep(_Stop(at, self._called - 1, features.cpu(), tuple(one.cpu() for one in identities)))
                    raise
        return features

    def _keep(self, stop: _Stop) -> None:
        assert self._tile is not None
        before = self._stops.get(self._tile)
        more = stop.bytes - (before.bytes if before else 0)
        if more <= self._room:
            self._room -= more
            self._stops[self._tile] = stop

    def _call(self, norm: nn.InstanceNorm2d, features: Tensor) -> Tensor:
        assert self._tile is not None
        number = self._called
        self._called += 1
        if number < len(self._known):
            return self._known[number].normalize(norm, features)
        rows, columns = (side.own(length) for side, length in zip(self._tile, features.shape[2:], strict=True))
        found = _Moments.of(features[..., rows, columns])
        if self._gathered is None:
            self._gathered = found
        else:
            self._gathered.add(found)
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
    keep: int = 0,
    statistics: Statistics = "image",
) -> None:
    """Translate an image that is never whole in memory.

    Args:
        network: What `forward` calls; its instance norms are replaced meanwhile.
        forward: Translates (1, in_channels, H, W), sides being multiples of the network's `size_multiple`.
        size: Height and width of the image, such multiples.
        read: The pixels in some rows and columns, (1, in_channels, H, W) in [−1, 1].
        write: Takes the translation of some rows and columns, (1, out_channels, H, W).
        tile: The most pixels that a side of what is translated together has, without its border.
        reach: Width of the border, as `measure_reach` says.
        keep: Bytes of the host's memory in which features may be kept from pass to pass, for speed.
        statistics: Over what instance norm takes them.

    Raises:
        DataError: When the network cannot be translated with in tiles.
    """
    multiple = size_multiple_of(network)
    tiles = list(itertools.product(*(_split(length, tile, reach, multiple) for length in size)))
    norms = _WholeImageNorms(network, keep)
    if statistics == "tile":
        for rows, columns in tiles:
            _translate(forward, rows, columns, read, write)
        return
    with norms.in_place():
        while True:
            for rows, columns in tiles:
                norms.begin((rows, columns))
                try:
                    _translate(forward, rows, columns, read, write)
                except _NormReachedError:
                    continue
            if not norms.end_pass():
                return


def _translate(
    forward: Callable[[Tensor], Tensor],
    rows: _Side,
    columns: _Side,
    read: Callable[[slice, slice], Tensor],
    write: Callable[[slice, slice, Tensor], None],
) -> None:
    made = forward(read(rows.seen, columns.seen))
    write(rows.given, columns.given, made[..., rows.own(made.shape[2]), columns.own(made.shape[3])])


def seen_length(length: int, tile: int, reach: int, multiple: int) -> int:
    """How many pixels of a side go through the network at once: those of a tile with its border.

    Args:
        length: Of the side, a multiple of `multiple`.
        tile, reach: As `translate_in_tiles`.
        multiple: The network's `size_multiple`.
    """
    side = _split(length, tile, reach, multiple)[0]
    return side.end - side.begin


def _split(length: int, tile: int, reach: int, multiple: int) -> list[_Side]:
    """Parts of a side of about one length, which all see equally much: some, more than their border.

    So tiles have one shape, and each takes the memory that the last one gave back; of several shapes an allocator keeps pieces.
    """
    units, border = length // multiple, -(-reach // multiple) * multiple
    count = -(-units // max(1, tile // multiple))
    edges = [units * number // count * multiple for number in range(count + 1)]
    seen = max(min(length, last + border) - max(0, first - border) for first, last in itertools.pairwise(edges))
    begins = [min(max(0, first - border), length - seen) for first in edges[:-1]]
    return [
        _Side(first, last, begin, begin + seen)
        for (first, last), begin in zip(itertools.pairwise(edges), begins, strict=True)
    ]


def _find_chain(network: nn.Module, norms: Sequence[nn.Module]) -> Chain | None:
    """A chain of which all these norms are steps; None where there is none."""
    for layer in network.modules():
        if isinstance(layer, Chain):
            steps = {id(step) for step in flatten(layer)}
            if norms and all(id(norm) in steps for norm in norms):
                return layer
    return None


def _looks_at_the_image(layer: nn.Module) -> TypeGuard[nn.InstanceNorm2d]:
    return isinstance(layer, nn.InstanceNorm2d) and not layer.track_running_stats


def measure_reach(network: nn.Module, channels: int) -> int:
    """How many pixels away a pixel can be and still matter to another's translation, instance norm aside.

    One column of pixels is no number, and so is all that comes of it; then one row. A copy of the network computes this in
    float64, in which no convolution takes another way than the direct one.

    Args:
        network: A generator.
        channels: How many it takes.

    Raises:
        DataError: When that is as far as the image goes, or the network draws random numbers.
    """
    traits = read_traits(network, NetworkTraits)
    if traits.stochastic:
        raise DataError(
            "its network draws random numbers or looks at the whole image, so that tiles would not fit together"
        )
    multiple = size_multiple_of(network)
    probe = bare_copy(network).cpu()
    for layer in probe.modules():
        if _looks_at_the_image(layer):
            layer.forward = nn.Identity().forward
    probe.double().eval()
    smallest = max(4 * multiple, traits.smallest_size)
    thin = -(-smallest // multiple) * multiple
    length = max(-(-256 // multiple) * multiple, 4 * thin)
    while length <= max(_LONGEST_PROBE, 8 * multiple):
        reaches = [_probe(probe, channels, thin, length, multiple, upright) for upright in (False, True)]
        if all(reach is not None for reach in reaches):
            return max(reach for reach in reaches if reach is not None)
        length *= 2
    raise DataError(
        "each pixel of its translations depends on the whole image, so that it cannot be translated in tiles"
    )


def _probe(network: nn.Module, channels: int, thin: int, length: int, multiple: int, upright: bool) -> int | None:
    """How far what is no number spreads; None where that is to the end."""
    middle = length // 2 // multiple * multiple
    image = torch.zeros(1, channels, thin, length, dtype=torch.float64)
    image[..., middle : middle + multiple] = torch.nan
    with torch.inference_mode():
        made = network(image.mT.contiguous()).mT if upright else network(image)
    spoiled = made.isnan().flatten(0, 2).any(0).nonzero().flatten()
    if len(spoiled) == 0:
        return 0
    first, last = int(spoiled[0]), int(spoiled[-1])
    if first == 0 or last == made.shape[-1] - 1:
        return None
    return max(middle - first, last - (middle + multiple - 1), 0)
