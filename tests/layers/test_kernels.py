"""Fused kernels against plain PyTorch in float64, and the networks that use them.

The kernels run on a CUDA device or, in a subprocess, in Triton's interpreter on CPU tensors.
"""

import importlib.util
import itertools
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from _helpers.compiled_kernels import differentiate_phases, read_machine_code
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.gpu.compile_only import compile_only, kernels_on_meta_device
from gantoolkit.blocks.discriminators import PatchGANDiscriminator
from gantoolkit.blocks.generators import ResNetGenerator
from gantoolkit.blocks.losses import WGANGP
from gantoolkit.layers import fused, kernels
from gantoolkit.layers.fused import Chain
from gantoolkit.layers.kernels import can_fuse
from gantoolkit.layers.kernels.reference import instance_norm
from gantoolkit.recipes import cyclegan, pix2pix
from gantoolkit.runtime.arithmetic import Arithmetic
from gantoolkit.runtime.precision import Precision
from gantoolkit.training import build_trainer

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
HAS_TRITON = importlib.util.find_spec("triton") is not None
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
Compute = Callable[[Tensor, Tensor | None, Tensor | None, Tensor | None], tuple[Tensor, ...]]

with_kernels = pytest.mark.skipif(
    not (HAS_TRITON and (DEVICE == "cuda" or INTERPRETED)),
    reason="needs a CUDA device; test_kernels_in_triton_interpreter runs it without one",
)
on_cuda = pytest.mark.skipif(DEVICE != "cuda" or not HAS_TRITON, reason="needs a CUDA device")
without_kernels = pytest.mark.skipif(INTERPRETED, reason="in Triton's interpreter the CPU has kernels")


@pytest.mark.slow(reason="interprets Triton kernels")
@pytest.mark.skipif(INTERPRETED, reason="already in the interpreter")
@pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
@pytest.mark.skipif(
    HAS_TRITON and tuple(map(int, version("triton").split(".")[:2])) < (3, 9),
    reason="Triton 3.6's interpreter needs an older NumPy",
)
def test_kernels_in_triton_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    completed = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout
    assert " passed" in completed.stdout


@contextmanager
def small_tiles(rows: int, programs: int, *, one_launch: bool = False) -> Iterator[None]:
    """Use tiles of `rows` pixels × 4 channels, so that small images have many.

    With `one_launch`, one program normalizes a block of channels of an image, and a tile has `rows` pixels × 1 sector.
    """
    from gantoolkit.layers.kernels import triton_tiles

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_tiles, "CHANNELS", 4)
        patch.setattr(triton_tiles, "ELEMENTS", 4 * rows)
        patch.setattr(triton_tiles, "PROGRAMS", programs)
        patch.setattr(triton_tiles, "WHOLE_PIXELS", 2**31 if one_launch else 0)
        patch.setattr(triton_tiles, "WHOLE_ROWS", 2 * rows)
        yield


