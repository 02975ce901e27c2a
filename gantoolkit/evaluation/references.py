"""Scores of references that need no network, as a scale for those of runs."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gantoolkit.data.encoding import Encoding, encoding_of
from gantoolkit.data.evaluation_images import EvaluationImages
from gantoolkit.evaluation.pages import EvaluatedRun
from gantoolkit.evaluation.scoring import DirectionScores, RunScores, score_direction
from gantoolkit.plugins import Direction, Metric
from gantoolkit.runtime.device import select_device

__all__ = ["score_all_references", "score_references"]

Metrics = Sequence[tuple[str, Callable[[], Metric]]]

_TRAINING_ONLY = {"load_size", "flip", "max_bad_files"}


def score_all_references(
    scored: Sequence[EvaluatedRun], metrics: Metrics, *, device: str | None = None
) -> list[RunScores]:
    """The scores of the references of several runs. Runs that prepare the same images in the same way share theirs.

    Args:
        scored: The runs; if they differ in how they prepare images, the references are named after them.
        metrics, device: As in `score_references`.
    """
    groups: list[tuple[object, list[EvaluatedRun]]] = []
    for entry in scored:
        preparation = (entry.run.data.resolve(), entry.images.settings.model_dump(exclude=_TRAINING_ONLY))
        group = next((members for key, members in groups if key == preparation), None)
        if group is None:
            groups.append((preparation, [entry]))
        else:
            group.append(entry)
    results: list[RunScores] = []
    for _, members in groups:
        directions = list(dict.fromkeys(name for entry in members for name in entry.scores.directions))
        suffix = f", for {', '.join(entry.scores.name for entry in members)}" if len(groups) > 1 else ""
        references = score_references(members[0].images, directions, metrics, device=device)
        results += [replace(scores, name=f"{scores.name}{suffix}") for scores in references]
    return results


def score_references(
    images: EvaluationImages, directions: Sequence[str], metrics: Metrics, *, device: str | None = None
) -> list[RunScores]:
    """The scores of the input itself and, for pairs, of the ground truth and of the ground truth of another image.

    The input's values are compared with those of the ground truth if both have the same unit, or are levels. Otherwise, the
    range of the input is mapped to that of the ground truth, and the reference is named accordingly.

    Args:
        images, metrics, device: As in `gantoolkit.evaluation.scoring.score_run`.
        directions: The directions of the runs.
    """
    torch_device = select_device(device)
    scores: dict[str, dict[str, DirectionScores]] = {}
    # The distance of a set of real images from itself says nothing.
    singles = [(name, make) for name, make in metrics if make().against != "domain"]
    for direction in directions:
        target = Direction(direction).target
        count = len(images.files(target))
        answers: dict[str, Callable[[Tensor, Sequence[int]], Tensor]] = {}
        if images.paired:
            answers["ground truth"] = lambda _, indices, target=target: images.read(target, indices)
        if images.paired and count > 1:
            answers["ground truth of another image"] = lambda _, indices, target=target, count=count: images.read(
                target, [(index + max(1, count // 2)) % count for index in indices]
            )
        for name, answer in answers.items():
            scores.setdefault(name, {})[direction] = score_direction(
                images, direction, singles, answer, device=torch_device
            )
        if images.settings.channels_A == images.settings.channels_B:
            name, convert = _input_as_output(images, Direction(direction))
            scores.setdefault(name, {})[direction] = score_direction(
                images, direction, metrics, lambda inputs, _, convert=convert: convert(inputs), device=torch_device
            )
    measured = {
        name: {direction: result for direction, result in by_direction.items() if result.scores}
        for name, by_direction in scores.items()
    }
    return [RunScores(name, None, 0, by_direction) for name, by_direction in measured.items() if by_direction]


def _input_as_output(images: EvaluationImages, direction: Direction) -> tuple[str, Callable[[Tensor], Tensor]]:
    """The name of the reference, and the conversion of inputs in [−1, 1] to results of the direction."""
    source, target = (encoding_of(images.settings, domain) for domain in direction.domains)
    may_be_equal = source.unit == target.unit or not (source.unit and target.unit)
    if (source.bits and target.bits) or (source.range == target.range and may_be_equal):
        return "input", lambda inputs: inputs
    if source.unit and source.unit == target.unit:
        return "input", lambda inputs: _convert(inputs, source, target)
    return (
        f"input, mapped from {source.low:g} … {source.high:g} to {target.low:g} … {target.high:g}",
        lambda inputs: inputs,
    )


def _convert(inputs: Tensor, source: Encoding, target: Encoding) -> Tensor:
    """Convert floats of one range to those of another with the same unit."""
    values = (inputs.double() + 1) * ((source.high - source.low) / 2) + source.low
    return ((values - target.low) * (2 / (target.high - target.low)) - 1).to(torch.float32)
