import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from gantoolkit.blocks.generators.resnet import ResNetGenerator
from gantoolkit.layers import convolution
from gantoolkit.layers.convolution import Conv3x3
from gantoolkit.layers.kernels import channels_last, winograd
from gantoolkit.layers.kernels.cpu_instance_norm import channels_last_instance_norm
from gantoolkit.layers.kernels.cpu_winograd import winograd_convolution
from gantoolkit.layers.normalization import InstanceNorm

LAST = torch.channels_last


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def error(made: Tensor, wanted: Tensor) -> float:
    made, wanted = made.detach().double(), wanted.detach().double()
    return float((made - wanted).norm() / wanted.norm())


def differentiated(function, *inputs: Tensor, seed: int = 9) -> tuple[Tensor, ...]:
    """What a function makes, and the gradients of its inputs."""
    inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    made = function(*inputs)
    gradient = random(*made.shape, seed=seed).to(made)
    return made.detach(), *torch.autograd.grad(made, inputs, gradient)


class TestWinograd:
    @pytest.mark.parametrize("tile", [(2, 2), (4, 4), (4, 2)], ids=str)
    @given(
        count=st.integers(1, 3),
        channels=st.integers(1, 5),
        filters=st.integers(1, 5),
        height=st.integers(3, 15),
        width=st.integers(3, 15),
        ordered=st.booleans(),
        most_bytes=st.sampled_from([1, 4000, winograd._MOST_BYTES]),
    )
    def test_is_the_convolution(self, tile, count, channels, filters, height, width, ordered, most_bytes) -> None:
        images, weight = random(count, channels, height, width), random(filters, channels, 3, 3, seed=1)
        images = images.contiguous(memory_format=LAST) if ordered else images
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(winograd.TILE, torch.float64, tile)
            patch.setattr(winograd, "_MOST_BYTES", most_bytes)
            made = differentiated(winograd_convolution, images, weight)
        assert made[0].is_contiguous(memory_format=LAST)
        for ours, plain in zip(made, differentiated(functional.conv2d, images, weight), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize(("dtype", "bound", "ratio"), [(torch.float32, 3e-6, 10), (torch.bfloat16, 8e-3, 3)])
    def test_rounding_is_bounded_also_beside_that_of_the_plain_convolution(self, dtype, bound, ratio) -> None:
        """As in a residual block: 256 channels that ReLU has been through."""
        images, weight = random(1, 256, 18, 18).relu().to(dtype), (0.02 * random(256, 256, 3, 3, seed=1)).float()
        exact = differentiated(functional.conv2d, images.double(), weight.double())
        ours = differentiated(winograd_convolution, images, weight)
        plain = differentiated(lambda x, w: functional.conv2d(x, w.to(dtype)), images, weight)
        for made, direct, wanted in zip(ours, plain, exact, strict=True):
            assert error(made, wanted) < bound
            assert error(made, wanted) < ratio * error(direct, wanted)

    def test_gradients_of_gradients_are_right(self) -> None:
        images, weight = random(1, 2, 5, 6).requires_grad_(), random(2, 2, 3, 3, seed=1).requires_grad_()
        assert torch.autograd.gradgradcheck(winograd_convolution, (images, weight))

    @pytest.mark.parametrize("wanted", [0, 1])
    def test_only_what_is_wanted_gets_a_gradient(self, wanted: int) -> None:
        inputs = [random(1, 2, 6, 6), random(2, 2, 3, 3, seed=1)]
        inputs[wanted].requires_grad_()
        winograd_convolution(*inputs).sum().backward()
        assert [tensor.grad is not None for tensor in inputs] == [place == wanted for place in (0, 1)]

    def test_memory_of_a_translation_serves_a_training_step(self) -> None:
        images, weight = random(1, 3, 6, 6, dtype=torch.float32), random(3, 3, 3, 3, dtype=torch.float32, seed=1)
        winograd._held.__dict__.clear()
        with torch.inference_mode():
            there = winograd_convolution(images, weight)
        made = differentiated(winograd_convolution, images, weight)[0]
        assert torch.equal(made, there)

    def test_memory_inside_a_convolution_does_not_grow_with_an_images_height(self, monkeypatch) -> None:
        monkeypatch.setattr(winograd, "_MOST_BYTES", 2**16)
        weight, held = random(4, 4, 3, 3), []
        for height in (34, 130, 514):
            winograd._held.__dict__.clear()
            differentiated(winograd_convolution, random(1, 4, height, 66, seed=1), weight)
            held.append(sum(buffer.nbytes for buffer in vars(winograd._held).values()))
        assert held[0] == held[1] == held[2] < 4 * 2**16

    def test_later_calls_do_not_overwrite_what_earlier_ones_made(self) -> None:
        images, weight = random(1, 3, 6, 6), random(3, 3, 3, 3, seed=1)
        first = differentiated(winograd_convolution, images, weight)
        kept = [tensor.clone() for tensor in first]
        differentiated(winograd_convolution, -images, 2 * weight, seed=3)
        assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))

    # opcheck looks for gradients where there are none.
    @pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
    def test_fits_what_torch_compile_asks_of_an_operation(self) -> None:
        images, weight = random(1, 2, 6, 5).requires_grad_(), random(3, 2, 3, 3, seed=1).requires_grad_()
        torch.library.opcheck(torch.ops.gantoolkit.winograd_convolution.default, (images, weight))


