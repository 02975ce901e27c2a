"""The fused kernels against plain functions in float64."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.findings import Findings, Options, largest
from benchmarks.gpu.subjects import CUDA
from gantoolkit.layers.kernels import can_fuse, reference

__all__ = ["check_kernels"]

KERNEL_TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Largest error of a result or gradient, relative to its largest element or 1; as in tests/layers/test_kernels.py."""


def check_kernels(findings: Findings, options: Options) -> None:
    """Fused norm and padding at odd sizes and at those of the networks, against plain functions in float64."""
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm, fused_instance_norm_and_pad
    from gantoolkit.layers.kernels.triton_reflection_pad import fused_reflection_pad

    cases = [
        ((1, 3, 7, 5), 2, 0.2, False),
        ((2, 33, 12, 11), 1, None, True),
        ((1, 128, 1, 3), 0, 0.0, False),
        ((1, 512, 31, 31), 0, 0.2, False),
        ((2, 64, 250, 254), 3, 0.0, False),
        ((3, 256, 64, 64), 1, None, True),
        ((16, 128, 128, 128), 0, 0.0, False),
    ]
    findings.require(can_fuse(_draw((1, 8, 8, 8), 0, torch.float32)), "the kernels do not work on this device")
    for dtype, tolerance in KERNEL_TOLERANCE.items():
        worst: dict[str, float] = {"norm": 0.0, "pad": 0.0}
        for shape, pad, slope, residual in cases[: 3 if options.quick else None]:

            def norm(features: Tensor, *others: Tensor, pad=pad, slope=slope) -> tuple[Tensor, ...]:
                arguments = {"slope": slope, "pad": pad, "residual": others[0] if others else None}
                if others:
                    return fused_instance_norm_and_pad(features, **arguments)
                return (fused_instance_norm(features, **arguments),)

            def plain_norm(features: Tensor, *others: Tensor, pad=pad, slope=slope) -> tuple[Tensor, ...]:
                output = reference.instance_norm(features, slope=slope, residual=others[0] if others else None)
                padded = functional.pad(output, [pad] * 4, mode="reflect") if pad else output
                return (output, padded) if others else (padded,)

            inputs = [_draw(shape, seed, dtype) for seed in range(1 + residual)]
            worst["norm"] = largest(worst["norm"], _compare_functions(findings, norm, plain_norm, inputs))
            if pad:

                def reflect(features: Tensor, *, pad=pad) -> tuple[Tensor, ...]:
                    return (fused_reflection_pad(features, pad),)

                def plain_reflect(features: Tensor, *, pad=pad) -> tuple[Tensor, ...]:
                    return (functional.pad(features, [pad] * 4, mode="reflect"),)

                worst["pad"] = largest(worst["pad"], _compare_functions(findings, reflect, plain_reflect, inputs[:1]))
        for name, error in worst.items():
            findings.compare(f"{name} {str(dtype).removeprefix('torch.')}", error, tolerance)


def _draw(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64).to(CUDA, dtype)
    return values.contiguous(memory_format=torch.channels_last)


def _compare_functions(
    findings: Findings,
    function: Callable[..., tuple[Tensor, ...]],
    plain: Callable[..., tuple[Tensor, ...]],
    inputs: list[Tensor],
) -> float:
    """The largest error of results and gradients relative to float64; two calls must agree to the bit."""
    gradients = [_draw(tuple(output.shape), 9, output.dtype) for output in function(*inputs)]
    first, second = (_differentiate(function, inputs, gradients) for _ in range(2))
    exact = _differentiate(plain, [value.double() for value in inputs], [value.double() for value in gradients])
    case = f"{tuple(inputs[0].shape)} {inputs[0].dtype}"
    same = all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    findings.judge(same, f"{case}: not the same bits twice")
    errors = [
        float((ours.double() - theirs).abs().max() / theirs.abs().max().clamp_min(1))
        for ours, theirs in zip(first, exact, strict=True)
    ]
    return largest(*errors)


def _differentiate(function: Callable[..., Any], inputs: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    inputs = [value.clone().requires_grad_() for value in inputs]
    outputs = function(*inputs)
    return [*(output.detach() for output in outputs), *torch.autograd.grad(outputs, inputs, gradients)]
