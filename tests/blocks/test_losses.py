import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor

from gantoolkit.blocks.losses import L1, L2, LSGAN, NLL, SSIM, WGANGP, Hinge


@st.composite
def logits(draw: st.DrawFn, magnitude: float = 1e4) -> Tensor:
    shape = draw(st.tuples(st.integers(1, 3), st.just(1), st.integers(1, 3), st.integers(1, 3)))
    count = math.prod(shape)
    values = draw(st.lists(st.floats(-magnitude, magnitude), min_size=count, max_size=count))
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


ALL = [LSGAN(), NLL(), Hinge(), WGANGP()]
PARTS = ["real", "fake", "generator"]


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("part", PARTS)
@given(values=logits())
def test_loss_of_batch_is_mean_over_samples(loss, part: str, values: Tensor) -> None:
    whole = getattr(loss, part)(values)
    by_sample = torch.stack([getattr(loss, part)(sample[None]) for sample in values])
    assert whole.shape == ()
    assert math.isfinite(whole)
    torch.testing.assert_close(whole, by_sample.mean())


@pytest.mark.parametrize("part", PARTS)
@given(values=logits())
def test_lsgan_is_zero_at_its_targets_only(part: str, values: Tensor) -> None:
    loss = LSGAN()
    target = {"real": 1.0, "fake": 0.0, "generator": 1.0}[part]
    assert getattr(loss, part)(values) >= 0
    assert getattr(loss, part)(torch.full_like(values, target)) == 0
    assert getattr(loss, part)(torch.full_like(values, target + 0.5)) == 0.25


@given(value=st.floats(-30, 30))
def test_nll_matches_its_formula(value: float) -> None:
    probability = 1 / (1 + math.exp(-value))
    logit = torch.tensor([[[[value]]]], dtype=torch.float64)
    loss = NLL()
    assert float(loss.real(logit)) == pytest.approx(-math.log(probability), rel=1e-9, abs=1e-12)
    assert float(loss.fake(logit)) == pytest.approx(-math.log(1 / (1 + math.exp(value))), rel=1e-9, abs=1e-12)
    assert float(loss.generator(logit)) == pytest.approx(-math.log(probability), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("value", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nll_is_finite_for_extreme_logits(part: str, value: float, dtype: torch.dtype) -> None:
    extreme = torch.full((2, 1, 3, 3), value, dtype=dtype, requires_grad=True)
    loss = getattr(NLL(), part)(extreme)
    loss.backward()
    assert extreme.grad is not None
    assert math.isfinite(loss.item())
    assert torch.isfinite(extreme.grad).all()
    assert loss.item() in (0.0, 1e4)


def test_nll_of_the_generator_does_not_saturate() -> None:
    # If the discriminator is confident that an image is fake, log(1 − D) is flat and −log D is steep.
    logits = torch.full((1, 1, 1, 1), -20.0, requires_grad=True)
    NLL().generator(logits).backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_discriminator_and_generator_have_opposite_goals_for_fakes(loss) -> None:
    def slope(part: str) -> float:
        values = torch.zeros(1, 1, 1, 1, requires_grad=True)
        getattr(loss, part)(values).backward()
        assert values.grad is not None
        return values.grad.item()

    assert slope("real") < 0
    assert slope("generator") < 0
    assert slope("fake") > 0 or isinstance(loss, LSGAN)  # LSGAN's target for fakes is 0
    assert LSGAN().fake(torch.ones(1, 1, 1, 1)) > 0


def test_hinge_is_flat_beyond_its_margins() -> None:
    assert Hinge().real(torch.full((1, 1, 2, 2), 1.0)) == 0
    assert Hinge().fake(torch.full((1, 1, 2, 2), -1.0)) == 0
    assert Hinge().fake(torch.zeros(1, 1, 2, 2)) == 1


@given(slope=st.floats(0, 4), weight=st.floats(0.5, 20))
def test_gradient_penalty_is_the_squared_deviation_from_one(slope: float, weight: float) -> None:
    real, fake = torch.rand(3, 2, 4, 4, dtype=torch.float64), torch.rand(3, 2, 4, 4, dtype=torch.float64)
    # D is linear, so its gradient has the norm `slope` everywhere.
    direction = torch.ones(2, 4, 4, dtype=torch.float64) / math.sqrt(32)
    penalty = WGANGP(penalty_weight=weight).penalty(lambda x: slope * (x * direction).sum(dim=(1, 2, 3)), real, fake)
    assert penalty.item() == pytest.approx(weight * (slope - 1) ** 2, rel=1e-6, abs=1e-6)


def test_gradient_penalty_has_gradients_for_the_discriminator_only() -> None:
    discriminator = torch.nn.Conv2d(1, 1, 3)
    fake = torch.rand(2, 1, 5, 5, requires_grad=True)
    WGANGP().penalty(discriminator, torch.rand(2, 1, 5, 5), fake).backward()
    assert fake.grad is None
    assert discriminator.weight.grad is not None
    assert discriminator.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", [L1(), L2(), SSIM()], ids=lambda loss: type(loss).__name__)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 3))
def test_image_losses_are_distances_and_means(loss, seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, targets = (torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1 for _ in range(2))
    distance = loss(images, targets)
    assert distance > 0
    assert loss(images, images).item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(distance, loss(targets, images))
    by_image = torch.stack([loss(a[None], b[None]) for a, b in zip(images, targets, strict=True)])
    torch.testing.assert_close(distance, by_image.mean())


def test_ssim_agrees_with_scikit_image_inside_the_border() -> None:
    generator = np.random.default_rng(0)
    clean = generator.random((64, 64))
    noisy = np.clip(clean + 0.1 * generator.standard_normal((64, 64)), 0, 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    _, expected = structural_similarity(clean, noisy, full=True, **options)
    images = [torch.from_numpy(array)[None, None].float() * 2 - 1 for array in (clean, noisy)]
    crop = (..., slice(11, -11), slice(11, -11))
    from kornia.metrics import ssim

    ours = ssim((images[0] + 1) / 2, (images[1] + 1) / 2, 11)[crop].mean().item()
    assert ours == pytest.approx(expected[11:-11, 11:-11].mean(), abs=5e-3)
    assert SSIM()(*images).item() == pytest.approx(
        (1 - ssim(*[(i + 1) / 2 for i in images], 11).mean().item()) / 2, abs=1e-5
    )
