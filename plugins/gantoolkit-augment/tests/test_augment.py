"""The augmenting discriminators conform to their protocol, and the operations do what they document."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gantoolkit.plugins import SystemContext, systems
from gantoolkit.recipes import bigan, cyclegan, pix2pix, simgan
from gantoolkit.recipes.block_spec import BlockSpec, bind, resolve
from gantoolkit.testing import discriminator_checks, image_batches, system_checks
from gantoolkit_augment import AdaptiveAugment, DiffAugment, blend_colors, cut_out, mix_channels, move, warp

SMALL = {"name": "patchgan", "width": 4, "layers": 1}


@discriminator_checks({"name": "diffaugment", "discriminator": SMALL})
def test_diffaugment(check) -> None:
    check()


@discriminator_checks({"name": "ada", "discriminator": SMALL, "start": 0.5})
def test_ada(check) -> None:
    check()


@system_checks({"name": "cyclegan", "discriminator": {"name": "ada", "discriminator": SMALL, "images_to_full": 4}})
def test_cyclegan_with_ada(check) -> None:
    check()


OPERATIONS = {
    "blend_colors": blend_colors,
    "move": lambda images: move(images, 0.25),
    "cut_out": lambda images: cut_out(images, 0.5),
    "warp": lambda images: warp(images, torch.tensor(1.0)),
    "mix_channels": lambda images: mix_channels(images, torch.tensor(1.0)),
}


@pytest.mark.parametrize("name", OPERATIONS)
@settings(deadline=None, derandomize=True, max_examples=15)
@given(data=st.data(), channels=st.sampled_from([1, 3, 4, 6]))
def test_operations_preserve_shape_and_pass_gradients(name: str, data: st.DataObject, channels: int) -> None:
    images = data.draw(image_batches(channels=channels, sizes=(16, 24))).requires_grad_()
    changed = OPERATIONS[name](images)
    assert changed.shape == images.shape
    assert torch.isfinite(changed).all()
    (gradient,) = torch.autograd.grad(changed.square().sum(), images)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_image_changes_independently(name: str) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    changed = OPERATIONS[name](image.expand(16, -1, -1, -1))
    assert len({tuple(one.flatten().tolist()) for one in changed}) > 8


@pytest.mark.parametrize("change", [warp, mix_channels])
@settings(deadline=None, derandomize=True, max_examples=10)
@given(images=image_batches(sizes=(16,)))
def test_probability_zero_changes_nothing(change, images: Tensor) -> None:
    assert torch.allclose(change(images, torch.tensor(0.0)), images, atol=1e-5)


def test_gray_stays_gray_and_pairs_change_alike() -> None:
    torch.manual_seed(0)
    gray = (torch.rand(8, 1, 8, 8) * 2 - 1).expand(-1, 3, -1, -1)
    for change in (blend_colors, lambda images: mix_channels(images, torch.tensor(1.0))):
        changed = change(gray)
        assert torch.allclose(changed[:, 0], changed[:, 1], atol=1e-5)
    image = torch.rand(8, 3, 8, 8) * 2 - 1
    for change in OPERATIONS.values():
        first, second = change(torch.cat([image, image], dim=1)).chunk(2, dim=1)
        assert torch.allclose(first, second, atol=1e-5)


def test_cutout_is_a_gray_square_of_its_size() -> None:
    torch.manual_seed(0)
    holes = (cut_out(torch.ones(32, 3, 16, 16), 0.5) == 0)[:, 0]
    assert holes.sum(dim=(1, 2)).tolist() == [64] * 32


class FirstChannel(nn.Module):
    """A discriminator whose logits are the first channel of its images."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images[:, :1]


def test_probability_follows_signs_of_real_logits() -> None:
    network = AdaptiveAugment(3, discriminator=FirstChannel, images_to_full=100, interval=4, boundary=0.5)
    confident, doubtful = torch.full((5, 1, 2, 2), 0.9), torch.full((5, 1, 2, 2), 0.1)
    for _ in range(3):
        network.observe(confident, doubtful)
    assert network.p == 0
    network.observe(confident, doubtful)
    assert float(network.p) == pytest.approx(20 / 100)
    for _ in range(4):
        network.observe(confident, doubtful)
    assert float(network.p) == pytest.approx(40 / 100)
    for _ in range(40):
        network.observe(doubtful, confident)
    assert network.p == 0
    for _ in range(400):
        network.observe(confident, doubtful)
    assert network.p == 1


def test_evaluation_mode_disables_augmentation() -> None:
    network = DiffAugment(3, discriminator=FirstChannel)
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(network.eval()(images), images[:, :1])
    assert not torch.equal(network.train()(images), images[:, :1])


@pytest.mark.parametrize("name", ["diffaugment", "ada"])
@pytest.mark.parametrize("make", [cyclegan, simgan, bigan, pix2pix])
def test_every_system_accepts_augmenting_discriminators(make, name: str) -> None:
    make(discriminator={"name": name, "discriminator": "patchgan"}).check()


@pytest.mark.parametrize("name", ["cyclegan", "pix2pix", "simgan", "bigan"])
def test_every_system_passes_logits_to_observe(name: str) -> None:
    recipe = {"cyclegan": cyclegan, "pix2pix": pix2pix, "simgan": simgan, "bigan": bigan}[name](
        generator={"name": "resnet", "width": 4, "blocks": 1}, discriminator={"name": "ada", "discriminator": SMALL}
    )
    system = bind("systems", resolve("systems", recipe.system, name))(SystemContext(3, 3, 0, 16))
    assert name in systems
    batch = {domain: torch.rand(1, 3, 16, 16) for domain in "AB"}
    shared = system.forward(batch)
    for phase in system.phases:
        phase.losses(batch, shared)
    observers = [network for network in system.networks.values() if isinstance(network, AdaptiveAugment)]
    assert observers
    assert all(network.counts.tolist() == [1, 1] for network in observers)


def test_nested_blocks_are_validated() -> None:
    block = resolve("discriminators", BlockSpec.of("ada", discriminator={"name": "patchgan", "layers": 2}), "here")
    assert block.parameters["discriminator"].parameters["layers"] == 2
