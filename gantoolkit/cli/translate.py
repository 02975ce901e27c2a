"""`gantoolkit translate`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from gantoolkit import load
from gantoolkit.cli.exit_codes import INCOMPLETE, SUCCESS
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
    keep_alpha: Annotated[bool, Parameter(negative=())] = False,
    keep_endings: Annotated[bool, Parameter(negative=())] = False,
    max_pixels: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    again: Annotated[bool, Parameter(negative=())] = False,
    device: str = "auto",
    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"] = "fp32",
    compile: Annotated[bool, Parameter(negative=())] = False,
    tile: int | Literal["auto", "none"] = "auto",
) -> int:
    """Translate images, animations and videos with a trained generator. Each keeps its size and name.

    The output folder's manifest.jsonl has one line for each file, with its source. The same command resumes where it was
    stopped. Exit code 3: a file or a part of one, such as its other pages, was passed over, which is named.

    Parameters
    ----------
    model
        A run's folder, a generator file, or a repository on the Hugging Face Hub: owner/name, owner/name@revision.
    sources
        Files, folders, archives, and quoted patterns such as 'photos/**/*.jpg'. Subfolders are preserved.
    out
        Folder for the translations.
    direction
        A2B or B2A. Required if the model has both.
    batch_size
        Number of images of the same size, or frames of a video, to translate together.
    form
        Write png, jpg, tif or npy. By default, each file keeps its format if that can hold the translation. Animations are
        written as animated png; files of several pages and GeoTIFF files stay tif.
    resize
        First resize each image so that its shorter side has this many pixels. The translation has that size.
    keep_alpha
        Give translations the transparency of their images.
    keep_endings
        Keep the old ending in a name whose format changes: walk.gif becomes walk.gif.png instead of walk.png.
    max_pixels
        Largest number of pixels of an image. The default of 179 million protects against files made to exhaust the memory.
    again
        Translate all files, including those that the manifest lists as done.
    device
        cpu, cuda, cuda:1, or auto.
    precision
        Arithmetic of the network. auto selects the fastest on the device.
    compile
        Compile the network first. This takes a minute or two and pays off for many images.
    tile
        Largest side of a tile, in pixels. auto uses tiles if the image does not fit into the free memory. Tiles give the
        same result as the whole image.
    """
    from rich.markup import escape
    from rich.progress import Progress

    from gantoolkit.data.file_notes import FileNotes
    from gantoolkit.inference import translate_files
    from gantoolkit.inference.manifest import NAME, Manifest, fingerprint
    from gantoolkit.inference.sources import open_sources
    from gantoolkit.inference.targets import plan_targets

    if not sources:
        raise DataError("translate needs images: gantoolkit translate RUN --direction A2B IMAGES... --out DIR")
    with open_sources(sources, out=out) as files:
        for note in files.notes:
            print(f"skipped: {printable(note)}", file=sys.stderr)
        pixels = None if tile == "none" else tile
        translator = load(str(model), direction, device=device, precision=precision, compile=compile, tile=pixels)
        encoding = translator.generator.target
        targets = plan_targets(
            files, out, form=form, encoding=encoding, keep_alpha=keep_alpha, keep_endings=keep_endings
        )
        options = {"generator": fingerprint(translator), "precision": translator.generator.precision, "resize": resize}
        manifest = Manifest(out, options | {"keep_alpha": keep_alpha})
        if again:
            manifest.forget(targets.values())
        counts = {"done": 0, "kept": 0, "skipped": 0}
        notes = FileNotes()
        with Progress(disable=not sys.stdout.isatty()) as bars:
            file_task = bars.add_task(f"Translating {translator.direction}", total=len(targets))
            frame_task = bars.add_task("", total=None, visible=False)
            for result in translate_files(
                translator,
                targets,
                batch_size=batch_size,
                resize=resize,
                keep_alpha=keep_alpha,
                max_pixels=max_pixels,
                manifest=manifest,
                progress=lambda source, done, total: bars.update(
                    frame_task, description=escape(source.path.name), completed=done, total=total, visible=True
                ),
            ):
                bars.update(file_task, advance=1)
                bars.update(frame_task, visible=False)
                counts["skipped" if result.problem else "kept" if result.up_to_date else "done"] += 1
                notes.add(Path(result.source.name), result.notes)
                if result.problem:
                    print(f"skipped: {printable(result.problem)}", file=sys.stderr)
    for sentence in notes.sentences():
        print(f"note: {printable(sentence)}", file=sys.stderr)
    parts = [f"{counts['done']} file{'s' if counts['done'] != 1 else ''} translated into {out}"]
    parts += [f"{counts['kept']} there already"] if counts["kept"] else []
    parts += [f"{counts['skipped']} skipped"] if counts["skipped"] else []
    print(", ".join(parts) + f"; sources are listed in {out / NAME}")
    is_incomplete = counts["skipped"] or files.notes or notes.sentences(passed_over_only=True)
    return INCOMPLETE if is_incomplete else SUCCESS
