import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.blocks.generators.resnet import ResNetGenerator
from gantoolkit.layers import convolution
from gantoolkit.layers.convolution import Conv3x3
from gantoolkit.layers.kernels import cpu_instance_norm, cpu_winograd
from gantoolkit.layers.kernels.cpu_instance_norm import channels_last_instance_norm
from gantoolkit.layers.kernels.cpu_winograd import winograd_convolution
from gantoolkit.layers.normalization import InstanceNorm

LAST = torch.channels_last


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def error(result: Tensor, expected: Tensor) -> float:
    result, expected = result.detach().double(), expected.detach().double()
    return float((result - expected).norm() / expected.norm())


def differentiate(function, *inputs: Tensor, seed: int = 9) -> tuple[Tensor, ...]:
    """The output of a function, and the gradients of its inputs."""
    inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    output = function(*inputs)
    gradient = random(*output.shape, seed=seed).to(output)
    return output.detach(), *torch.autograd.grad(output, inputs, gradient)


def multiply_sequentially(left: Tensor, right: Tensor) -> Tensor:
    """The matrix product of float32 matrices whose sums add one rounded product after the other.

    The order of a library's sums, and with it the rounding error, depends on the CPU. This order does not.
    """
    total = torch.zeros(len(left), right.shape[1])
    for column, row in zip(left.T, right, strict=True):
        total += column[:, None] * row
    return total


def convolve_sequentially(images: Tensor, weight: Tensor, seed: int = 9) -> tuple[Tensor, ...]:
    """What `differentiate` returns for the direct convolution of one image, rounded to the dtype of the images."""
    (*_, height, width), filters, dtype = images.shape, len(weight), images.dtype
    gradient = random(1, filters, height - 2, width - 2, seed=seed).to(dtype).float()
    kernel, patches = weight.to(dtype).float(), functional.unfold(images.float(), 3)[0]
    output = multiply_sequentially(kernel.flatten(1), patches)
    gradient_patches = functional.unfold(functional.pad(gradient, (2, 2, 2, 2)), 3)[0]
    to_images = multiply_sequentially(kernel.flip(2, 3).transpose(0, 1).flatten(1), gradient_patches)
    to_weight = multiply_sequentially(gradient[0].flatten(1), patches.T)
    results = output.view_as(gradient), to_images.view_as(images), to_weight.view_as(weight)
    return tuple(result.to(dtype) for result in results)


