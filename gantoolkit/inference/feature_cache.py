"""The features of tiles between passes: on the device of the network, or in pinned host memory if copies are fast enough."""

import functools
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

__all__ = ["ChainState", "FeatureCache", "Stopwatch", "host_bandwidth"]

_Place = Literal["device", "host"]

_PROBE_BYTES = 1 << 26


@dataclass(frozen=True)
class ChainState:
    """The state of a tile's pass through a chain when it stopped: at which step, and after how many norms."""

    step: int
    norms: int
    features: Tensor
    identities: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        return sum({id(tensor): tensor.nbytes for tensor in (self.features, *self.identities)}.values())


class FeatureCache:
    """Keeps the state of each tile for its next pass.

    A state stays on the device as long as the device has room. In host memory it is kept if copying it there and back is faster
    than computing it again, which is measured. Otherwise the tile keeps its earlier state, or none.

    Args:
        device_bytes: Bytes of states on the device of the network.
        host_bytes: Bytes of further states in pinned host memory; only for a network on CUDA.
    """

    def __init__(self, device_bytes: int, host_bytes: int = 0) -> None:
        self._free: dict[_Place, int] = {"device": device_bytes, "host": host_bytes}
        self._states: dict[Hashable, tuple[_Place, ChainState]] = {}

    def find(self, tile: Hashable) -> ChainState | None:
        """The last state of a tile, wherever it is."""
        return self._states[tile][1] if tile in self._states else None

    def load(self, tile: Hashable, device: torch.device) -> ChainState | None:
        """The last state of a tile, on a device."""
        state = self.find(tile)
        return None if state is None else _copy(state, device)

    def store(self, tile: Hashable, state: ChainState, stopwatch: "Stopwatch") -> None:
        """Keep a state in place of the tile's last one, if there is room and it is worthwhile.

        Args:
            tile: The tile.
            state: A state on the device.
            stopwatch: Started when the computation of the state began.
        """
        if self._has_room("device", tile, state):
            self._keep("device", tile, state)
        elif self._has_room("host", tile, state) and self._is_copy_faster(tile, state, stopwatch):
            self._keep("host", tile, _copy_to_pinned_memory(state))

    def _has_room(self, place: _Place, tile: Hashable, state: ChainState) -> bool:
        return state.bytes - self._bytes_of(tile, place) <= self._free[place]

    def _bytes_of(self, tile: Hashable, place: _Place) -> int:
        last_place, last = self._states.get(tile, (None, None))
        return last.bytes if last is not None and last_place == place else 0

    def _is_copy_faster(self, tile: Hashable, state: ChainState, stopwatch: "Stopwatch") -> bool:
        if not state.features.is_cuda:
            return False
        if tile in self._states:  # the next pass would have to compute even more
            return True
        return 2 * state.bytes / host_bandwidth(state.features.device) < stopwatch.seconds()

    def _keep(self, place: _Place, tile: Hashable, state: ChainState) -> None:
        if tile in self._states:
            last_place, last = self._states[tile]
            self._free[last_place] += last.bytes
        self._free[place] -= state.bytes
        self._states[tile] = (place, state)


class Stopwatch:
    """Measures the time that a device computes; does nothing on a CPU until it is read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        if self._start is not None:
            self._start.record(torch.cuda.current_stream(device))

    def seconds(self) -> float:
        """The seconds since the start; waits for the device."""
        if self._start is None:
            return 0.0
        end = torch.cuda.Event(enable_timing=True)
        end.record(torch.cuda.current_stream(self._device))
        end.synchronize()
        return self._start.elapsed_time(end) / 1000


@functools.cache
def host_bandwidth(device: torch.device) -> float:
    """Bytes per second of copies from a CUDA device to pinned memory; measured once."""
    source = torch.empty(_PROBE_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty(_PROBE_BYTES, dtype=torch.uint8, pin_memory=True)
    target.copy_(source, non_blocking=True)  # the first copy is slower
    stopwatch = Stopwatch(device)
    target.copy_(source, non_blocking=True)
    return _PROBE_BYTES / max(stopwatch.seconds(), 1e-9)


def _copy(state: ChainState, device: torch.device) -> ChainState:
    features, *identities = (tensor.to(device, non_blocking=True) for tensor in (state.features, *state.identities))
    return replace(state, features=features, identities=tuple(identities))


def _copy_to_pinned_memory(state: ChainState) -> ChainState:
    """Copy without waiting: a later copy to the device comes after it on the same stream."""

    def copy(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)

    return replace(state, features=copy(state.features), identities=tuple(map(copy, state.identities)))