def randn(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


def differentiate(compute: Compute, inputs: list[Tensor | None], gradients: list[Tensor]) -> list[Tensor]:
    """The results, then the gradients of the inputs that are not None."""
    inputs = [None if value is None else value.clone().requires_grad_() for value in inputs]
    results = compute(*inputs)
    assert all(result.is_contiguous(memory_format=torch.channels_last) for result in results)
    required_inputs = [value for value in inputs if value is not None]
    return [*results, *torch.autograd.grad(results, required_inputs, gradients)]


def fuse(inputs: list[Tensor | None], *, slope: float | None, pad: int, both: bool, seed: int = 9) -> list[Tensor]:
    """The results of the fused norm of features, weight, bias and residual, and their gradients for random output gradients."""
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm, fused_instance_norm_and_pad

    def compute(
        features: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None
    ) -> tuple[Tensor, ...]:
        options = {"weight": weight, "bias": bias, "residual": residual, "slope": slope, "pad": pad}
        return fused_instance_norm_and_pad(features, **options) if both else (fused_instance_norm(features, **options),)

    return differentiate(compute, inputs, gradients_of(inputs[0], pad=pad, both=both, seed=seed))


def gradients_of(features: Tensor, *, pad: int, both: bool, seed: int) -> list[Tensor]:
    images, channels, height, width = features.shape
    padded = randn((images, channels, height + 2 * pad, width + 2 * pad), seed, features.dtype)
    return [randn((images, channels, height, width), seed + 1, features.dtype), padded] if both else [padded]


def reference(inputs: list[Tensor | None], *, slope: float | None, pad: int, both: bool, seed: int = 9) -> list[Tensor]:
    """The same with the reference function, in float64."""

    def compute(
        features: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None
    ) -> tuple[Tensor, ...]:
        output = instance_norm(features, weight=weight, bias=bias, residual=residual, slope=slope)
        padded = functional.pad(output, [pad] * 4, mode="reflect")
        return tuple(
            result.contiguous(memory_format=torch.channels_last) for result in ([output, padded] if both else [padded])
        )

    gradients = [gradient.double() for gradient in gradients_of(inputs[0], pad=pad, both=both, seed=seed)]
    return differentiate(compute, [None if value is None else value.double() for value in inputs], gradients)


def assert_near(results: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    for ours, theirs in zip(results, expected, strict=True):
        scale = max(1.0, theirs.abs().max().item())
        assert (ours.double() - theirs).abs().max().item() <= TOLERANCE[dtype] * scale


@with_kernels
@settings(max_examples=80)
@given(
    shape=st.tuples(st.integers(1, 2), st.sampled_from([1, 3, 4, 6]), st.integers(2, 9), st.integers(2, 9)),
    pad=st.integers(0, 3),
    both=st.booleans(),
    slope=st.sampled_from([None, 0.0, 0.2]),
    residual=st.booleans(),
    affine=st.booleans(),
    dtype=st.sampled_from(list(TOLERANCE)),
    rows=st.sampled_from([16, 32, 128]),
    programs=st.sampled_from([1, 4, 16]),
    one_launch=st.booleans(),
)
def test_fused_norm_equals_reference(
    shape, pad, both, slope, residual, affine, dtype, rows, programs, one_launch
) -> None:
    pad = min(pad, min(shape[2:]) - 1)
    parameters = torch.float64 if dtype == torch.float64 else torch.float32
    inputs = [
        randn(shape, 1, dtype),
        randn(shape[1:2], 2, parameters) if affine else None,
        randn(shape[1:2], 3, parameters) if affine else None,
        randn(shape, 4, dtype) if residual else None,
    ]
    options = {"slope": slope, "pad": pad, "both": both and pad > 0}
    with small_tiles(rows, programs, one_launch=one_launch):
        results = fuse(inputs, **options)
    assert all(result.dtype == dtype for result in results[: 1 + options["both"]])
    assert_near(results, reference(inputs, **options), dtype)


@with_kernels
def test_default_tiles_are_correct_at_their_borders() -> None:
    inputs = [randn((2, 33, 12, 11), 1, torch.float32), None, None, randn((2, 33, 12, 11), 2, torch.float32)]
    options = {"slope": None, "pad": 1, "both": True}
    assert_near(fuse(inputs, **options), reference(inputs, **options), torch.float32)


@with_kernels
@given(
    shape=st.tuples(st.integers(1, 2), st.sampled_from([1, 3, 5]), st.integers(2, 9), st.integers(2, 9)),
    pad=st.integers(1, 8),
    dtype=st.sampled_from(list(TOLERANCE)),
    rows=st.sampled_from([16, 128]),
)
@example(shape=(1, 3, 12, 8), pad=2, dtype=torch.float64, rows=16)  # tiles begin and end at the last mirrored line
def test_fused_padding_equals_reflection_pad(shape, pad, dtype, rows) -> None:
    from gantoolkit.layers.kernels.triton_reflection_pad import fused_reflection_pad

    pad = min(pad, min(shape[2:]) - 1)
    features = randn(shape, 1, dtype).requires_grad_()
    with small_tiles(rows, programs=4):
        padded = fused_reflection_pad(features, pad)
        (gradient,) = torch.autograd.grad(padded, features, gradients_of(features, pad=pad, both=False, seed=2)[0])
    assert torch.equal(padded, functional.pad(features, [pad] * 4, mode="reflect"))
    exact = features.detach().double().requires_grad_()
    output_gradient = gradients_of(features, pad=pad, both=False, seed=2)[0].double()
    expected = torch.autograd.grad(functional.pad(exact, [pad] * 4, mode="reflect"), exact, output_gradient)
    assert_near([gradient], list(expected), dtype)


@with_kernels
def test_gradient_of_one_of_two_results() -> None:
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm_and_pad

    for used in (0, 1):
        features, residual = (randn((1, 3, 5, 6), seed).requires_grad_() for seed in (1, 2))
        results = fused_instance_norm_and_pad(features, residual=residual, pad=2)
        gradients = torch.autograd.grad(results[used].sin().sum(), [features, residual])
        output = instance_norm(features, residual=residual, pad=2 * used)
        assert_near(list(gradients), list(torch.autograd.grad(output.sin().sum(), [features, residual])), torch.float64)


@with_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_flat_images_are_finite(dtype: torch.dtype) -> None:
    features = torch.full((1, 5, 6, 7), 3.3, dtype=dtype, device=DEVICE).contiguous(memory_format=torch.channels_last)
    with small_tiles(rows=16, programs=4):
        results = fuse([features, None, None, None], slope=0.0, pad=1, both=False)
    assert all(result.isfinite().all() for result in results)
    assert results[0].abs().max() < 1e-2


@with_kernels
@pytest.mark.parametrize(("spans", "one_launch"), [(1, False), (4, False), (1, True)])
def test_large_mean_adds_no_more_error_than_its_rounding(spans: int, one_launch: bool) -> None:
    inputs = [randn((1, 3, 8, 9), 1, torch.float32) + 1000, None, None, None]
    options = {"slope": None, "pad": 0, "both": False}
    with small_tiles(rows=16, programs=spans, one_launch=one_launch):
        results = fuse(inputs, **options)
    for ours, theirs in zip(results, reference(inputs, **options), strict=True):
        assert (ours - theirs).abs().max() < 2e-4  # float32 has a precision of 6e-5 at 1000, and of 0.06 at its square


@with_kernels
@pytest.mark.parametrize("one_launch", [False, True])
def test_results_are_deterministic_and_every_element_is_written(
    one_launch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [randn((2, 5, 7, 9), 1, torch.float32), None, None, randn((2, 5, 7, 9), 2, torch.float32)]
    options = {"slope": None, "pad": 3, "both": True}
    with small_tiles(rows=16, programs=8, one_launch=one_launch):
        first = fuse(inputs, **options)
        # In this mode torch fills new tensors with NaN.
        monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.empty(3).isnan().all()
            second = fuse(inputs, **options)
        finally:
            torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@with_kernels
@pytest.mark.parametrize("one_launch", [False, True])
def test_nan_propagates(one_launch: bool) -> None:
    features = randn((1, 2, 4, 4), 1, torch.float32)
    features[0, 0, 1, 1] = torch.nan
    with small_tiles(rows=16, programs=4, one_launch=one_launch):
        output, gradient = fuse([features, None, None, None], slope=0.0, pad=0, both=False)
    assert output[0, 0].isnan().all()
    assert gradient[0, 0].isnan().all()
    assert output[0, 1].isfinite().all()


@with_kernels
def test_other_memory_formats_are_converted() -> None:
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm

    features, vectors = randn((2, 3, 5, 4), 1).contiguous().requires_grad_(), randn((3, 2), 2).requires_grad_()
    options = {"weight": vectors[:, 0], "bias": vectors[:, 1], "slope": 0.2}
    output, expected = fused_instance_norm(features, **options), instance_norm(features, **options)
    twice = []
    for result in (output, expected):
        first = torch.autograd.grad(result.pow(3).sum(), [features, vectors], create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), [features, vectors])
        twice.append([result.contiguous(), *first, *second])
    assert_near(*twice, torch.float64)


@with_kernels
@pytest.mark.parametrize("both", [False, True])
def test_gradients_can_be_differentiated(both: bool) -> None:
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm, fused_instance_norm_and_pad
    from gantoolkit.layers.kernels.triton_reflection_pad import fused_reflection_pad

    def compute(features: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> tuple[Tensor, ...] | Tensor:
        options = {"weight": weight, "bias": bias, "residual": residual, "slope": 0.2, "pad": 1}
        return fused_instance_norm_and_pad(features, **options) if both else fused_instance_norm(features, **options)

    shape = (1, 2, 3, 3)
    inputs = [randn(shape, 1), randn((2,), 2), randn((2,), 3), randn(shape, 4)]
    inputs = [value.requires_grad_() for value in inputs]
    assert torch.autograd.gradgradcheck(compute, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda features: fused_reflection_pad(features, 1), inputs[:1], fast_mode=True)


@with_kernels
def test_invalid_arguments_are_reported() -> None:
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm, fused_instance_norm_and_pad
    from gantoolkit.layers.kernels.triton_reflection_pad import fused_reflection_pad

    features = randn((1, 3, 4, 5), 1)
    with pytest.raises(ValueError, match="pad is 4; for features of 4×5 pixels it must be 0 to 3"):
        fused_reflection_pad(features, 4)
    with pytest.raises(ValueError, match="pad is -1"):
        fused_instance_norm(features, pad=-1)
    with pytest.raises(ValueError, match=r"weight has shape \(2,\), but these features need \(3,\)"):
        fused_instance_norm(features, weight=torch.ones(2, device=DEVICE))
    with pytest.raises(ValueError, match=r"residual is torch.float32 \(1, 3, 4, 5\)"):
        fused_instance_norm(features, residual=features.float())
    with pytest.raises(ValueError, match="use fused_instance_norm"):
        fused_instance_norm_and_pad(features, pad=0)


@pytest.fixture
def fused_runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool, bool, int]]:
    """Record the runs that `Chain` fuses: has a norm, ends a residual, starts a residual, pad."""
    runs: list[tuple[bool, bool, bool, int]] = []
    fuse_run = fused._fuse

    def record(run, *arguments):
        runs.append((run.norm is not None, run.ends_residual, run.starts_residual, run.pad))
        return fuse_run(run, *arguments)

    monkeypatch.setattr(fused, "_fuse", record)
    return runs


def prepare(network: nn.Module) -> nn.Module:
    """Convert to float64 and channels_last, in evaluation mode: dropout depends on the memory format."""
    generator = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return network.eval().to(DEVICE, torch.float64, memory_format=torch.channels_last)


def run_network(network: nn.Module, images: Tensor) -> list[Tensor]:
    """The result, and the gradients of images and trained parameters."""
    images = images.clone().requires_grad_()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    output = network(images)
    return [output, *torch.autograd.grad(output.square().mean(), [images, *parameters])]


@with_kernels
@pytest.mark.parametrize(
    "network",
    [
        ResNetGenerator(3, 3, blocks=2, width=4),
        ResNetGenerator(3, 2, blocks=2, width=2, norm="instance_affine", dropout=0.5, upsampling="resize"),
        ResNetGenerator(3, 3, blocks=1, width=2, padding="zero"),
        ResNetGenerator(3, 3, blocks=1, width=2, norm="batch"),
        PatchGANDiscriminator(3, layers=2, width=4),
        PatchGANDiscriminator(3, layers=2, width=4, norm="instance_affine", spectral_norm=True),
    ],
    ids=["resnet", "affine with dropout", "zero padding", "batch norm", "patchgan", "affine patchgan"],
)
def test_networks_give_same_results_with_kernels(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, fused_runs
) -> None:
    network, images = prepare(network), randn((2, 3, 16, 20), 1)
    results = run_network(network, images)
    assert fused_runs
    monkeypatch.setenv("GANTOOLKIT_KERNELS", "0")
    fused_runs.clear()
    expected = run_network(network, images)
    assert not fused_runs
    assert_near(results, expected, torch.float64)


@with_kernels
def test_residual_network_fuses_padding_into_preceding_norm(fused_runs) -> None:
    prepare(ResNetGenerator(3, 3, blocks=2, width=2))(randn((1, 3, 16, 16), 1))
    block = [(True, False, False, 1), (True, True, True, 1)]
    last = [(True, False, False, 1), (True, True, False, 0)]
    first = [(False, False, False, 3), *[(True, False, False, 0)] * 2, (True, False, True, 1)]
    assert fused_runs == [*first, *block, *last, (True, False, False, 0), (True, False, False, 3)]


@with_kernels
def test_layers_with_hooks_are_not_fused(fused_runs) -> None:
    network = prepare(ResNetGenerator(3, 3, blocks=2, width=2))
    images = randn((1, 3, 16, 16), 1)
    expected = network(images)
    unhooked = len(fused_runs)
    hooked: list[str] = []
    for name in ("layers.2", "layers.10", "layers.11.layers.4", "layers.15"):
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: hooked.append(name))
    fused_runs.clear()
    assert_near([network(images)], [expected], torch.float64)
    assert hooked == ["layers.2", "layers.10", "layers.11.layers.4", "layers.15"]
    assert 0 < len(fused_runs) < unhooked + 4


