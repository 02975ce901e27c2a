"""The health of a run: common failures of GANs that loss curves do not show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Finding", "count_flat", "examine", "examine_flatness"]

_LEVELS = 127.5
_UNCHANGED = 4.0
"""Mean change of an image, in levels from 0 to 255, below which it counts as unchanged."""
_COPIED = 0.98
"""Correlation of an output with its input above which they differ in brightness or contrast at most."""
_INVERTED = -0.6
_ALIKE = 0.15
"""Outputs have collapsed if their mean distance is below this share of that of the inputs."""
_VARIED = 8.0
"""Mean distance of inputs, in levels, below which collapse cannot be judged."""
_SATURATED = 0.01
"""A discriminator is saturated if its loss is below this share of its first loss."""
_ROWS = 5
_FLAT = 1.0
"""Standard deviation of a flat image, in levels."""
_FLAT_SHARE = 0.05

State = Literal["healthy", "wrong", "unknown"]


@dataclass(frozen=True)
class Finding:
    """A possible failure, and whether the run shows it.

    Args:
        name: The failure.
        state: `wrong` if the run shows it; `unknown` if there is not enough data.
        evidence: The measured values, in words.
        advice: What to change; empty for a healthy run.
    """

    name: str
    state: State
    evidence: str
    advice: str = ""


def examine(samples: Mapping[str, Tensor], rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """The findings from samples and the log.

    Args:
        samples: Batches of images in [−1, 1] by the names of `System.sample`: real_A, fake_B, ...
        rows: The rows of the log.
    """
    findings: list[Finding] = []
    for source, target in (("A", "B"), ("B", "A")):
        inputs, outputs = samples.get(f"real_{source}"), samples.get(f"fake_{target}")
        if inputs is None or outputs is None:
            continue
        direction = f"{source} → {target}"
        inputs, outputs = inputs.detach().float(), outputs.detach().float()
        findings += [
            _examine_copy(direction, inputs, outputs, samples.get(f"real_{target}")),
            _examine_inversion(direction, inputs, outputs),
            _examine_collapse(direction, inputs, outputs),
        ]
    return [*findings, *_examine_discriminators(rows)]


def count_flat(images: Mapping[str, Tensor]) -> Tensor:
    """The number of images (N, C, H, W) of a batch that have a single color: a scalar on their device."""
    counts = [
        (batch.flatten(2).std(dim=2).mean(dim=1) * _LEVELS < _FLAT).sum()
        for batch in images.values()
        if batch[0, 0].numel() > 1
    ]
    return torch.stack(counts).sum() if counts else torch.tensor(0)


def examine_flatness(flat: int, total: int) -> Finding:
    """Whether too many of the run's training images were of a single color."""
    name = "flat batches"
    if not total:
        return Finding(name, "unknown", "there are no training images yet")
    evidence = f"{flat} of {total} training crops were of a single color ({flat / total:.1%})"
    if flat / total <= _FLAT_SHARE:
        return Finding(name, "healthy", evidence)
    return Finding(
        name,
        "wrong",
        evidence,
        "instance norm divides by the standard deviation of a crop, so flat crops train on noise or become non-finite: raise "
        "data.crop_size, lower data.load_size, or remove such images from the training folders",
    )


def _examine_copy(direction: str, inputs: Tensor, outputs: Tensor, targets: Tensor | None) -> Finding:
    name = f"{direction}: output equals input"
    if inputs.shape != outputs.shape:
        return Finding(name, "unknown", "inputs and outputs have different numbers of channels")
    change = float((outputs - inputs).abs().mean()) * _LEVELS
    correlation = _correlate(inputs, outputs)
    evidence = (
        f"outputs differ from their inputs by {_percent(change)} of the range on average, correlation {correlation:.2f}"
    )
    # If the domains look alike already, a small change is right.
    same_shape = targets is not None and targets.shape == inputs.shape
    distance = _distance_of_means(inputs, targets) if targets is not None and same_shape else 0.0
    if change >= _UNCHANGED and not (correlation > _COPIED and change < distance / 4):
        return Finding(name, "healthy", evidence)
    return Finding(
        name,
        "wrong",
        f"{evidence}; the mean colors of the two domains differ by {_percent(distance)}",
        "the terms that preserve the input outweigh the adversarial one: lower identity_weight, cycle_weight or "
        "self_regularization_weight, and check below whether the discriminator is saturated",
    )


