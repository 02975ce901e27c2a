import copy

import pytest
import torch
from torch import Tensor, nn

from gantoolkit.blocks.discriminators import PatchGANDiscriminator, PixelGANDiscriminator
from gantoolkit.blocks.generators import ResNetGenerator, UNetGenerator
from gantoolkit.runtime.memory_format import memory_format_of, set_memory_format

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LAST = torch.channels_last


def test_the_order_follows_from_precision_and_device() -> None:
    assert memory_format_of("fp32", CPU) == memory_format_of("bf16", CPU) == memory_format_of("bf16", CUDA) == LAST
    assert memory_format_of("tf32", CUDA) == LAST
    assert memory_format_of("fp32", CUDA) == torch.contiguous_format


class Foreign(nn.Sequential):
    """A stranger's network, with PyTorch's own instance norm."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 3, 3, padding=1), nn.Tanh())


NETWORKS = {
    "foreign": Foreign,
    "resnet": lambda: ResNetGenerator(3, 3, width=4, blocks=2),
    "resnet, batch norm": lambda: ResNetGenerator(3, 3, width=4, blocks=1, norm="batch"),
    "resnet, affine": lambda: ResNetGenerator(3, 3, width=4, blocks=1, norm="instance_affine"),
    "resnet, resize": lambda: ResNetGenerator(3, 3, width=4, blocks=1, upsampling="resize", padding="zero"),
    "unet": lambda: UNetGenerator(3, 3, width=4, depth=3, norm="instance"),
    "patchgan": lambda: PatchGANDiscriminator(3, width=4, layers=2),
    "patchgan, spectral": lambda: PatchGANDiscriminator(3, width=4, layers=2, spectral_norm=True),
    "pixelgan": lambda: PixelGANDiscriminator(3, width=4),
}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_order_of_images_and_gradients_gives_the_same_gradients(name: str, count: int) -> None:
    """Also for the network that PyTorch would give wrong ones: its instance norm, one image, a gradient in channels_last."""
    torch.manual_seed(0)
    plain = NETWORKS[name]().double().eval()
    network = copy.deepcopy(plain)
    set_memory_format(network, LAST, supported=getattr(network, "channels_last", False))
    images = torch.randn(count, 3, 16, 16, dtype=torch.float64)
    gradient = torch.randn_like(plain(images))

    def differentiate(network: nn.Module, images: Tensor, gradient: Tensor) -> list[Tensor]:
        images = images.detach().requires_grad_()
        made = network(images)
        return [made.detach(), *torch.autograd.grad(made, [images, *network.parameters()], gradient)]

    wanted = differentiate(plain, images, gradient)
    for order_in in (LAST, torch.contiguous_format):
        for order_back in (LAST, torch.contiguous_format):
            found = differentiate(
                network, images.contiguous(memory_format=order_in), gradient.contiguous(memory_format=order_back)
            )
            for made, expected in zip(found, wanted, strict=True):
                torch.testing.assert_close(made, expected, rtol=1e-8, atol=1e-10)


def test_two_images_are_put_in_order_both() -> None:
    class Two(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
            assert first.is_contiguous()
            assert second.is_contiguous()
            return second, first

    network = Two()
    set_memory_format(network, LAST, supported=getattr(network, "channels_last", False))
    images = torch.rand(1, 3, 4, 5).contiguous(memory_format=LAST)
    second, first = network(images, 2 * images)
    assert torch.equal(first, images)
    assert torch.equal(second, 2 * images)
