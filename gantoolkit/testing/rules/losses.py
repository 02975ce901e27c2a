"""Rules of adversarial losses and of image losses."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from gantoolkit.plugins import PenalizedLoss
from gantoolkit.testing.kit import Draw, NotApplicable, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import (
    add_schema_rule,
    agree,
    check_device,
    check_gradient,
    check_inputs_kept,
    check_repeats,
)
from gantoolkit.testing.strategies import image_batches, image_pairs, logits

__all__ = ["adversarial_losses", "image_losses"]

_PARTS = ("real", "fake", "generator")
_CONFIDENT = 20.0
_LEAST_SLOPE = 1e-3

adversarial_losses = Rulebook("adversarial_losses", examples=25)
add_schema_rule(adversarial_losses)


@adversarial_losses.rule
def returns_finite_scalars(subject: Subject, draw: Draw) -> None:
    """`real`, `fake` and `generator` each return one finite number, also for logits of ±10,000."""
    loss, values = subject.make(), draw(logits(largest=1e4), "logits").to(subject.device)
    for part in _PARTS:
        value = getattr(loss, part)(values)
        expect(value.ndim == 0, f"{part} returned shape {tuple(value.shape)} where a scalar is wanted")
        expect(bool(torch.isfinite(value)), f"{part} returned {value.item()}")


@adversarial_losses.rule
def is_mean(subject: Subject, draw: Draw) -> None:
    """Each part is a mean over all logits: logits that are there twice, as images or as patches, change nothing."""
    loss, values = subject.make(), draw(logits(dtype=torch.float64), "logits").to(subject.device)
    for part in _PARTS:
        once = getattr(loss, part)(values)
        for way, doubled in (("images", torch.cat([values, values])), ("patches", torch.cat([values, values], dim=-1))):
            twice = getattr(loss, part)(doubled)
            expect(agree(once, twice), f"{part} gave {once.item():.6g}, and {twice.item():.6g} with all {way} twice")


@adversarial_losses.rule
def prefers_real_above_fake(subject: Subject, draw: Draw) -> None:
    """The logit that the discriminator likes best for real images is above the one that it likes best for fakes, and the
    generator likes its fakes to be on the side of the real ones.
    """
    loss = subject.make()
    grid = torch.linspace(-_CONFIDENT, _CONFIDENT, 401, dtype=torch.float64, device=subject.device)

    def best(part: str) -> float:
        return grid[torch.stack([getattr(loss, part)(value.view(1, 1, 1, 1)) for value in grid]).argmin()].item()

    real, fake, generator = (best(part) for part in _PARTS)
    expect(real > fake, f"the best logit for real images is {real:.3g}, for fakes {fake:.3g}")
    expect(generator > fake, f"the generator likes {generator:.3g} best, the discriminator {fake:.3g} for fakes")


@adversarial_losses.rule
def has_gradient_for_confident_errors(subject: Subject, draw: Draw) -> None:
    """Where a discriminator is sure and wrong, or sure of a fake, the gradient is still there: logits have not been through a
    sigmoid, and the generator's loss does not saturate.
    """
    loss = subject.make()
    for part, wrong in (("real", -_CONFIDENT), ("fake", _CONFIDENT), ("generator", -_CONFIDENT)):
        value = torch.full((1, 1, 1, 1), wrong, dtype=torch.float64, device=subject.device, requires_grad=True)
        (slope,) = torch.autograd.grad(getattr(loss, part)(value), value)
        expect(
            slope.abs().item() >= _LEAST_SLOPE,
            f"at a logit of {wrong:g} the slope of {part} is only {slope.item():.3g}",
        )


@adversarial_losses.rule
def does_not_modify_logits(subject: Subject, draw: Draw) -> None:
    """Logits are read and never changed in place."""
    loss, values = subject.make(), draw(logits(), "logits").to(subject.device)
    for part in _PARTS:
        check_inputs_kept(getattr(loss, part), [values])


@adversarial_losses.rule
def supports_float64_logits(subject: Subject, draw: Draw) -> None:
    """float64 logits are judged in float64, and gradients are the slopes of the values."""
    loss, values = subject.make(), draw(logits(), "logits").to(subject.device)
    for part in _PARTS:
        check_gradient(getattr(loss, part), [values])


@adversarial_losses.rule
def uses_no_randomness(subject: Subject, draw: Draw) -> None:
    """Equal logits give equal losses, and no global random generator is touched (a penalty may draw)."""
    loss, values = subject.make(), draw(logits(), "logits").to(subject.device)
    check_repeats(lambda: [getattr(loss, part)(values) for part in _PARTS])


@adversarial_losses.rule
def follows_device_of_logits(subject: Subject, draw: Draw) -> None:
    """It works on the device of the logits."""
    loss, values = subject.make(), draw(logits(), "logits").to(subject.device)
    for part in _PARTS:
        check_device(getattr(loss, part), [values])


@adversarial_losses.rule
def penalizes_the_discriminator(subject: Subject, draw: Draw) -> None:
    """Where there is a `penalty`, it is a finite scalar whose gradient reaches the discriminator and not the images."""
    loss = subject.make()
    if not isinstance(loss, PenalizedLoss):
        raise NotApplicable("it has no penalty")
    images = draw(image_batches(sizes=(8, 12)), "real").to(subject.device).requires_grad_()
    fakes = images.detach().flip(0).neg().requires_grad_()
    judge = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Conv2d(4, 1, 3)).to(subject.device)
    value = loss.penalty(judge, images, fakes)
    expect(value.ndim == 0 and bool(torch.isfinite(value)), f"penalty returned {value}")
    value.backward()
    expect(images.grad is None and fakes.grad is None, "the penalty's gradient reaches the images")
    expect(any(parameter.grad is not None for parameter in judge.parameters()), "it teaches the discriminator nothing")


image_losses = Rulebook("image_losses", examples=15)
add_schema_rule(image_losses)

_SIZES = (16, 24)


def draw_images(subject: Subject, draw: Draw, *, min_count: int = 1) -> tuple[Tensor, Tensor]:
    """Two batches of color or gray images, in float64."""
    strategy = image_pairs(
        channels=draw(st.sampled_from([3, 1]), "channels"),
        sizes=subject.sizes or _SIZES,
        min_count=min_count,
        dtype=torch.float64,
    )
    images, targets = draw(strategy, "(images, targets)")
    return images.to(subject.device), targets.to(subject.device)


@image_losses.rule
def is_distance(subject: Subject, draw: Draw) -> None:
    """One number, finite and ≥ 0; 0 where images are equal, and more where they are not."""
    loss, (images, targets) = subject.make(), draw_images(subject, draw)
    value, nothing = loss(images, targets), loss(images, images.clone())
    expect(value.ndim == 0, f"shape {tuple(value.shape)} where a scalar is wanted")
    expect(bool(torch.isfinite(value)) and value.item() > 1e-6, f"{value.item():.6g} for different images")
    expect(abs(nothing.item()) <= 1e-6, f"{nothing.item():.6g} for equal images")


@image_losses.rule
def is_mean_over_images(subject: Subject, draw: Draw) -> None:
    """A batch in which every image is there twice is as far away as the batch itself."""
    loss, (images, targets) = subject.make(), draw_images(subject, draw)
    once, twice = loss(images, targets), loss(torch.cat([images, images]), torch.cat([targets, targets]))
    expect(agree(once, twice, relative=1e-6), f"{once.item():.6g}, and {twice.item():.6g} with all images twice")


@image_losses.rule
def does_not_modify_images(subject: Subject, draw: Draw) -> None:
    """Images and targets are read and never changed in place."""
    check_inputs_kept(subject.make(), draw_images(subject, draw))


@image_losses.rule
def supports_float64_images(subject: Subject, draw: Draw) -> None:
    """float64 images are measured in float64, and the gradient by the images is the slope of the distance."""
    check_gradient(subject.make(), draw_images(subject, draw), which=[0])


@image_losses.rule
def has_gradient_at_zero(subject: Subject, draw: Draw) -> None:
    """Where images are equal, the gradient is finite: no root of zero is divided by."""
    loss, (images, _) = subject.make(), draw_images(subject, draw)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(images, images.detach().clone()), images)
    expect(bool(torch.isfinite(gradient).all()), "the gradient is not finite where images and targets are equal")


@image_losses.rule
def is_deterministic(subject: Subject, draw: Draw) -> None:
    """Equal images give equal distances, and no global random generator is touched."""
    loss, (images, targets) = subject.make(), draw_images(subject, draw)
    loss(images, targets)  # what is made once, at the first call, may draw
    check_repeats(lambda: loss(images, targets))


@image_losses.rule
def follows_device_of_images(subject: Subject, draw: Draw) -> None:
    """It works on the device of the images."""
    check_device(subject.make(), draw_images(subject, draw))
