"""The rule that every kind has, and checks that several rules share."""

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gantoolkit.errors import PluginError, first_line
from gantoolkit.registry.signature import read_parameters
from gantoolkit.testing.kit import Draw, NotApplicable, Rulebook, Subject, expect, same_randomness

__all__ = [
    "add_schema_rule",
    "all_close",
    "check_deterministic",
    "check_device",
    "check_gradient",
    "check_inputs_unchanged",
    "flatten",
]

_STEP = 1e-8
_DIRECTIONS = 3


def add_schema_rule(book: Rulebook) -> None:
    """Add the rule for every kind: the signature is the schema, and is documented."""

    @book.rule
    def documents_parameters(subject: Subject, draw: Draw) -> None:
        """The block has a docstring. Every keyword-only parameter has a type and a line under Args. There is no `**kwargs`,
        which would hide a misspelled parameter.
        """
        block = subject.load()
        expect(bool(inspect.getdoc(block)), "it has no docstring")
        try:
            parameters = read_parameters(block)
        except PluginError as error:
            return expect(False, str(error))
        if subject.kind == "recipes":
            return None  # their arguments are the parameters of the system, which documents them
        undocumented = [name for name, parameter in parameters.items() if not parameter.doc]
        return expect(not undocumented, f"Args has no line for {', '.join(undocumented)}")


def flatten(outputs: Any) -> list[Tensor]:
    """The tensors that a call returned, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        return [tensor for key in sorted(outputs) for tensor in flatten(outputs[key])]
    return [tensor for part in outputs for tensor in flatten(part)]


def all_close(outputs: Any, others: Any, *, relative: float = 1e-7) -> bool:
    """Whether two calls returned the same tensors, up to rounding."""
    return all(
        tensor.shape == other.shape
        and torch.allclose(tensor, other, rtol=0, atol=relative * max(1.0, other.abs().max().item()))
        for tensor, other in zip(flatten(outputs), flatten(others), strict=True)
    )


def check_inputs_unchanged(call: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
    """Break the rule if a call modifies its inputs."""
    before = [tensor.detach().clone() for tensor in inputs]
    call(*inputs)
    changed = [str(index + 1) for index, tensor in enumerate(inputs) if not torch.equal(tensor, before[index])]
    expect(not changed, f"argument {', '.join(changed)} was changed in place")


def check_deterministic(call: Callable[[], Any]) -> None:
    """Break the rule if the result of a call depends on a global random generator, or if the call advances one."""
    results: list[Any] = []
    for seed in (1, 2):
        with same_randomness(seed):
            before = _random_states()
            results.append(call())
            advanced = [name for name, state in _random_states().items() if state != before[name]]
            expect(not advanced, f"it draws from the global random generator of {', '.join(advanced)}")
    expect(all_close(results[0], results[1], relative=0), "two equal calls returned different values")


def check_gradient(call: Callable[..., Any], inputs: Sequence[Tensor], which: Sequence[int] | None = None) -> None:
    """Break the rule unless float64 inputs give float64 outputs and the gradient matches finite differences.

    Args:
        which: Indices of the inputs to differentiate with respect to; all by default.
    """
    indices = range(len(inputs)) if which is None else which
    inputs = [tensor.detach().double().requires_grad_(index in indices) for index, tensor in enumerate(inputs)]
    total = _weighted_sum(call(*inputs))
    expect(total.requires_grad, "no gradient passes through it")
    leaves = [inputs[index] for index in indices]
    tensors = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    gradients = dict(zip(indices, tensors, strict=True))
    pairs: list[tuple[float, float]] = []
    for _ in range(_DIRECTIONS):  # a kink, as of a ReLU, may lie on one of them
        directions = {index: torch.randn_like(inputs[index]) for index in indices}
        slope = torch.stack([(gradients[index] * directions[index]).sum() for index in indices]).sum().item()
        with torch.no_grad():
            ahead, behind = (_weighted_sum(call(*_move(inputs, directions, step))).item() for step in (_STEP, -_STEP))
        pairs.append((slope, (ahead - behind) / (2 * _STEP)))
    scale = max(1e-3, *(abs(value) for pair in pairs for value in pair), *(g.norm().item() for g in tensors))
    slope, difference = min(pairs, key=lambda pair: abs(pair[0] - pair[1]))
    expect(
        abs(slope - difference) <= 1e-3 * scale,
        f"the gradient is {slope:.6g}, but finite differences give {difference:.6g}; either a lower precision than float64 "
        "is used inside, or the gradient is wrong",
    )


def _weighted_sum(outputs: Any) -> Tensor:
    """A scalar that depends on every value of the outputs."""
    parts = flatten(outputs)
    dtypes = [str(part.dtype).removeprefix("torch.") for part in parts if part.dtype != torch.float64]
    expect(not dtypes, f"float64 inputs gave {', '.join(dtypes)} outputs")
    weights = torch.Generator("cpu").manual_seed(0)
    return torch.stack(
        [(part * torch.randn(part.shape, generator=weights, dtype=part.dtype).to(part.device)).sum() for part in parts]
    ).sum()


def _move(inputs: Sequence[Tensor], directions: Mapping[int, Tensor], step: float) -> list[Tensor]:
    return [tensor + step * directions[index] if index in directions else tensor for index, tensor in enumerate(inputs)]


def check_device(call: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
    """Break the rule unless outputs are on the device of the inputs, for their own device and for `meta`.

    Every machine has the meta device, and a block that runs on it can be checked as a part of a recipe.
    """
    for device in dict.fromkeys((inputs[0].device.type, "meta")):
        _check_output_device(call, inputs, device)


def _check_output_device(call: Callable[..., Any], inputs: Sequence[Tensor], device: str) -> None:
    try:
        outputs = flatten(call(*(tensor.detach().to(device) for tensor in inputs)))
    except (RuntimeError, NotImplementedError) as error:
        is_read = "meta tensor" in str(error).lower() and "device" not in str(error)
        if is_read or "data-independent" in str(error):
            raise NotApplicable(
                "it depends on the values of its inputs, which do not exist on the meta device"
            ) from error
        return expect(False, f"inputs on '{device}' raised: {first_line(error)}")
    others = sorted({str(output.device) for output in outputs if output.device.type != device})
    return expect(not others, f"inputs on '{device}' gave outputs on {', '.join(others)}")


def _random_states() -> dict[str, bytes | str]:
    states: dict[str, bytes | str] = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": repr(np.random.get_state(legacy=False)),
        "random": repr(random.getstate()),
    }
    if torch.cuda.is_available():
        states["torch.cuda"] = torch.cuda.get_rng_state().numpy().tobytes()
    return states
