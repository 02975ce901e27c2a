"""What is wrong with a run, from figures: ways in which GANs fail that a glance at the losses does not show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Finding", "count_flat", "examine", "examine_flatness"]

_LEVELS = 127.5
_UNCHANGED = 4.0
"""Mean change of an image, in levels from 0 to 255, below which it counts as handed back."""
_COPIED = 0.98
"""Correlation of an output with its input above which it shows the same, in other brightness or contrast at most."""
_INVERTED = -0.6
_ALIKE = 0.15
"""Outputs that differ from each other less than this share of what inputs do have collapsed."""
_VARIED = 8.0
"""Inputs that differ from each other less than this, in levels, cannot tell."""
_SATURATED = 0.01
"""Share of its first loss below which a discriminator has nothing left to learn."""
_ROWS = 5
_FLAT = 1.0
"""Standard deviation of a flat image, in levels."""
_FLAT_SHARE = 0.05

State = Literal["healthy", "wrong", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One way to fail, and whether the run does.

    Args:
        name: The failure.
        state: `wrong` if the run shows it; `unknown` where there is not enough to tell by.
        evidence: The figures, in words.
        advice: What to change; nothing for a healthy run.
    """

    name: str
    state: State
    evidence: str
    advice: str = ""


def examine(samples: Mapping[str, Tensor], rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """All that samples and the log can tell.

    Args:
        samples: Batches of images in [−1, 1] by the names of `System.sample`: real_A, fake_B, ...
        rows: Of the log.
    """
    findings: list[Finding] = []
    for source, target in (("A", "B"), ("B", "A")):
        inputs, outputs = samples.get(f"real_{source}"), samples.get(f"fake_{target}")
        if inputs is None or outputs is None:
            continue
        way = f"{source} → {target}"
        inputs, outputs = inputs.detach().float(), outputs.detach().float()
        findings += [
            _examine_copy(way, inputs, outputs, samples.get(f"real_{target}")),
            _examine_inversion(way, inputs, outputs),
            _examine_collapse(way, inputs, outputs),
        ]
    return [*findings, *_examine_discriminators(rows)]


def count_flat(images: Mapping[str, Tensor]) -> Tensor:
    """How many images (N, C, H, W) of a batch show one color and nothing else; a scalar, where the images are."""
    counts = [
        (batch.flatten(2).std(dim=2).mean(dim=1) * _LEVELS < _FLAT).sum()
        for batch in images.values()
        if batch[0, 0].numel() > 1
    ]
    return torch.stack(counts).sum() if counts else torch.tensor(0)


def examine_flatness(flat: int, seen: int) -> Finding:
    """Whether too many of the images that the run has seen were flat."""
    name = "flat batches"
    if not seen:
        return Finding(name, "unknown", "nothing has been seen yet")
    evidence = f"{flat} of {seen} training crops were of one color ({flat / seen:.1%})"
    if flat / seen <= _FLAT_SHARE:
        return Finding(name, "healthy", evidence)
    return Finding(
        name,
        "wrong",
        evidence,
        "instance norm divides by the spread of a crop, so flat ones teach noise, or give numbers that are not finite: raise "
        "data.crop_size, lower data.load_size, or take such images out of the training folders",
    )


def _examine_copy(way: str, inputs: Tensor, outputs: Tensor, wanted: Tensor | None) -> Finding:
    name = f"{way}: output equals input"
    if inputs.shape != outputs.shape:
        return Finding(name, "unknown", "input and output have different numbers of channels")
    change = float((outputs - inputs).abs().mean()) * _LEVELS
    correlation = _correlate(inputs, outputs)
    evidence = (
        f"outputs differ from their inputs by {change:.1f} of 255 levels on average, correlation {correlation:.2f}"
    )
    # Where the domains look alike already, a small change is what is asked for.
    apart = _distance_of_means(inputs, wanted) if wanted is not None and wanted.shape == inputs.shape else 0.0
    if change >= _UNCHANGED and not (correlation > _COPIED and change < apart / 4):
        return Finding(name, "healthy", evidence)
    return Finding(
        name,
        "wrong",
        f"{evidence}; the mean colors of the two domains are {apart:.0f} levels apart",
        "the terms that keep the input outweigh the adversarial one: lower identity_weight, cycle_weight or "
        "self_regularization_weight, and see below whether the discriminator has won",
    )


def _examine_inversion(way: str, inputs: Tensor, outputs: Tensor) -> Finding:
    name = f"{way}: inverted colors"
    correlation = _correlate(inputs.mean(dim=1, keepdim=True), outputs.mean(dim=1, keepdim=True))
    evidence = f"the brightness of outputs and of inputs has the correlation {correlation:.2f}"
    if correlation > _INVERTED:
        return Finding(name, "healthy", evidence)
    return Finding(
        name,
        "wrong",
        f"{evidence}: dark became bright",
        "a negative that the other generator turns back costs no cycle loss; if that is not what the domains "
        "ask for, begin again with another training.seed, or set identity_weight = 5.0, which holds colors in place",
    )


def _examine_collapse(way: str, inputs: Tensor, outputs: Tensor) -> Finding:
    name = f"{way}: collapse"
    if len(inputs) < 2:
        return Finding(name, "unknown", "one sample cannot tell; set training.samples to 2 or more")
    between_inputs, between_outputs = _mean_distance(inputs), _mean_distance(outputs)
    evidence = (
        f"outputs differ from each other by {between_outputs:.1f} of 255 levels on average, their inputs by "
        f"{between_inputs:.1f}"
    )
    if between_inputs < _VARIED:
        return Finding(name, "unknown", f"{evidence}: too little to tell")
    if between_outputs >= _ALIKE * between_inputs:
        return Finding(name, "healthy", evidence)
    return Finding(
        name,
        "wrong",
        f"{evidence}: different inputs give one output",
        "give the generator a reason to look at its input: a cycle term (cycle_weight), a larger image_pool.size, or a smaller "
        "optimizer.lr; a run that is young may still recover",
    )


def _examine_discriminators(rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """A discriminator whose loss is next to nothing tells its generator next to nothing."""
    findings: list[Finding] = []
    for loss in _losses_of_discriminators(rows):
        values = [float(row[loss]) for row in rows if loss in row]
        name = f"discriminator saturated ({loss.removesuffix('/total').rpartition('/')[2]})"
        last = values[-_ROWS:]
        if len(values) < 2 * _ROWS:
            findings.append(Finding(name, "unknown", f"{len(values)} rows of the log are too few to tell"))
            continue
        if min(values) < 0:
            findings.append(Finding(name, "unknown", "its loss has no least value, so it cannot be seen to be near it"))
            continue
        mean = sum(last) / len(last)
        evidence = f"its loss is {mean:.3g} in the mean over the last {len(last)} rows of the log, {values[0]:.3g} in the first"
        if mean > _SATURATED * values[0]:
            findings.append(Finding(name, "healthy", evidence))
            continue
        findings.append(
            Finding(
                name,
                "wrong",
                evidence,
                "it tells real from fake without a mistake, so the generator learns nothing from it: make it weaker "
                "(discriminator.layers, discriminator.width, discriminator_factor), raise adversarial_weight, or train on more "
                "images",
            )
        )
    return findings


def _losses_of_discriminators(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where one phase trains a discriminator for each domain, each by itself: the sum would hide the one that has won."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("D") and "/" in name)
    of_domains = [name for name in names if name.endswith(("/D_A", "/D_B"))]
    return of_domains or [name for name in names if name.endswith("/total")]


def _correlate(some: Tensor, others: Tensor) -> float:
    """Pearson's correlation over the pixels of each channel and image, in the mean; 0 where one of them is flat."""
    a, b = (batch.flatten(2) - batch.flatten(2).mean(dim=2, keepdim=True) for batch in (some, others))
    norms = a.norm(dim=2) * b.norm(dim=2)
    return float(torch.where(norms > 1e-6, (a * b).sum(dim=2) / norms.clamp(min=1e-6), 0).mean())


def _distance_of_means(some: Tensor, others: Tensor) -> float:
    return float((some.mean(dim=(0, 2, 3)) - others.mean(dim=(0, 2, 3))).abs().mean()) * _LEVELS


def _mean_distance(images: Tensor) -> float:
    """Mean absolute difference of two different images, in levels."""
    flat = images.flatten(1)
    differences = (flat[:, None] - flat[None]).abs().mean(dim=2)
    return float(differences.sum() / (len(images) * (len(images) - 1))) * _LEVELS