@with_kernels
def test_overridden_or_unsupported_layers_are_not_fused(fused_runs) -> None:
    class Doubled(nn.ReLU):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    features = randn((2, 3, 8, 8), 1)
    pad = nn.ReflectionPad2d((1, 2, 1, 1))
    layers = [nn.InstanceNorm2d(3), Doubled(), pad, nn.InstanceNorm2d(3, track_running_stats=True), nn.ReLU()]
    expected = nn.Sequential(*layers).double().to(DEVICE)(features)
    assert torch.allclose(Chain(*layers)(features), expected, atol=1e-12)
    assert fused_runs == [(True, False, False, 0)]


@with_kernels
def test_gradient_penalty_is_the_same_with_kernels(monkeypatch: pytest.MonkeyPatch, fused_runs) -> None:
    network = prepare(PatchGANDiscriminator(3, layers=2, width=4))
    real, fake = randn((2, 3, 16, 16), 1), randn((2, 3, 16, 16), 2)

    def penalize() -> list[Tensor]:
        torch.manual_seed(0)
        penalty = WGANGP().penalty(network, real, fake)
        weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
        return [penalty, *torch.autograd.grad(penalty, weights)]

    results = penalize()
    assert fused_runs
    monkeypatch.setenv("GANTOOLKIT_KERNELS", "0")
    assert_near(results, penalize(), torch.float64)


