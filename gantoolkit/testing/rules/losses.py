"""Rules of adversarial losses and of image losses."""

from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from gantoolkit.plugins import PenalizedLoss
from gantoolkit.testing.kit import Draw, NotApplicable, Rulebook, Subject, expect
from gantoolkit.testing.rules.common import (
    add_schema_rule,
    all_close,
    check_deterministic,
    check_device,
    check_gradient,
    check_inputs_unchanged,
)
from gantoolkit.testing.strategies import image_batches, image_pairs, logits

__all__ = ["adversarial_losses", "image_losses"]

_PARTS = ("real", "fake", "generator")
_CONFIDENT = 20.0
_SMALLEST_SLOPE = 1e-3
_SIZES = (16, 24)

DrawCalls = Callable[[Subject, Draw], tuple[Sequence[Callable[..., Tensor]], Sequence[Tensor]]]
"""Draws the functions of a loss to test, and inputs for them."""


def add_call_rules(book: Rulebook, draw_calls: DrawCalls) -> None:
    """Add the rules that hold for every loss."""

    @book.rule
    def does_not_modify_input(subject: Subject, draw: Draw) -> None:
        """The inputs are not changed in place."""
        calls, inputs = draw_calls(subject, draw)
        for call in calls:
            check_inputs_unchanged(call, inputs)

    @book.rule
    def supports_float64(subject: Subject, draw: Draw) -> None:
        """float64 inputs give a float64 loss, and its gradient matches finite differences."""
        calls, inputs = draw_calls(subject, draw)
        for call in calls:
            check_gradient(call, inputs, which=[0])

    @book.rule
    def is_deterministic(subject: Subject, draw: Draw) -> None:
        """Equal inputs give equal losses. Global random generators are neither used nor advanced."""
        calls, inputs = draw_calls(subject, draw)
        for call in calls:
            call(*inputs)  # the first call may create something at random
        check_deterministic(lambda: [call(*inputs) for call in calls])

    @book.rule
    def is_device_agnostic(subject: Subject, draw: Draw) -> None:
        """It runs on the device of its inputs."""
        calls, inputs = draw_calls(subject, draw)
        for call in calls:
            check_device(call, inputs)


adversarial_losses = Rulebook("adversarial_losses", examples=25)
add_schema_rule(adversarial_losses)


@adversarial_losses.rule
def returns_finite_scalars(subject: Subject, draw: Draw) -> None:
    """`real`, `fake` and `generator` each return one finite number, even for logits of ±10,000."""
    loss, values = subject.make(), draw(logits(largest=1e4), "logits").to(subject.device)
    for part in _PARTS:
        value = getattr(loss, part)(values)
        expect(value.ndim == 0, f"{part} returned shape {tuple(value.shape)}, expected a scalar")
        expect(bool(torch.isfinite(value)), f"{part} returned {value.item()}")


@adversarial_losses.rule
def is_mean_over_logits(subject: Subject, draw: Draw) -> None:
    """Each part is a mean over all logits: duplicating the images or the patches does not change it."""
    loss, values = subject.make(), draw(logits(dtype=torch.float64), "logits").to(subject.device)
    for part in _PARTS:
        once = getattr(loss, part)(values)
        for name, dim in (("images", 0), ("patches", -1)):
            twice = getattr(loss, part)(torch.cat([values, values], dim))
            expect(all_close(once, twice), f"{part} is {once.item():.6g}, but {twice.item():.6g} with all {name} twice")


@adversarial_losses.rule
def ranks_real_above_fake(subject: Subject, draw: Draw) -> None:
    """The logit with the smallest loss is higher in `real` than in `fake`, and higher in `generator` than in `fake`."""
    loss = subject.make()
    grid = torch.linspace(-_CONFIDENT, _CONFIDENT, 401, dtype=torch.float64, device=subject.device)

    def best_logit(part: str) -> float:
        return grid[torch.stack([getattr(loss, part)(value.view(1, 1, 1, 1)) for value in grid]).argmin()].item()

    real, fake, generator = (best_logit(part) for part in _PARTS)
    expect(real > fake, f"the best logit is {real:.3g} in real and {fake:.3g} in fake")
    expect(generator > fake, f"the best logit is {generator:.3g} in generator and {fake:.3g} in fake")