class TestConv3x3:
    @pytest.fixture
    def transformed(self, monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
        """The types of what was convolved by Winograd's algorithm."""
        seen: list[torch.dtype] = []

        def spy(images: Tensor, weight: Tensor) -> Tensor:
            seen.append(images.dtype)
            return winograd_convolution(images, weight)

        monkeypatch.setattr("gantoolkit.layers.convolution.winograd_convolution", spy)
        return seen

    @pytest.mark.parametrize(
        ("channels", "side", "dtype", "taken"),
        [
            (256, 64, torch.float32, True),
            (256, 64, torch.bfloat16, True),
            (256, 16, torch.float32, False),
            (64, 64, torch.float32, False),
            (128, 64, torch.bfloat16, False),
            (256, 64, torch.float64, False),
        ],
    )
    def test_the_algorithm_follows_from_type_and_shape(self, channels, side, dtype, taken, transformed) -> None:
        layer = Conv3x3(channels, channels).to(dtype)
        with torch.no_grad():
            made = layer(random(1, channels, side + 2, side + 2, dtype=dtype))
        assert made.shape == (1, channels, side, side)
        assert transformed == ([dtype] if taken else [])

    def test_autocast_decides_the_type(self, transformed) -> None:
        layer = Conv3x3(256, 256)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.zeros(1, 256, 66, 66)).dtype == torch.bfloat16
        assert transformed == [torch.bfloat16]

    def test_a_generator_is_the_same_network_either_way(self, transformed, monkeypatch: pytest.MonkeyPatch) -> None:
        """float32 against float64, through two residual blocks with their norms.

        SiLU stands in for ReLU, across whose edge a rounding error may move a feature: what is upstream then has another
        gradient, by either way of convolving, now and then.
        """

        def run(plain: bool, dtype: torch.dtype) -> dict[str, Tensor]:
            monkeypatch.setitem(convolution._LEAST_WORK, torch.float32, 2**62 if plain else 2**14)
            generator = ResNetGenerator(3, 3, blocks=2)
            for layers in [layers for layers in generator.modules() if isinstance(layers, nn.Sequential)]:
                for name, layer in layers.named_children():
                    setattr(layers, name, nn.SiLU() if isinstance(layer, nn.ReLU) else layer)
            for seed, parameter in enumerate(generator.parameters()):
                nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(seed))
            generator.to(dtype, memory_format=LAST)
            images = random(1, 3, 128, 128, seed=50).clamp(-1, 1).to(dtype).contiguous(memory_format=LAST)
            made = generator(images)
            (made - random(*made.shape, seed=51).to(dtype)).square().mean().backward()
            # The biases' gradients in front of a norm are rounding noise.
            gradients = {name: p.grad for name, p in generator.named_parameters() if name.endswith("weight")}
            return {"made": made, **gradients}

        exact = run(True, torch.float64)
        plain, ours = (
            {name: error(t, exact[name]) for name, t in run(way, torch.float32).items()} for way in (True, False)
        )
        assert transformed == [torch.float32] * 4
        assert ours["made"] < 1e-5
        assert max(ours.values()) < 5 * max(plain.values())