@with_kernels
def test_can_fuse_rejects_unsupported_features(monkeypatch: pytest.MonkeyPatch) -> None:
    features = randn((2, 3, 4, 5), 1)
    assert can_fuse(features, pad=3)
    assert not can_fuse(features, pad=4)
    assert not can_fuse(features[0])
    assert not can_fuse(features[:0])
    assert not can_fuse(features[:, :, :1, :1])
    assert not can_fuse(features.contiguous()), "not channels_last"
    assert not can_fuse(features.long())
    assert not can_fuse(features.to("meta"))
    assert not can_fuse(torch.zeros(1, device=DEVICE).expand(1, 2**16, 2**8, 2**8))
    monkeypatch.setenv("GANTOOLKIT_KERNELS", "0")
    assert not can_fuse(features)


@with_kernels
def test_compiled_networks_use_plain_layers(fused_runs) -> None:
    network = prepare(ResNetGenerator(3, 3, blocks=1, width=2))
    images = randn((1, 3, 16, 16), 1)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert_near([compiled(images)], [network(images)], torch.float64)
    fused_runs.clear()
    compiled(images)
    assert not fused_runs


@on_cuda
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_graph_replays_kernels(dtype: torch.dtype) -> None:
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm_and_pad

    static = [randn((2, 64, 16, 16), 1, dtype), None, None, randn((2, 64, 16, 16), 2, dtype)]
    options = {"slope": None, "pad": 1, "both": True}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    gradients = gradients_of(static[0], pad=1, both=True, seed=9)

    def step() -> list[Tensor]:
        features, residual = (static[index].detach().requires_grad_() for index in (0, 3))
        results = fused_instance_norm_and_pad(features, residual=residual, pad=1)
        return [*results, *torch.autograd.grad(results, [features, residual], gradients)]

    with torch.cuda.stream(stream):
        step()  # compiles
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    static[0].copy_(randn((2, 64, 16, 16), 3, dtype))
    graph.replay()
    assert all(torch.equal(one, other) for one, other in zip(recorded, fuse(static, **options), strict=True))