@adversarial_losses.rule
def has_gradient_for_confident_errors(subject: Subject, draw: Draw) -> None:
    """The gradient does not vanish where the discriminator is confident and wrong, nor, for the generator, where it confidently
    rejects a fake. It does vanish if logits pass through a sigmoid first, or if the generator's loss saturates.
    """
    loss = subject.make()
    for part, logit in (("real", -_CONFIDENT), ("fake", _CONFIDENT), ("generator", -_CONFIDENT)):
        value = torch.full((1, 1, 1, 1), logit, dtype=torch.float64, device=subject.device, requires_grad=True)
        (slope,) = torch.autograd.grad(getattr(loss, part)(value), value)
        expect(
            slope.abs().item() >= _SMALLEST_SLOPE,
            f"at a logit of {logit:g} the gradient of {part} is only {slope.item():.3g}",
        )


def draw_parts(subject: Subject, draw: Draw) -> tuple[list[Callable[..., Tensor]], list[Tensor]]:
    """The three parts of an adversarial loss, and logits for each of them."""
    loss, values = subject.make(), draw(logits(), "logits").to(subject.device)
    return [getattr(loss, part) for part in _PARTS], [values]


add_call_rules(adversarial_losses, draw_parts)


@adversarial_losses.rule
def penalizes_discriminator_only(subject: Subject, draw: Draw) -> None:
    """If there is a `penalty`, it returns a finite scalar whose gradient reaches the discriminator and not the images. It may
    use the global random generators.
    """
    loss = subject.make()
    if not isinstance(loss, PenalizedLoss):
        raise NotApplicable("it has no penalty")
    images = draw(image_batches(sizes=(8, 12)), "real").to(subject.device).requires_grad_()
    fakes = images.detach().flip(0).neg().requires_grad_()
    discriminator = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Conv2d(4, 1, 3)).to(subject.device)
    value = loss.penalty(discriminator, images, fakes)
    expect(value.ndim == 0 and bool(torch.isfinite(value)), f"penalty returned {value}")
    value.backward()
    expect(images.grad is None and fakes.grad is None, "the gradient of the penalty reaches the images")
    expect(
        any(parameter.grad is not None for parameter in discriminator.parameters()),
        "the gradient of the penalty does not reach the discriminator",
    )


image_losses = Rulebook("image_losses", examples=15)
add_schema_rule(image_losses)


def draw_images(subject: Subject, draw: Draw) -> tuple[Tensor, Tensor]:
    """Draw two batches of color or gray images, in float64."""
    strategy = image_pairs(
        channels=draw(st.sampled_from([3, 1]), "channels"), sizes=subject.sizes or _SIZES, dtype=torch.float64
    )
    images, targets = draw(strategy, "(images, targets)")
    return images.to(subject.device), targets.to(subject.device)


@image_losses.rule
def is_distance(subject: Subject, draw: Draw) -> None:
    """It returns one finite number: 0 for equal images, and more for different ones."""
    loss, (images, targets) = subject.make(), draw_images(subject, draw)
    value, zero = loss(images, targets), loss(images, images.clone())
    expect(value.ndim == 0, f"shape {tuple(value.shape)}, expected a scalar")
    expect(bool(torch.isfinite(value)) and value.item() > 1e-6, f"{value.item():.6g} for different images")
    expect(abs(zero.item()) <= 1e-6, f"{zero.item():.6g} for equal images")


@image_losses.rule
def is_mean_over_images(subject: Subject, draw: Draw) -> None:
    """It is a mean over the batch: duplicating every image does not change it."""
    loss, (images, targets) = subject.make(), draw_images(subject, draw)
    once, twice = loss(images, targets), loss(torch.cat([images, images]), torch.cat([targets, targets]))
    expect(all_close(once, twice, relative=1e-6), f"{once.item():.6g}, but {twice.item():.6g} with all images twice")


@image_losses.rule
def has_finite_gradient_at_zero(subject: Subject, draw: Draw) -> None:
    """The gradient is finite for equal images: there is no division by the square root of 0."""
    loss, (images, _) = subject.make(), draw_images(subject, draw)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(images, images.detach().clone()), images)
    expect(bool(torch.isfinite(gradient).all()), "the gradient is not finite for equal images and targets")


add_call_rules(image_losses, lambda subject, draw: ([subject.make()], draw_images(subject, draw)))