class TestWinograd:
    @pytest.mark.parametrize("tile", [(2, 2), (4, 4), (4, 2)], ids=str)
    @given(
        count=st.integers(1, 3),
        channels=st.integers(1, 5),
        filters=st.integers(1, 5),
        height=st.integers(3, 15),
        width=st.integers(3, 15),
        channels_last=st.booleans(),
        max_bytes=st.sampled_from([1, 4000, cpu_winograd._MAX_BUFFER_BYTES]),
    )
    def test_equals_direct_convolution(
        self, tile, count, channels, filters, height, width, channels_last, max_bytes
    ) -> None:
        images, weight = random(count, channels, height, width), random(filters, channels, 3, 3, seed=1)
        images = images.contiguous(memory_format=LAST) if channels_last else images
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(cpu_winograd.TILE, torch.float64, tile)
            patch.setattr(cpu_winograd, "_MAX_BUFFER_BYTES", max_bytes)
            results = differentiate(winograd_convolution, images, weight)
        assert results[0].is_contiguous(memory_format=LAST)
        for ours, plain in zip(results, differentiate(functional.conv2d, images, weight), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize(("dtype", "bound", "ratio"), [(torch.float32, 3e-6, 5), (torch.bfloat16, 8e-3, 3)])
    def test_rounding_error_is_bounded_absolutely_and_relative_to_sequential_sums(self, dtype, bound, ratio) -> None:
        """As in a residual block: 256 channels after ReLU."""
        images, weight = random(1, 256, 18, 18).relu().to(dtype), (0.02 * random(256, 256, 3, 3, seed=1)).float()
        exact = differentiate(functional.conv2d, images.double(), weight.double())
        ours = differentiate(winograd_convolution, images, weight)
        sequential = convolve_sequentially(images, weight)
        for result, direct, expected in zip(ours, sequential, exact, strict=True):
            assert error(result, expected) < bound
            assert error(result, expected) < ratio * error(direct, expected)

    def test_gradients_of_gradients_are_right(self) -> None:
        images, weight = random(1, 2, 5, 6).requires_grad_(), random(2, 2, 3, 3, seed=1).requires_grad_()
        assert torch.autograd.gradgradcheck(winograd_convolution, (images, weight))

    @pytest.mark.parametrize("required", [0, 1])
    def test_only_inputs_that_require_it_get_a_gradient(self, required: int) -> None:
        inputs = [random(1, 2, 6, 6), random(2, 2, 3, 3, seed=1)]
        inputs[required].requires_grad_()
        winograd_convolution(*inputs).sum().backward()
        assert [tensor.grad is not None for tensor in inputs] == [index == required for index in (0, 1)]

    def test_buffers_allocated_in_inference_mode_work_in_training(self) -> None:
        images, weight = random(1, 3, 6, 6, dtype=torch.float32), random(3, 3, 3, 3, dtype=torch.float32, seed=1)
        cpu_winograd._buffers.__dict__.clear()
        with torch.inference_mode():
            inferred = winograd_convolution(images, weight)
        trained = differentiate(winograd_convolution, images, weight)[0]
        assert torch.equal(trained, inferred)

    def test_buffers_do_not_grow_with_image_height(self, monkeypatch) -> None:
        monkeypatch.setattr(cpu_winograd, "_MAX_BUFFER_BYTES", 2**16)
        weight, sizes = random(4, 4, 3, 3), []
        for height in (34, 130, 514):
            cpu_winograd._buffers.__dict__.clear()
            differentiate(winograd_convolution, random(1, 4, height, 66, seed=1), weight)
            sizes.append(sum(buffer.nbytes for buffer in vars(cpu_winograd._buffers).values()))
        assert sizes[0] == sizes[1] == sizes[2] < 4 * 2**16

    def test_later_calls_do_not_overwrite_earlier_results(self) -> None:
        images, weight = random(1, 3, 6, 6), random(3, 3, 3, 3, seed=1)
        first = differentiate(winograd_convolution, images, weight)
        copies = [tensor.clone() for tensor in first]
        differentiate(winograd_convolution, -images, 2 * weight, seed=3)
        assert all(torch.equal(a, b) for a, b in zip(first, copies, strict=True))

    # opcheck reads the gradient of tensors that have none.
    @pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
    def test_operator_passes_opcheck(self) -> None:
        images, weight = random(1, 2, 6, 5).requires_grad_(), random(3, 2, 3, 3, seed=1).requires_grad_()
        torch.library.opcheck(torch.ops.gantoolkit.winograd_convolution.default, (images, weight))


class TestConv3x3:
    @pytest.fixture
    def winograd_dtypes(self, monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
        """Record the dtypes of all inputs of Winograd's algorithm."""
        dtypes: list[torch.dtype] = []

        def spy(images: Tensor, weight: Tensor) -> Tensor:
            dtypes.append(images.dtype)
            return winograd_convolution(images, weight)

        monkeypatch.setattr("gantoolkit.layers.convolution.winograd_convolution", spy)
        return dtypes

    @pytest.mark.parametrize(
        ("channels", "side", "dtype", "is_winograd"),
        [
            (256, 64, torch.float32, True),
            (256, 64, torch.bfloat16, True),
            (256, 16, torch.float32, False),
            (64, 64, torch.float32, False),
            (128, 64, torch.bfloat16, False),
            (256, 64, torch.float64, False),
        ],
    )
    def test_algorithm_depends_on_dtype_and_shape(self, channels, side, dtype, is_winograd, winograd_dtypes) -> None:
        layer = Conv3x3(channels, channels).to(dtype)
        with torch.no_grad():
            output = layer(random(1, channels, side + 2, side + 2, dtype=dtype))
        assert output.shape == (1, channels, side, side)
        assert winograd_dtypes == ([dtype] if is_winograd else [])

    def test_autocast_determines_dtype(self, winograd_dtypes) -> None:
        layer = Conv3x3(256, 256)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.zeros(1, 256, 66, 66)).dtype == torch.bfloat16
        assert winograd_dtypes == [torch.bfloat16]

    def test_errors_of_a_generator_add_like_those_of_its_convolutions(
        self, winograd_dtypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """float32 against float64, through two residual blocks with their norms.

        Each convolution adds an independent error of at most 3e-6, as tested above, and so does each one's gradient. SiLU
        replaces ReLU, since a rounding error may change the sign of a ReLU's input, and with it gradients upstream.
        """

        def run(plain: bool, dtype: torch.dtype) -> dict[str, Tensor]:
            monkeypatch.setitem(convolution._MIN_CHANNEL_TILES, torch.float32, 2**62 if plain else 2**14)
            generator = ResNetGenerator(3, 3, blocks=2)
            for layers in [layers for layers in generator.modules() if isinstance(layers, nn.Sequential)]:
                for name, layer in layers.named_children():
                    setattr(layers, name, nn.SiLU() if isinstance(layer, nn.ReLU) else layer)
            for seed, parameter in enumerate(generator.parameters()):
                nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(seed))
            generator.to(dtype, memory_format=LAST)
            images = random(1, 3, 128, 128, seed=50).clamp(-1, 1).to(dtype).contiguous(memory_format=LAST)
            output = generator(images)
            (output - random(*output.shape, seed=51).to(dtype)).square().mean().backward()
            # Gradients of biases before a norm are rounding noise.
            gradients = {name: p.grad for name, p in generator.named_parameters() if name.endswith("weight")}
            return {"output": output, **gradients}

        exact, ours = run(True, torch.float64), run(False, torch.float32)
        assert winograd_dtypes == [torch.float32] * 4
        convolutions = len(ours) - 1
        assert error(ours["output"], exact["output"]) < 3e-6 * math.sqrt(convolutions)
        assert max(error(tensor, exact[name]) for name, tensor in ours.items()) < 3e-6 * math.sqrt(2 * convolutions)


class TestChannelsLastNorm:
    @given(
        count=st.integers(1, 3),
        channels=st.integers(2, 5),
        height=st.integers(1, 7),
        width=st.integers(2, 7),
        max_summands=st.sampled_from([4, cpu_instance_norm._MAX_SUMMANDS]),
    )
    def test_equals_instance_norm(self, count: int, channels: int, height: int, width: int, max_summands: int) -> None:
        features = random(count, channels, height, width).contiguous(memory_format=LAST)
        weight, bias = random(channels, seed=1), random(channels, seed=2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cpu_instance_norm, "_MAX_SUMMANDS", max_summands)
            results = differentiate(channels_last_instance_norm, features, weight, bias)
        plain = differentiate(lambda x, w, b: functional.instance_norm(x, weight=w, bias=b), features, weight, bias)
        for ours, theirs in zip(results, plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)

    def test_gradients_of_gradients_are_right(self) -> None:
        features = random(2, 2, 3, 4).contiguous(memory_format=LAST).requires_grad_()
        assert torch.autograd.gradgradcheck(channels_last_instance_norm, (features,))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_statistics_are_accurate_for_a_large_mean(self, dtype: torch.dtype) -> None:
        """E[x²] − E[x]² would lose all digits, as would statistics in bfloat16."""
        features = (random(2, 4, 16, 16, dtype=torch.float32) + 100).to(dtype).contiguous(memory_format=LAST)
        exact = differentiate(functional.instance_norm, features.double())
        for ours, expected in zip(differentiate(channels_last_instance_norm, features), exact, strict=True):
            assert error(ours, expected) < (1e-4 if dtype == torch.float32 else 5e-3)

    def test_rounding_error_does_not_grow_with_many_pixels(self) -> None:
        """A sequential float32 sum of a million numbers has an error of 1e-4."""
        features = (random(1, 3, 1023, 1031, dtype=torch.float32) + 3).contiguous(memory_format=LAST)
        output, gradient = differentiate(channels_last_instance_norm, features)
        exact, exact_gradient = differentiate(functional.instance_norm, features.double().contiguous())
        assert error(output, exact) < 1e-6
        assert error(gradient, exact_gradient) < 1e-5

    def test_constant_images_become_zero_without_nan(self) -> None:
        features = torch.full((1, 3, 8, 8), 0.7).contiguous(memory_format=LAST)
        output, gradient = differentiate(channels_last_instance_norm, features)
        assert output.abs().max() < 1e-3
        assert gradient.isfinite().all()

    @pytest.mark.parametrize("memory_format", [LAST, torch.contiguous_format])
    def test_layer_preserves_memory_format(self, memory_format: torch.memory_format) -> None:
        features = random(2, 4, 6, 6).contiguous(memory_format=memory_format)
        output = InstanceNorm(4)(features)
        assert output.is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(output, nn.InstanceNorm2d(4)(features.contiguous()))

    @pytest.mark.parametrize("count", [1, 2])
    def test_gradient_in_another_memory_format_is_correct(self, count: int) -> None:
        """PyTorch's own layer gives a wrong gradient for one image if the incoming one is channels_last."""
        features, gradient = random(count, 3, 5, 6), random(count, 3, 5, 6, seed=1)
        exact = features.clone().requires_grad_()
        variance, mean = torch.var_mean(exact, (2, 3), correction=0, keepdim=True)
        ((exact - mean) * torch.rsqrt(variance + 1e-5)).backward(gradient)
        copied = features.clone().requires_grad_()
        InstanceNorm(3)(copied).backward(gradient.contiguous(memory_format=LAST))
        torch.testing.assert_close(copied.grad, exact.grad)

    def test_statistics_are_float32_for_contiguous_features_too(self) -> None:
        features = (random(1, 4, 16, 16, dtype=torch.float32) + 8).bfloat16()
        exact = nn.functional.instance_norm(features.double())
        assert error(InstanceNorm(4)(features), exact) < 5e-3