@on_cuda
@pytest.mark.cuda
def test_kernels_do_not_synchronize() -> None:
    from gantoolkit.layers.kernels.triton_instance_norm import fused_instance_norm

    inputs = [randn((1, 64, 16, 16), 1, torch.bfloat16), None, None, None]
    options = {"slope": 0.0, "pad": 1, "both": False}
    fuse(inputs, **options)
    features = inputs[0].requires_grad_()
    gradient = gradients_of(features, pad=1, both=False, seed=9)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "a prototype feature"
        torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(fused_instance_norm(features, slope=0.0, pad=1), features, gradient)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_cuda
@pytest.mark.cuda
@pytest.mark.parametrize(("shape", "pad"), [((1, 64, 256, 256), 3), ((2, 256, 64, 64), 1), ((16, 128, 128, 128), 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_of_the_generator_in_the_paper(shape: tuple[int, ...], pad: int, dtype: torch.dtype) -> None:
    inputs = [randn(shape, 1, dtype), None, None, randn(shape, 2, dtype)]
    options = {"slope": None, "pad": pad, "both": pad > 0}
    results = fuse(inputs, **options)
    assert_near(results, reference(inputs, **options), dtype)
    assert all(torch.equal(one, other) for one, other in zip(results, fuse(inputs, **options), strict=True))


compiles = pytest.mark.skipif(INTERPRETED or not HAS_TRITON, reason="needs Triton's compiler")


@compiles
@pytest.mark.skipif(DEVICE == "cuda", reason="with a CUDA device the other tests cover this")
@pytest.mark.parametrize("one_launch", [False, True])
@pytest.mark.parametrize(
    ("dtype", "channels", "pad", "slope", "residual"),
    [
        (torch.bfloat16, 64, 1, None, True),
        (torch.float32, 3, 3, 0.2, False),
    ],
)
def test_kernels_compile_for_hopper(dtype, channels, pad, slope, residual, one_launch, tmp_path) -> None:
    """Compile for a GPU without running: the interpreter checks types less strictly than the compiler."""
    from gantoolkit.layers.kernels.triton_reflection_pad import fused_reflection_pad

    shape = (2, channels, 16, 16)
    parameters = [None, None] if residual else [torch.ones(channels), torch.ones(channels)]
    inputs = [randn(shape, 1, dtype), *parameters, randn(shape, 2, dtype) if residual else None]
    with compile_only(90, tmp_path) as launches, small_tiles(128, programs=4, one_launch=one_launch):
        fuse(inputs, slope=slope, pad=pad, both=residual)
        features = inputs[0].requires_grad_()
        fused_reflection_pad(features, pad).backward(gradients_of(features, pad=pad, both=False, seed=1)[0])
    two = {"measure", "normalize", "measure_gradient", "propagate"}
    one = {"measure_and_normalize", "measure_gradient_and_propagate"}
    assert set(launches.names) == {"_pad", "_fold", *(one if one_launch else two)}


PAPER = [
    cyclegan(identity_weight=5.0),
    cyclegan(identity_weight=5.0).swap(**{"generator.blocks": 6}),
    pix2pix().swap(**{"generator.norm": "instance", "discriminator.norm": "instance"}),
]


@pytest.mark.slow(reason="compiles about twenty kernels for each dtype and GPU")
@compiles
@pytest.mark.parametrize("capability", [90, 80], ids=["hopper", "ampere"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_kernels_of_the_networks_in_the_paper_are_few_and_efficient(
    precision: Precision, capability: int, tmp_path: Path
) -> None:
    """All kernels of a step at 256² with batches of 1 and 16."""
    with compile_only(capability, tmp_path) as launches, kernels_on_meta_device():
        for recipe, batch_size in itertools.product(PAPER, (1, 16)):
            system = build_trainer(recipe.resolve(), torch.device("meta"), Arithmetic(precision)).system
            differentiate_phases(
                system, {domain: torch.zeros(batch_size, 3, 256, 256, device="meta") for domain in "AB"}
            )
    assert {"measure", "propagate", "measure_and_normalize", "_fold"} < set(launches.names)
    assert len(launches.variants) <= 35
    for name, kernel in launches.variants.values():
        code = read_machine_code(kernel)
        assert code.registers <= 128, name
        assert code.spill_bytes <= 32, name
        if name not in ("_pad", "_fold"):  # of images with three channels
            for kind in ("LDG", "STG"):  # loads and stores; the narrow ones are of statistics
                widths = Counter({key: count for key, count in code.instructions.items() if key.startswith(kind)})
                narrow = sum(count for key, count in widths.items() if not key.endswith("128"))
                assert narrow <= 2, (name, code.instructions)
                assert narrow < widths.total() or name.startswith("measure"), (name, code.instructions)


@pytest.mark.skipif(DEVICE == "cuda" or not HAS_TRITON, reason="needs Triton and a device on which it fails")
def test_device_on_which_triton_fails_has_no_kernels_and_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    with pytest.warns(UserWarning, match="Triton does not work on cuda:0 .*, so the plain layers are used"):
        assert not kernels._works_on.__wrapped__(device)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert not kernels._works_on.__wrapped__(device)


@without_kernels
def test_chain_equals_sequential_without_kernels() -> None:
    network = ResNetGenerator(3, 3, blocks=2, width=4)
    images = torch.randn(1, 3, 16, 16)

    def apply_layers(layers: nn.Sequential, features: Tensor) -> Tensor:
        for layer in layers:
            features = features + apply_layers(layer.layers, features) if hasattr(layer, "layers") else layer(features)
        return features

    assert torch.equal(network(images), apply_layers(network.layers, images))
    assert not can_fuse(images.contiguous(memory_format=torch.channels_last))


def test_state_dict_keys_are_those_of_nested_sequences() -> None:
    keys = list(ResNetGenerator(3, 3, blocks=1, width=1).state_dict())
    indices = ["1", "4", "7", "10.layers.1", "10.layers.5", "11", "14", "18"]
    assert keys == [f"layers.{index}.{kind}" for index in indices for kind in ("weight", "bias")]
    keys = list(PatchGANDiscriminator(3, width=1).state_dict())
    assert keys == [f"layers.{index}.{kind}" for index in (0, 2, 5, 8, 11) for kind in ("weight", "bias")]


@given(
    dtype=st.sampled_from(list(TOLERANCE)),
    slope=st.sampled_from([None, 0.0, 0.2]),
    affine=st.booleans(),
    pad=st.integers(0, 2),
)
def test_reference_norm_matches_its_formula(dtype, slope, affine, pad) -> None:
    features = randn((2, 3, 5, 4), 1, dtype) * 2 + 1
    residual = randn((2, 3, 5, 4), 2, dtype)
    weight, bias = (randn((3,), seed, torch.float32) if affine else None for seed in (3, 4))
    output = instance_norm(features, weight=weight, bias=bias, slope=slope, residual=residual, pad=pad)
    exact = features.double()
    expected = (exact - exact.mean((2, 3), keepdim=True)) / (
        exact.var((2, 3), correction=0, keepdim=True) + 1e-5
    ).sqrt()
    if affine:
        expected = expected * weight.double()[:, None, None] + bias.double()[:, None, None]
    if slope is not None:
        expected = torch.where(expected < 0, slope * expected, expected)
    expected = functional.pad(expected + residual.double(), [pad] * 4, mode="reflect")
    assert output.dtype == dtype
    assert_near([output], [expected], dtype)
