"""Sequences of layers that fuse an instance norm and the layers after it into one kernel, on devices with such kernels."""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

from gantoolkit.layers.kernels import can_fuse, is_traced
from gantoolkit.layers.normalization import InstanceNorm

__all__ = ["Chain", "Identity", "Residual", "Step", "flatten"]


class Chain(nn.Sequential):
    """An `nn.Sequential` that runs fused kernels where `gantoolkit.layers.kernels.can_fuse` allows it.

    An instance norm (ours or PyTorch's) is fused with the layers after it: an `nn.ReLU` or `nn.LeakyReLU`, or the sum of the
    `Residual` that it ends, then an `nn.ReflectionPad2d`, also if that begins the next `Residual`. An `nn.ReflectionPad2d`
    alone has a kernel too.

    A convolution directly before an instance norm without running statistics is computed without its bias if the bias needs no
    gradient, on every device: the norm subtracts it.

    All other layers, and layers with hooks, are called as `nn.Sequential` calls them, with identical results.
    """

    def forward(self, input: Any) -> Any:
        if not isinstance(input, Tensor) or is_traced():
            return super().forward(input)
        return _run(_plan(self), input)


class Residual(nn.Module):
    """Add the output of `layers` to their input."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = Chain(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class Identity(enum.Enum):
    """The start and the end of a `Residual` among the steps: where its identity path branches off, and where it is added."""

    BRANCH = enum.auto()
    ADD = enum.auto()


Step = nn.Module | Identity
"""One element of a flattened chain."""


@dataclass(frozen=True)
class _Run:
    """Consecutive steps, up to but excluding `end`, that one kernel computes; without `norm` it only pads."""

    end: int
    norm: nn.InstanceNorm2d | None = None
    slope: float | None = None
    ends_residual: bool = False
    starts_residual: bool = False
    pad: int = 0


def flatten(layers: nn.Sequential) -> Iterator[Step]:
    """Yield the layers in order. A `Residual` without hooks becomes its own layers between two `Identity` marks."""
    for layer in layers:
        if _is_bare(layer, Residual) and _is_bare(layer.layers, Chain):
            yield Identity.BRANCH
            yield from flatten(layer.layers)
            yield Identity.ADD
        else:
            yield layer


@dataclass(frozen=True)
class _Plan:
    """The steps of a chain; for each of them, the run that begins there, and the convolution before a plain norm that it is.

    It is valid as long as the chain has the same `traits`.
    """

    traits: list[object]
    steps: list[Step]
    runs: list[_Run | None]
    convolutions: "list[_Convolution | None]"


_plans: WeakKeyDictionary[Chain, _Plan] = WeakKeyDictionary()
"""The last plan of each chain. Making one takes six times as long as reading the traits of the layers."""


def _plan(chain: Chain) -> _Plan:
    traits = [*map(bool, _GLOBAL_HOOKS), *_read_traits(chain)]
    plan = _plans.get(chain)
    if plan is None or plan.traits != traits:
        steps = list(flatten(chain))
        indices = range(len(steps))
        runs = [_match_run(steps, index) for index in indices]
        convolutions = [_convolution_before_norm(steps, index) for index in indices]
        _plans[chain] = plan = _Plan(traits, steps, runs, convolutions)
    return plan


def _read_traits(layers: nn.Sequential) -> list[object]:
    """All that a plan depends on: which layers there are, how they are called, and the attributes that decide on runs."""
    traits: list[object] = []
    for layer in layers:
        traits += _read_layer(layer)
        if isinstance(layer, Residual):
            traits += _read_layer(layer.layers)
            traits += _read_traits(layer.layers)
    return traits


def _read_layer(layer: nn.Module) -> tuple[object, ...]:
    own = vars(layer)
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
    attributes = own.get("padding"), own.get("negative_slope"), own.get("track_running_stats")
    return layer, type(layer).forward, own.get("forward"), bool(hooks), attributes


def _run(plan: _Plan, features: Tensor) -> Tensor:
    """Compute all steps, with fused kernels where possible."""
    steps, identities = plan.steps, []
    index = 0
    while index < len(steps):
        step, run, convolution = steps[index], plan.runs[index], plan.convolutions[index]
        if run is not None and _fits(run, features, identities):
            features = _fuse(run, features, identities)
            index = run.end
            continue
        if step is Identity.BRANCH:
            identities.append(features)
        elif step is Identity.ADD:
            features = identities.pop() + features
        elif convolution is not None and _needs_no_gradient(convolution.bias):
            features = _convolve_without_bias(convolution, features)
        else:
            features = step(features)
        index += 1
    return features


def _match_run(steps: Sequence[Step], index: int) -> _Run | None:
    """The run that begins at step `index`, or None if no kernel matches."""
    norm = steps[index]
    if pad := _pad_of(steps, index):
        return _Run(index + 1, pad=pad)
    if not _is_plain_norm(norm):
        return None
    end = index + 1
    slope = _slope_of(steps, end)
    ends_residual = slope is None and _step(steps, end) is Identity.ADD
    end += slope is not None or ends_residual
    starts_residual = _step(steps, end) is Identity.BRANCH
    pad = _pad_of(steps, end + starts_residual)
    if pad == 0:
        return _Run(end, norm, slope, ends_residual)
    return _Run(end + starts_residual + 1, norm, slope, ends_residual, starts_residual, pad)


def _fits(run: _Run, features: Tensor, identities: Sequence[Tensor]) -> bool:
    if not can_fuse(features, pad=run.pad):
        return False
    if run.norm is not None and run.norm.num_features != features.shape[1]:
        return False
    return not run.ends_residual or (identities[-1].shape, identities[-1].dtype) == (features.shape, features.dtype)


def _fuse(run: _Run, features: Tensor, identities: list[Tensor]) -> Tensor:
    """Compute a run with one kernel. `identities` is the stack of identity paths that await their sum."""
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm, fused_instance_norm_and_pad
    from gantoolkit.layers.kernels.triton_reflection_pad import fused_reflection_pad

    norm = run.norm
    if norm is None:
        return fused_reflection_pad(features, run.pad)
    residual = identities.pop() if run.ends_residual else None
    settings = {"weight": norm.weight, "bias": norm.bias, "eps": norm.eps, "slope": run.slope, "residual": residual}
    if not run.starts_residual:
        return fused_instance_norm(features, pad=run.pad, **settings)
    identity, features = fused_instance_norm_and_pad(features, pad=run.pad, **settings)
    identities.append(identity)
    return features


_Convolution = nn.Conv2d | nn.ConvTranspose2d


def _convolution_before_norm(steps: Sequence[Step], index: int) -> _Convolution | None:
    """Step `index` if it is a convolution whose bias the norm after it subtracts."""
    step = steps[index]
    if (_is_bare(step, nn.Conv2d) or _is_bare(step, nn.ConvTranspose2d)) and _is_plain_norm(_step(steps, index + 1)):
        return step
    return None


def _needs_no_gradient(bias: Tensor | None) -> bool:
    return bias is not None and not (bias.requires_grad and torch.is_grad_enabled())


def _convolve_without_bias(layer: _Convolution, features: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(features, layer.weight, None)
    padding: Any = layer.padding  # a tuple, for a transposed convolution
    sizes = (layer.stride, padding, layer.output_padding, layer.groups, layer.dilation)
    return functional.conv_transpose2d(features, layer.weight, None, *sizes)


def _is_plain_norm(step: object) -> TypeGuard[nn.InstanceNorm2d]:
    """Whether `step` is an instance norm without running statistics and hooks."""
    return (_is_bare(step, InstanceNorm) or _is_bare(step, nn.InstanceNorm2d)) and not step.track_running_stats


def _step(steps: Sequence[Step], index: int) -> Step | None:
    return steps[index] if index < len(steps) else None


def _pad_of(steps: Sequence[Step], index: int) -> int:
    """The padding of a reflection padding in pixels; 0 for other steps, or if the sides differ."""
    step = _step(steps, index)
    return step.padding[0] if _is_bare(step, nn.ReflectionPad2d) and len(set(step.padding)) == 1 else 0


def _slope_of(steps: Sequence[Step], index: int) -> float | None:
    """The negative slope of a ReLU or LeakyReLU; None for other steps."""
    step = _step(steps, index)
    if _is_bare(step, nn.LeakyReLU):
        return step.negative_slope
    return 0.0 if _is_bare(step, nn.ReLU) else None


_Layer = TypeVar("_Layer", bound=nn.Module)
_GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)


def _is_bare(step: object, kind: type[_Layer]) -> TypeGuard[_Layer]:
    """Whether `step` is a plain instance of `kind`: no hooks and no `forward` of its own."""
    return (
        isinstance(step, kind)
        and type(step).forward is kind.forward
        and "forward" not in vars(step)
        and not (step._forward_hooks or step._forward_pre_hooks or step._backward_hooks or step._backward_pre_hooks)
        and not any(_GLOBAL_HOOKS)
    )