def _examine_inversion(direction: str, inputs: Tensor, outputs: Tensor) -> Finding:
    name = f"{direction}: inverted colors"
    correlation = _correlate(inputs.mean(dim=1, keepdim=True), outputs.mean(dim=1, keepdim=True))
    evidence = f"the brightness of outputs and inputs has the correlation {correlation:.2f}"
    if correlation > _INVERTED:
        return Finding(name, "healthy", evidence)
    return Finding(
        name,
        "wrong",
        f"{evidence}: dark became bright",
        "a negative that the other generator inverts again has no cycle loss; if that is not intended, start again with "
        "another training.seed, or set identity_weight = 5.0, which preserves colors",
    )


def _examine_collapse(direction: str, inputs: Tensor, outputs: Tensor) -> Finding:
    name = f"{direction}: collapse"
    if len(inputs) < 2:
        return Finding(name, "unknown", "one sample is not enough; set training.samples to 2 or more")
    between_inputs, between_outputs = _mean_distance(inputs), _mean_distance(outputs)
    evidence = (
        f"outputs differ from each other by {_percent(between_outputs)} of the range on average, inputs by "
        f"{_percent(between_inputs)}"
    )
    if between_inputs < _VARIED:
        return Finding(name, "unknown", f"{evidence}: not enough to judge")
    if between_outputs >= _ALIKE * between_inputs:
        return Finding(name, "healthy", evidence)
    return Finding(
        name,
        "wrong",
        f"{evidence}: different inputs give one output",
        "make the generator depend on its input: a cycle term (cycle_weight), a larger image_pool.size, or a smaller "
        "optimizer.lr; a run in its first steps may still recover",
    )


def _examine_discriminators(rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """A discriminator with almost no loss gives its generator almost no gradient."""
    findings: list[Finding] = []
    for loss in _discriminator_losses(rows):
        values = [float(row[loss]) for row in rows if loss in row]
        name = f"discriminator saturated ({loss.removesuffix('/total').rpartition('/')[2]})"
        last = values[-_ROWS:]
        if len(values) < 2 * _ROWS:
            findings.append(Finding(name, "unknown", f"{len(values)} rows of the log are not enough"))
            continue
        if min(values) < 0:
            findings.append(Finding(name, "unknown", "its loss has no lower bound, so saturation cannot be judged"))
            continue
        mean = sum(last) / len(last)
        evidence = (
            f"its loss is {mean:.3g} on average over the last {len(last)} rows of the log, {values[0]:.3g} in the first"
        )
        if mean > _SATURATED * values[0]:
            findings.append(Finding(name, "healthy", evidence))
            continue
        findings.append(
            Finding(
                name,
                "wrong",
                evidence,
                "it separates real from fake without error, so the generator learns nothing from it: make it weaker "
                "(discriminator.layers, discriminator.width, discriminator_factor), raise adversarial_weight, or train on more "
                "images",
            )
        )
    return findings


def _discriminator_losses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The logged losses of discriminators, each domain on its own: a sum would hide a saturated one."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("D") and "/" in name)
    by_domain = [name for name in names if name.endswith(("/D_A", "/D_B"))]
    return by_domain or [name for name in names if name.endswith("/total")]


def _correlate(some: Tensor, others: Tensor) -> float:
    """Pearson's correlation over the pixels of each channel and image, averaged; 0 where one of them is flat."""
    a, b = (batch.flatten(2) - batch.flatten(2).mean(dim=2, keepdim=True) for batch in (some, others))
    norms = a.norm(dim=2) * b.norm(dim=2)
    return float(torch.where(norms > 1e-6, (a * b).sum(dim=2) / norms.clamp(min=1e-6), 0).mean())


def _percent(levels: float) -> str:
    """A difference as a share of the range, which all domains have."""
    return f"{levels / (2 * _LEVELS):.1%}"


def _distance_of_means(some: Tensor, others: Tensor) -> float:
    return float((some.mean(dim=(0, 2, 3)) - others.mean(dim=(0, 2, 3))).abs().mean()) * _LEVELS


def _mean_distance(images: Tensor) -> float:
    """Mean absolute difference between two different images, in levels."""
    flat = images.flatten(1)
    differences = (flat[:, None] - flat[None]).abs().mean(dim=2)
    return float(differences.sum() / (len(images) * (len(images) - 1))) * _LEVELS
