"""Sequences of layers whose instance norms take what follows them into one kernel, on devices that have such kernels."""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

from torch import Tensor, nn
from torch.nn.modules import module as every_module

from gantoolkit.layers.kernels import can_fuse, has_kernels
from gantoolkit.layers.normalization import InstanceNorm

__all__ = ["Chain", "Identity", "Residual", "Step", "flatten"]


class Chain(nn.Sequential):
    """An `nn.Sequential` that hands channels_last features to fused kernels, where `gantoolkit.layers.kernels.can_fuse` says yes.

    What is fused is instance norm, ours or PyTorch's, with an `nn.ReLU` or `nn.LeakyReLU` after it, with the sum of a
    `Residual` that it ends, and with the `nn.ReflectionPad2d` that comes next, be it in another `Residual`; and
    `nn.ReflectionPad2d` alone. Everything else, and layers with hooks, is called as `nn.Sequential` calls it, which gives the
    same bits.
    """

    def forward(self, input: Any) -> Any:
        if not isinstance(input, Tensor) or not has_kernels(input.device):
            return super().forward(input)
        return _run(list(flatten(self)), input)


class Residual(nn.Module):
    """Layers beside an identity path; nothing follows the sum."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = Chain(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class Identity(enum.Enum):
    """Where the identity path of a `Residual` leaves its layers, and where it comes back."""

    LEAVES = enum.auto()
    RETURNS = enum.auto()


Step = nn.Module | Identity
"""What a chain does one after the other."""


@dataclass(frozen=True)
class _Run:
    """Steps, up to the one before `end`, that one kernel does; without `norm` it only pads."""

    end: int
    norm: nn.InstanceNorm2d | None = None
    slope: float | None = None
    sums: bool = False
    keeps: bool = False
    pad: int = 0


def flatten(layers: nn.Sequential) -> Iterator[Step]:
    """The layers in order, a `Residual` as those inside of it with marks around them, unless hooks wait for it."""
    for layer in layers:
        if _is_bare(layer, Residual) and _is_bare(layer.layers, Chain):
            yield Identity.LEAVES
            yield from flatten(layer.layers)
            yield Identity.RETURNS
        else:
            yield layer


def _run(steps: Sequence[Step], features: Tensor) -> Tensor:
    """Do all steps, one kernel for as many of them as it takes."""
    identities: list[Tensor] = []
    at = 0
    while at < len(steps):
        step = steps[at]
        run = _read(steps, at)
        if run is not None and _fits(run, features, identities):
            features = _fuse(run, features, identities)
            at = run.end
            continue
        if step is Identity.LEAVES:
            identities.append(features)
        elif step is Identity.RETURNS:
            features = identities.pop() + features
        else:
            features = step(features)
        at += 1
    return features


def _read(steps: Sequence[Step], at: int) -> _Run | None:
    """The run that begins at a step, if a kernel could do one."""
    norm = steps[at]
    if pad := _pad_of(steps, at):
        return _Run(at + 1, pad=pad)
    if not (_is_bare(norm, InstanceNorm) or _is_bare(norm, nn.InstanceNorm2d)) or norm.track_running_stats:
        return None
    end = at + 1
    slope = _slope_of(steps, end)
    sums = slope is None and _step(steps, end) is Identity.RETURNS
    end += slope is not None or sums
    keeps = _step(steps, end) is Identity.LEAVES
    pad = _pad_of(steps, end + keeps)
    if pad == 0:
        return _Run(end, norm, slope, sums)
    return _Run(end + keeps + 1, norm, slope, sums, keeps, pad)


def _fits(run: _Run, features: Tensor, identities: Sequence[Tensor]) -> bool:
    if not can_fuse(features, pad=run.pad):
        return False
    if run.norm is not None and run.norm.num_features != features.shape[1]:
        return False
    return not run.sums or (identities[-1].shape, identities[-1].dtype) == (features.shape, features.dtype)


def _fuse(run: _Run, features: Tensor, identities: list[Tensor]) -> Tensor:
    """Do a run; what leaves or returns on the identity path goes to or comes from `identities`."""
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm, fused_instance_norm_and_pad
    from gantoolkit.layers.kernels.triton_reflection_pad import fused_reflection_pad

    norm = run.norm
    if norm is None:
        return fused_reflection_pad(features, run.pad)
    residual = identities.pop() if run.sums else None
    settings = {"weight": norm.weight, "bias": norm.bias, "eps": norm.eps, "slope": run.slope, "residual": residual}
    if not run.keeps:
        return fused_instance_norm(features, pad=run.pad, **settings)
    kept, features = fused_instance_norm_and_pad(features, pad=run.pad, **settings)
    identities.append(kept)
    return features


def _step(steps: Sequence[Step], at: int) -> Step | None:
    return steps[at] if at < len(steps) else None


def _pad_of(steps: Sequence[Step], at: int) -> int:
    """Pixels that a reflection padding adds on each side; 0 for another step, or where sides differ."""
    step = _step(steps, at)
    return step.padding[0] if _is_bare(step, nn.ReflectionPad2d) and len(set(step.padding)) == 1 else 0


def _slope_of(steps: Sequence[Step], at: int) -> float | None:
    """What an activation multiplies negative numbers by; None for another step."""
    step = _step(steps, at)
    if _is_bare(step, nn.LeakyReLU):
        return step.negative_slope
    return 0.0 if _is_bare(step, nn.ReLU) else None


_Layer = TypeVar("_Layer", bound=nn.Module)


def _is_bare(step: object, kind: type[_Layer]) -> TypeGuard[_Layer]:
    """Whether calling a step would do what layers of that class do and nothing else, no hooks."""
    return (
        isinstance(step, kind)
        and type(step).forward is kind.forward
        and "forward" not in vars(step)
        and not (step._forward_hooks or step._forward_pre_hooks or step._backward_hooks or step._backward_pre_hooks)
        and not (every_module._global_forward_hooks or every_module._global_forward_pre_hooks)
        and not (every_module._global_backward_hooks or every_module._global_backward_pre_hooks)
    )
