"""Rules of every kind of block, and what rules share."""

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
    "agree",
    "check_device",
    "check_gradient",
    "check_inputs_kept",
    "check_repeats",
    "flatten",
]

_NUDGE = 1e-8
_DIRECTIONS = 3


def add_schema_rule(book: Rulebook) -> None:
    """Every kind: the signature is the schema, and is documented."""

    @book.rule
    def documents_parameters(subject: Subject, draw: Draw) -> None:
        """A docstring says what the block is for; every keyword-only parameter has a type and a line under Args, and there is
        no `**kwargs` to swallow a typing error.
        """
        block = subject.load()
        expect(bool(inspect.getdoc(block)), "it has no docstring")
        try:
            parameters = read_parameters(block)
        except PluginError as error:
            return expect(False, str(error))
        if subject.kind == "recipes":
            return None  # their arguments are the fields of the system, which documents them
        silent = [name for name, parameter in parameters.items() if not parameter.doc]
        return expect(not silent, f"nothing is said under Args of {', '.join(silent)}")


def flatten(outputs: Any) -> list[Tensor]:
    """The tensors that a call returned, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        return [tensor for key in sorted(outputs) for tensor in flatten(outputs[key])]
    return [tensor for part in outputs for tensor in flatten(part)]


def agree(some: Any, others: Any, *, relative: float = 1e-7) -> bool:
    """Whether two calls returned the same, up to rounding."""
    pairs = list(zip(flatten(some), flatten(others), strict=True))
    return all(
        here.shape == there.shape
        and torch.allclose(here, there, rtol=0, atol=relative * max(1.0, there.abs().max().item()))
        for here, there in pairs
    )


def check_inputs_kept(call: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
    """Break the rule when a call changes what it was given."""
    before = [tensor.detach().clone() for tensor in inputs]
    call(*inputs)
    changed = [place for place, tensor in enumerate(inputs) if not torch.equal(tensor, before[place])]
    expect(not changed, f"argument {', '.join(str(place + 1) for place in changed)} was changed in place")


def check_repeats(call: Callable[[], Any]) -> None:
    """Break the rule when what a call returns hangs on, or changes, a global random generator."""
    results: list[Any] = []
    for seed in (1, 2):
        with same_randomness(seed):
            before = _random_states()
            results.append(call())
            touched = [name for name, state in _random_states().items() if state != before[name]]
            expect(not touched, f"it draws from the global random generator of {', '.join(touched)}")
    expect(agree(results[0], results[1], relative=0), "two equal calls returned different values")


def check_gradient(call: Callable[..., Any], inputs: Sequence[Tensor], which: Sequence[int] | None = None) -> None:
    """Break the rule unless float64 stays float64 and gradients are the slopes that differences show.

    Args:
        which: Places of the inputs by which the slopes are taken; all by default.
    """
    moved = range(len(inputs)) if which is None else which
    inputs = [tensor.detach().double().requires_grad_(place in moved) for place, tensor in enumerate(inputs)]
    leaves = [inputs[place] for place in moved]
    total = _weigh(call(*inputs))
    expect(total.requires_grad, "no gradient passes through it")
    found = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    gradients = dict(zip(moved, found, strict=True))
    pairs: list[tuple[float, float]] = []
    for _ in range(_DIRECTIONS):  # a bend, as of a ReLU, may lie in the way of one of them
        directions = {place: torch.randn_like(inputs[place]) for place in moved}
        slope = torch.stack([(gradients[place] * directions[place]).sum() for place in moved]).sum().item()
        with torch.no_grad():
            ahead, behind = (_weigh(call(*_move(inputs, directions, step))).item() for step in (_NUDGE, -_NUDGE))
        pairs.append((slope, (ahead - behind) / (2 * _NUDGE)))
    scale = max(1e-3, *(abs(figure) for pair in pairs for figure in pair), *(g.norm().item() for g in found))
    slope, difference = min(pairs, key=lambda pair: abs(pair[0] - pair[1]))
    expect(
        abs(slope - difference) <= 1e-3 * scale,
        f"the gradient says {slope:.6g} where the values change by {difference:.6g}; either float64 is rounded to something "
        "narrower on the way, or the gradient is wrong",
    )


def _weigh(outputs: Any) -> Tensor:
    """One number that all outputs have a part in."""
    parts = flatten(outputs)
    narrow = [str(part.dtype).removeprefix("torch.") for part in parts if part.dtype != torch.float64]
    expect(not narrow, f"{', '.join(narrow)} came back for float64")
    weights = torch.Generator("cpu").manual_seed(0)
    return torch.stack(
        [(part * torch.randn(part.shape, generator=weights, dtype=part.dtype).to(part.device)).sum() for part in parts]
    ).sum()


def _move(inputs: Sequence[Tensor], directions: Mapping[int, Tensor], step: float) -> list[Tensor]:
    return [tensor + step * directions[place] if place in directions else tensor for place, tensor in enumerate(inputs)]


def check_device(call: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
    """Break the rule unless calls answer on the device of their inputs: on CUDA, where that is tried, and on `meta`.

    The device `meta`, which has shapes and no memory, is everywhere; and a block that works there can be checked in a recipe.
    """
    for device in dict.fromkeys((inputs[0].device.type, "meta")):
        _check_answer(call, inputs, device)


def _check_answer(call: Callable[..., Any], inputs: Sequence[Tensor], device: str) -> None:
    try:
        outputs = flatten(call(*(tensor.detach().to(device) for tensor in inputs)))
    except (RuntimeError, NotImplementedError) as error:
        if "meta tensor" in str(error).lower() and "device" not in str(error):
            raise NotApplicable("it looks at values, which tensors without memory do not have") from error
        return expect(False, f"on images of the device '{device}' it raised: {first_line(error)}")
    elsewhere = sorted({str(output.device) for output in outputs if output.device.type != device})
    return expect(not elsewhere, f"for images on '{device}' it returned something on {', '.join(elsewhere)}")


def _random_states() -> dict[str, bytes | str]:
    states: dict[str, bytes | str] = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": repr(np.random.get_state(legacy=False)),
        "random": repr(random.getstate()),
    }
    if torch.cuda.is_available():
        states["torch.cuda"] = torch.cuda.get_rng_state().numpy().tobytes()
    return states