class TestChannelsLastNorm:
    @given(
        count=st.integers(1, 3),
        channels=st.integers(2, 5),
        height=st.integers(1, 7),
        width=st.integers(2, 7),
        run=st.sampled_from([4, channels_last._RUN]),
    )
    def test_is_instance_norm(self, count: int, channels: int, height: int, width: int, run: int) -> None:
        features = random(count, channels, height, width).contiguous(memory_format=LAST)
        weight, bias = random(channels, seed=1), random(channels, seed=2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(channels_last, "_RUN", run)
            made = differentiated(channels_last_instance_norm, features, weight, bias)
        plain = differentiated(lambda x, w, b: functional.instance_norm(x, weight=w, bias=b), features, weight, bias)
        for ours, theirs in zip(made, plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)

    def test_gradients_of_gradients_are_right(self) -> None:
        features = random(2, 2, 3, 4).contiguous(memory_format=LAST).requires_grad_()
        assert torch.autograd.gradgradcheck(channels_last_instance_norm, (features,))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_statistics_are_wide_however_far_the_mean_is_from_zero(self, dtype: torch.dtype) -> None:
        """A mean of squares less a squared mean would have no digit left; nor would statistics in bfloat16."""
        features = (random(2, 4, 16, 16, dtype=torch.float32) + 100).to(dtype).contiguous(memory_format=LAST)
        exact = differentiated(functional.instance_norm, features.double())
        for ours, wanted in zip(differentiated(channels_last_instance_norm, features), exact, strict=True):
            assert error(ours, wanted) < (1e-4 if dtype == torch.float32 else 5e-3)

    def test_many_pixels_do_not_add_up_to_an_error(self) -> None:
        """A million numbers added up one after the other, in float32, have an error of 1e-4."""
        features = (random(1, 3, 1023, 1031, dtype=torch.float32) + 3).contiguous(memory_format=LAST)
        made, gradient = differentiated(channels_last_instance_norm, features)
        exact, exact_gradient = differentiated(functional.instance_norm, features.double().contiguous())
        assert error(made, exact) < 1e-6
        assert error(gradient, exact_gradient) < 1e-5

    def test_flat_images_become_zero_without_nan(self) -> None:
        features = torch.full((1, 3, 8, 8), 0.7).contiguous(memory_format=LAST)
        made, gradient = differentiated(channels_last_instance_norm, features)
        assert made.abs().max() < 1e-3
        assert gradient.isfinite().all()

    @pytest.mark.parametrize("order", [LAST, torch.contiguous_format])
    def test_the_layer_keeps_the_order_in_memory(self, order: torch.memory_format) -> None:
        features = random(2, 4, 6, 6).contiguous(memory_format=order)
        made = InstanceNorm(4)(features)
        assert made.is_contiguous(memory_format=order)
        torch.testing.assert_close(made, nn.InstanceNorm2d(4)(features.contiguous()))

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_gradient_in_another_order_is_taken_right(self, count: int) -> None:
        """PyTorch's own layer gives another gradient for one image, where what comes back is in channels_last."""
        features, gradient = random(count, 3, 5, 6), random(count, 3, 5, 6, seed=1)
        exact = features.clone().requires_grad_()
        variance, mean = torch.var_mean(exact, (2, 3), correction=0, keepdim=True)
        ((exact - mean) * torch.rsqrt(variance + 1e-5)).backward(gradient)
        found = features.clone().requires_grad_()
        InstanceNorm(3)(found).backward(gradient.contiguous(memory_format=LAST))
        torch.testing.assert_close(found.grad, exact.grad)

    def test_statistics_are_wide_in_the_usual_order_too(self) -> None:
        features = (random(1, 4, 16, 16, dtype=torch.float32) + 8).bfloat16()
        exact = nn.functional.instance_norm(features.double())
        assert error(InstanceNorm(4)(features), exact) < 5e-3
