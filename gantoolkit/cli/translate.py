"""`gantoolkit translate`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from gantoolkit import load
from gantoolkit.cli.exit_codes import INCOMPLETE
from gantoolkit.errors import DataError
from gantoolkit.files.atomic import printable

__all__ = ["translate"]


def translate(
    model: Path,
    /,
    *sources: Path,
    out: Path,
    direction: str | None = None,
    batch_size: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 8,
    form: Literal["png", "jpg", "tif", "npy"] | None = None,
    resize: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    again: Annotated[bool, Parameter(negative=())] = False,
    device: str = "auto",
    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"] = "fp32",
    compile: Annotated[bool, Parameter(negative=())] = False,
    tile: int | Literal["auto", "none"] = "auto",
) -> int:
    """Translate images and videos with a trained generator; each keeps its size and name.

    A line for each file in manifest.jsonl, in the folder of the translations, says what came from what; the same command
    goes on where it was stopped.

    Parameters
    ----------
    model
        A run's folder, a generator's file, or a repository on the Hugging Face Hub: owner/name, owner/name@revision.
    sources
        Files, folders, archives, and patterns in quotes, such as 'photos/**/*.jpg'; the tree below them is kept.
    out
        Folder for the translations.
    direction
        A2B or B2A; needed where there are both.
    batch_size
        Images, or frames of a video, translated together, where their sizes agree.
    form
        Write png, jpg, tif or npy; by default each file keeps its format, if that can hold the translation.
    resize
        Make the shorter side of each image so many pixels first; its translation has that size.
    again
        Translate also what the manifest says is done.
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
    from rich.progress import Progress

    from gantoolkit.inference import translate_files
    from gantoolkit.inference.files import plan_targets
    from gantoolkit.inference.manifest import NAME, Manifest, fingerprint
    from gantoolkit.inference.sources import open_sources

    if not sources:
        raise DataError("translate needs images: gantoolkit translate RUN --direction A2B IMAGES... --out DIR")
    with open_sources(sources, out=out) as files:
        pixels = None if tile == "none" else tile
        translator = load(str(model), direction, device=device, precision=precision, compile=compile, tile=pixels)
        targets = plan_targets(files, out, form=form, encoding=translator.generator.target)
        how = {"generator": fingerprint(translator), "precision": translator.generator.precision, "resize": resize}
        manifest = Manifest(out, how)
        if again:
            manifest.forget(targets.values())
        counts = {"done": 0, "kept": 0, "skipped": 0}
        with Progress(disable=not sys.stdout.isatty()) as bars:
            whole = bars.add_task(f"Translating {translator.direction}", total=len(targets))
            frames = bars.add_task("", total=None, visible=False)
            for result in translate_files(
                translator,
                targets,
                batch_size=batch_size,
                resize=resize,
                manifest=manifest,
                progress=lambda video, done, total: bars.update(
                    frames, description=video.path.name, completed=done, total=total, visible=True
                ),
            ):
                bars.update(whole, advance=1)
                bars.update(frames, visible=False)
                counts["skipped" if result.problem else "kept" if result.up_to_date else "done"] += 1
                if result.problem:
                    print(f"skipped: {printable(result.problem)}", file=sys.stderr)
    told = [f"{counts['done']} file{'s' if counts['done'] != 1 else ''} translated into {out}"]
    told += [f"{counts['kept']} there already"] if counts["kept"] else []
    told += [f"{counts['skipped']} skipped"] if counts["skipped"] else []
    print(", ".join(told) + f"; what came from what: {out / NAME}")
    return INCOMPLETE if counts["skipped"] else 0
