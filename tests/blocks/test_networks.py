"""Generators and discriminators: parameter counts, shapes and invariances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gantoolkit.blocks.discriminators import PatchGANDiscriminator, PixelGANDiscriminator
from gantoolkit.blocks.generators import ResNetGenerator, UNetGenerator
from gantoolkit.blocks.initializers import Kaiming, Normal, Orthogonal, Xavier


def parameters_of(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: ResNetGenerator(3, 3), 11_378_179),
        (lambda: ResNetGenerator(3, 3, blocks=6), 7_837_699),
        (lambda: PatchGANDiscriminator(3), 2_764_737),
        (lambda: UNetGenerator(3, 3), 54_413_955),
        (lambda: UNetGenerator(3, 3, depth=7), 41_828_995),
    ],
)
def test_parameter_counts_match_the_papers(build, count: int) -> None:
    with torch.device("meta"):
        assert parameters_of(build()) == count


@pytest.mark.parametrize(("side", "logits"), [(256, 30), (128, 14)])
def test_patchgan_has_number_of_logits_of_the_paper(side: int, logits: int) -> None:
    with torch.device("meta"):
        assert PatchGANDiscriminator(3)(torch.zeros(2, 3, side, side)).shape == (2, 1, logits, logits)


def test_padding_of_authors_first_code_gives_its_number_of_logits() -> None:
    with torch.device("meta"):
        assert PatchGANDiscriminator(3, padding=2)(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 35, 35)


def test_affine_instance_norm_has_weights() -> None:
    plain, affine = (
        ResNetGenerator(3, 3, blocks=1, width=2),
        ResNetGenerator(3, 3, blocks=1, width=2, norm="instance_affine"),
    )
    norms = [module for module in affine.modules() if isinstance(module, nn.InstanceNorm2d)]
    assert len(norms) == 7
    assert all(norm.weight is not None and norm.running_mean is None for norm in norms)
    assert parameters_of(affine) == parameters_of(plain) + sum(2 * norm.num_features for norm in norms)
    with torch.no_grad():
        norms[0].weight.zero_()
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(affine(images), affine(images + 1)), "the weight of its norm is not used"


def test_noise_at_test_makes_evaluation_stochastic() -> None:
    images = torch.rand(2, 3, 64, 64)
    for noisy in (False, True):
        network = UNetGenerator(3, 3, depth=6, width=4, dropout=0.5, norm="batch", noise_at_test=noisy).eval()
        first, second = network(images), network(images)
        assert torch.equal(first, second) is not noisy
        assert network.stochastic is noisy
        assert any("running_mean" in key for key in network.state_dict()) is not noisy
    torch.manual_seed(0)
    first = network(images)
    torch.manual_seed(0)
    assert torch.equal(network(images), first)


def test_receptive_field_of_patchgan_is_seventy_pixels() -> None:
    discriminator = PatchGANDiscriminator(1, width=2, norm="none")
    image = torch.zeros(1, 1, 128, 128, requires_grad=True)
    discriminator(image)[0, 0, 7, 7].backward()
    assert image.grad is not None
    rows = image.grad[0, 0].abs().sum(dim=1).nonzero()
    assert rows.max() - rows.min() + 1 == 70


@given(
    height=st.integers(2, 8),
    width=st.integers(2, 8),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    norm=st.sampled_from(["instance", "batch", "none"]),
    padding=st.sampled_from(["reflect", "replicate", "zero"]),
    upsampling=st.sampled_from(["transposed", "resize"]),
    dropout=st.sampled_from([0.0, 0.5]),
)
def test_resnet_preserves_size_and_range(height, width, channels, norm, padding, upsampling, dropout) -> None:
    network = ResNetGenerator(
        *channels, blocks=1, width=2, norm=norm, padding=padding, upsampling=upsampling, dropout=dropout
    )
    images = torch.rand(2, channels[0], 4 * height, 4 * width) * 2 - 1
    translated = network(images)
    assert translated.shape == (2, channels[1], 4 * height, 4 * width)
    assert translated.abs().max() <= 1


@given(
    depth=st.integers(2, 6),
    wide=st.integers(1, 2),
    norm=st.sampled_from(["instance", "batch"]),
    dropout=st.sampled_from([0.0, 0.5]),
)
def test_unet_preserves_size_and_range(depth, wide, norm, dropout) -> None:
    network = UNetGenerator(3, 2, depth=depth, width=2, norm=norm, dropout=dropout)
    side = 2 * network.size_multiple
    translated = network(torch.rand(1, 3, side, side * wide) * 2 - 1)
    assert translated.shape == (1, 2, side, side * wide)
    assert translated.abs().max() <= 1


def test_unet_has_dropout_in_inner_levels_of_full_width_only() -> None:
    network = UNetGenerator(3, 3, depth=8, width=1, dropout=0.5)
    assert sum(isinstance(module, nn.Dropout) for module in network.modules()) == 3


@pytest.mark.parametrize(
    "network",
    [
        ResNetGenerator(3, 3, blocks=1, width=4),
        ResNetGenerator(3, 3, blocks=1, width=4, norm="batch", dropout=0.5),
        UNetGenerator(3, 3, depth=3, width=4, dropout=0.5),
    ],
)
@given(seed=st.integers(0, 2**16))
def test_translation_in_evaluation_mode_does_not_depend_on_the_batch(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 3, 16, 16, generator=generator) * 2 - 1
    network.eval()
    with torch.no_grad():
        batched = network(images)
        separate = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(batched, separate, rtol=1e-4, atol=1e-5)


@given(layers=st.integers(1, 4), side=st.sampled_from([64, 72, 80]), spectral=st.booleans())
def test_patchgan_shapes(layers: int, side: int, spectral: bool) -> None:
    network = PatchGANDiscriminator(3, layers=layers, width=2, spectral_norm=spectral)
    expected = side // 2**layers - 2
    assert network(torch.zeros(2, 3, side, side)).shape == (2, 1, expected, expected)


def test_spectral_norm_bounds_every_convolution() -> None:
    network = PatchGANDiscriminator(3, layers=2, width=4, spectral_norm=True)
    Normal()(network, torch.Generator().manual_seed(0))
    for _ in range(30):  # the power iteration converges while the network is used
        network(torch.rand(1, 3, 32, 32))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert torch.linalg.matrix_norm(module.weight.flatten(1), ord=2) < 1.05


def test_pixelgan_judges_pixels_independently() -> None:
    network = PixelGANDiscriminator(3, width=4, norm="none")
    images = torch.rand(2, 3, 8, 6)
    changed = images.clone()
    changed[:, :, 0, 0] += 1
    difference = (network(images) - network(changed)).abs()
    assert network(images).shape == (2, 1, 8, 6)
    assert difference[..., 0, 0].min() > 0
    assert difference.flatten(1)[:, 1:].max() == 0


def test_normal_weights_have_deviation_of_the_paper_and_zero_biases() -> None:
    network = ResNetGenerator(3, 3, blocks=2, width=32, norm="batch")
    Normal()(network, torch.Generator().manual_seed(0))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.02)
            assert module.weight.std() > 0
            assert not module.bias.any()


def test_instance_norm_has_neither_weights_nor_statistics() -> None:
    norms = [module for module in ResNetGenerator(3, 3, blocks=1).modules() if isinstance(module, nn.InstanceNorm2d)]
    assert norms
    assert not any(list(norm.parameters()) or list(norm.buffers()) for norm in norms)


@pytest.mark.parametrize("initializer", [Normal(), Xavier(), Kaiming(), Orthogonal()])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_weights_depend_on_the_random_generator_only(initializer, spectral_norm: bool) -> None:
    def initialize(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed + 99)  # the default initialization must not matter
        network = PatchGANDiscriminator(3, layers=1, width=4, spectral_norm=spectral_norm)
        initializer(network, torch.Generator().manual_seed(seed))
        return [parameter.detach().clone() for parameter in network.parameters()]

    before = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(initialize(1), initialize(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(initialize(1), initialize(2), strict=True))
    torch.set_rng_state(before)


def test_dropout_is_active_in_training_mode_only() -> None:
    network = ResNetGenerator(3, 3, blocks=1, width=4, dropout=0.5)
    images = torch.rand(1, 3, 16, 16)
    assert not torch.equal(network.train()(images), network(images))
    assert torch.equal(network.eval()(images), network(images))
