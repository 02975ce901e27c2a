"""`gantoolkit export`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gantoolkit import load

__all__ = ["export"]


def export(
    model: Path,
    /,
    *,
    format: Literal["onnx", "torch", "safetensors"],
    out: Path,
    direction: str | None = None,
    images: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative=())] = (),
) -> int:
    """Write a trained generator for other programs: the file is there once it has translated as the network does.

    Parameters
    ----------
    model
        A run's folder, a generator's file, or a repository on the Hugging Face Hub: owner/name, owner/name@revision.
    format
        onnx for onnxruntime and its like; torch for torch.export, which needs PyTorch alone; safetensors for the weights.
    out
        The file to write.
    direction
        A2B or B2A; needed where there are both.
    images
        Files and folders of images to try it on; by default those of the run's data set, or else pictures made for it.
    """
    from gantoolkit.export import export_generator
    from gantoolkit.run import Run

    generator = load(str(model), direction, device="cpu").generator
    sources = images or (Run.open(model).example_images(generator.direction) if model.is_dir() else ())
    made = export_generator(generator, out, format, images=sources)
    print(
        f"wrote {made.path} ({made.path.stat().st_size / 1e6:.1f} MB), {generator.direction}; weights have {made.tensors}"
    )
    print(
        f"verified with {made.reader}: at most {made.difference:.1e} in [-1, 1], {made.levels:.1e} levels of 255, from the "
        f"network's translations of {', '.join(made.sizes)} (images×height×width)"
    )
    print(f"tried on: {made.images}")
    return 0
