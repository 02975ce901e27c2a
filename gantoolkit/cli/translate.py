"""`gantoolkit translate`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from gantoolkit import load
from gantoolkit.errors import DataError

__all__ = ["translate"]

_SOME_SKIPPED = 3


def translate(
    model: Path,
    /,
    *sources: Path,
    out: Path,
    direction: str | None = None,
    batch_size: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 8,
    form: Literal["png", "jpg", "tif", "npy"] | None = None,
    device: str = "auto",
    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"] = "fp32",
    compile: Annotated[bool, Parameter(negative=())] = False,
    tile: int | Literal["auto", "none"] = "auto",
) -> int:
    """Translate images with a trained generator; each keeps its size and name.

    Parameters
    ----------
    model
        A run's folder, or a generator's file.
    sources
        Image files and folders; a folder's tree is kept.
    out
        Folder for the translations.
    direction
        A2B or B2A; needed for a run's folder that has both.
    batch_size
        Images translated together, where their sizes agree.
    form
        Write png, jpg, tif or npy; by default each file keeps its format, if that can hold the translation.
    device
        cpu, cuda, cuda:1, or auto.
    precision
        What the network computes in; auto takes what is soonest done on the device.
    compile
        Compile the network first: a minute or two, for many images.
    tile
        The most pixels that a side of what is translated at once has; auto takes tiles where the free memory asks for them.
        The result is that of the whole image.
    """
    from rich.progress import track

    from gantoolkit.inference import translate_files
    from gantoolkit.inference.files import plan_targets

    if not sources:
        raise DataError("translate needs images: gantoolkit translate RUN --direction A2B IMAGES... --out DIR")
    pixels = None if tile == "none" else tile
    translator = load(model, direction, device=device, precision=precision, compile=compile, tile=pixels)
    targets = plan_targets(sources, out, form=form, encoding=translator.generator.target)
    skipped = 0
    results = translate_files(translator, targets, batch_size=batch_size)
    for result in track(
        results, f"Translating {translator.direction}", total=len(targets), disable=not sys.stdout.isatty()
    ):
        if result.problem:
            skipped += 1
            print(f"skipped: {result.problem}", file=sys.stderr)
    print(f"{len(targets) - skipped} images translated into {out}" + (f", {skipped} skipped" if skipped else ""))
    return _SOME_SKIPPED if skipped else 0
