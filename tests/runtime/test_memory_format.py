import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from gantoolkit.blocks.discriminators import PatchGANDiscriminator, PixelGANDiscriminator
from gantoolkit.blocks.generators import ResNetGenerator, UNetGenerator
from gantoolkit.runtime.memory_format import memory_format_of, set_memory_format

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LAST = torch.channels_last


def test_memory_format_depends_on_precision_and_device() -> None:
    assert memory_format_of("fp32", CPU) == memory_format_of("bf16", CPU) == memory_format_of("bf16", CUDA) == LAST
    assert memory_format_of("tf32", CUDA) == LAST
    assert memory_format_of("fp32", CUDA) == torch.contiguous_format


class ThirdParty(nn.Sequential):
    """A third-party network with PyTorch's own instance norm."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 3, 3, padding=1), nn.Tanh())


NETWORKS = {
    "third party": ThirdParty,
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
def test_gradients_do_not_depend_on_memory_format_of_images_and_gradients(name: str, count: int) -> None:
    """Includes the case that PyTorch computes wrongly: its instance norm, one image, a channels_last gradient."""
    torch.manual_seed(0)
    plain = NETWORKS[name]().double().eval()
    network = copy.deepcopy(plain)
    set_memory_format(network, LAST, supported=getattr(network, "channels_last", False))
    images = torch.randn(count, 3, 16, 16, dtype=torch.float64)
    gradient = torch.randn_like(plain(images))

    def differentiate(network: nn.Module, images: Tensor, gradient: Tensor) -> list[Tensor]:
        images = images.detach().requires_grad_()
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        output = network(images)
        return [output.detach(), *torch.autograd.grad(output, [images, *parameters], gradient)]

    expected = differentiate(plain, images, gradient)
    for image_format, gradient_format in itertools.product((LAST, torch.contiguous_format), repeat=2):
        results = differentiate(
            network, images.contiguous(memory_format=image_format), gradient.contiguous(memory_format=gradient_format)
        )
        for ours, theirs in zip(results, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_all_inputs_become_contiguous() -> None:
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
