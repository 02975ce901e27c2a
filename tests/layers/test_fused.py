"""Chains of layers: biases that an instance norm subtracts."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode

from gantoolkit.blocks.discriminators import PatchGANDiscriminator, PixelGANDiscriminator
from gantoolkit.blocks.generators import ResNetGenerator, UNetGenerator
from gantoolkit.blocks.initializers import Normal
from gantoolkit.layers.convolution import Conv3x3
from gantoolkit.layers.fused import Chain, Residual
from gantoolkit.layers.normalization import InstanceNorm


class CountBiases(TorchDispatchMode):
    """Count the convolutions that add a bias, and those that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.with_bias = self.without_bias = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.convolution.default:
            self.with_bias += args[2] is not None
            self.without_bias += args[2] is None
        return function(*args, **(kwargs or {}))


def count_biases(network: nn.Module, images: Tensor) -> tuple[int, int]:
    with CountBiases() as counter:
        network(images)
    return counter.with_bias, counter.without_bias


def randomize_biases(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(generator=generator)
    return network


CONVOLUTIONS = {
    "convolution": lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1, dilation=2, groups=2),
    "reflecting": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
    "residual": lambda: Conv3x3(4, 4),
    "spectral": lambda: spectral_norm(nn.Conv2d(4, 4, 3)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("norm", [InstanceNorm(4), nn.InstanceNorm2d(4, affine=True)], ids=["ours", "torch"])
def test_frozen_bias_before_instance_norm_is_not_added(name: str, norm: nn.Module) -> None:
    convolution = CONVOLUTIONS[name]().double().eval()
    convolution.bias.requires_grad_(False)
    layers = [convolution, norm.double(), nn.ReLU()]
    images = torch.randn(2, 4, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert count_biases(nn.Sequential(*layers), images) == (1, 0)
    assert count_biases(Chain(*layers), images) == (0, 1)
    results = []
    for network in (nn.Sequential(*layers), Chain(*layers)):
        output = network(images.requires_grad_())
        weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
        results.append([output, *torch.autograd.grad(output.pow(3).sum(), [images, *weights])])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


def test_trained_bias_is_added_and_receives_the_gradient_of_a_sequence() -> None:
    layers = [nn.Conv2d(3, 4, 3), InstanceNorm(4)]
    images = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    results = []
    for network in (nn.Sequential(*layers), Chain(*layers)):
        output = network(images)
        results.append([output, *torch.autograd.grad(output.pow(3).sum(), list(network.parameters()))])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    with torch.no_grad():
        assert count_biases(Chain(*layers), images) == (0, 1)


def test_bias_is_added_if_no_norm_subtracts_it_or_if_it_is_observed() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    def convolution(kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
        return kind(3, 3, 3, padding=1).requires_grad_(False)

    images = torch.randn(1, 3, 6, 6)
    statistics = InstanceNorm(3, track_running_stats=True)
    for layers in ([convolution(), nn.ReLU(), InstanceNorm(3)], [convolution(), nn.BatchNorm2d(3)], [convolution()]):
        assert count_biases(Chain(*layers), images) == (1, 0)
    assert count_biases(Chain(convolution(), statistics), images) == (1, 0)
    assert count_biases(Chain(convolution(Scaled), InstanceNorm(3)), images) == (1, 0)
    for hooked in (0, 1):
        network = Chain(convolution(), InstanceNorm(3))
        handle = network[hooked].register_forward_hook(lambda *_: None)
        assert count_biases(network, images) == (1, 0)
        handle.remove()
        assert count_biases(network, images) == (0, 1)


def test_traced_chain_records_plain_layers() -> None:
    network = randomize_biases(ResNetGenerator(3, 3, blocks=1, width=4)).eval()
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(network, (images,))
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert called.count(torch.ops.aten.conv2d.default) + called.count(torch.ops.aten.conv_transpose2d.input) == 8
    torch.testing.assert_close(program.module()(images), network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "frozen", "trained"),
    [
        (lambda norm: ResNetGenerator(3, 3, blocks=2, width=4, norm=norm), 9, 1),
        (lambda norm: ResNetGenerator(3, 3, blocks=1, width=4, norm=norm, upsampling="resize"), 7, 1),
        (lambda norm: UNetGenerator(3, 3, depth=3, width=4, norm=norm), 3, 3),
        (lambda norm: PatchGANDiscriminator(3, width=4, norm=norm), 3, 2),
        (lambda norm: PatchGANDiscriminator(3, width=4, norm=norm, spectral_norm=True), 3, 2),
        (lambda norm: PixelGANDiscriminator(3, width=4, norm=norm), 1, 2),
    ],
    ids=["resnet", "resized resnet", "unet", "patchgan", "spectral patchgan", "pixelgan"],
)
def test_biases_before_instance_norm_are_zero_and_not_trained(network, frozen: int, trained: int) -> None:
    def biases(norm: str) -> list[nn.Parameter]:
        module = network(norm)
        Normal()(module, torch.Generator().manual_seed(0))
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        return [layer.bias for layer in layers if layer.bias is not None]

    for norm in ("instance", "instance_affine"):
        constant = [bias for bias in biases(norm) if not bias.requires_grad]
        assert len(constant) == frozen
        assert not any(bias.any() for bias in constant)
        assert len(biases(norm)) == frozen + trained
    assert all(bias.requires_grad for bias in [*biases("batch"), *biases("none")])


def test_all_biases_before_norms_of_the_networks_are_omitted() -> None:
    for network, remaining in (
        (ResNetGenerator(3, 3, blocks=2, width=4), 1),
        (UNetGenerator(3, 3, depth=3, width=4, norm="instance"), 3),
        (PatchGANDiscriminator(3, width=4), 2),
        (PixelGANDiscriminator(3, width=4), 2),
    ):
        assert count_biases(network, torch.randn(1, 3, 32, 32))[0] == remaining


def test_residual_of_a_chain_equals_its_formula() -> None:
    layers = [nn.Conv2d(3, 3, 3, padding=1), InstanceNorm(3), nn.ReLU()]
    network = Chain(Residual(*layers), Residual(*layers)).requires_grad_(False)
    images = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    expected = images
    for _ in range(2):
        expected = expected + nn.Sequential(*layers).double()(expected)
    torch.testing.assert_close(network.double()(images), expected)
    assert count_biases(network, images) == (0, 2)


def test_changes_between_calls_take_effect() -> None:
    images = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    convolution = nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)
    block = Residual(convolution, InstanceNorm(3), nn.LeakyReLU(0.2))
    network = Chain(block, nn.ReflectionPad2d(1))
    called: list[str] = []

    def expect(added_biases: int) -> None:
        inner = nn.Sequential(*block.layers)
        expected = network[1](images + inner(images))
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)
        assert count_biases(network, images)[0] == added_biases

    expect(0)
    network[1] = nn.ReflectionPad2d((1, 2, 3, 0))
    expect(0)
    block.layers[2].negative_slope = 0.5
    expect(0)
    block.layers[1] = nn.BatchNorm2d(3, affine=False, track_running_stats=False)
    expect(1)
    block.layers[1] = nn.InstanceNorm2d(3)
    expect(0)
    block.layers[1].track_running_stats = True
    assert count_biases(network, images)[0] == 1
    block.layers[1].track_running_stats = False
    for hooked in (convolution, block.layers[1]):
        handle = hooked.register_forward_pre_hook(lambda *_: called.append("hook"))
        expect(1)
        handle.remove()
        expect(0)
    chains: list[str] = []
    handle = block.layers.register_forward_pre_hook(lambda *_: chains.append("chain"))
    network(images)
    assert chains == ["chain"]
    handle.remove()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    expect(1)
    handle.remove()
    block.layers[1].forward = lambda input: called.append("own") or input
    expect(1)
    assert {"hook", "own"} == set(called)
    del block.layers[1].forward
    expect(0)
    convolution.requires_grad_(True)
    expect(1)
    convolution.bias = None
    expect(0)
