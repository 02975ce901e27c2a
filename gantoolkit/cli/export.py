"""`gantoolkit export`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gantoolkit import load
from gantoolkit.cli.exit_codes import SUCCESS

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
    """Export a trained generator for other programs. The file is written only if its output agrees with the network's.

    Parameters
    ----------
    model
        A run's folder, a generator file, or a repository on the Hugging Face Hub: owner/name, owner/name@revision.
    format
        onnx for onnxruntime and other runtimes; torch for torch.export, which needs only PyTorch; safetensors for the
        weights.
    out
        The file to write.
    direction
        A2B or B2A. Required if the model has both.
    images
        Files and folders of images for the verification. Default: images of the run's data set, or else synthetic images.
    """
    from gantoolkit.export import export_generator
    from gantoolkit.run import Run

    generator = load(str(model), direction, device="cpu").generator
    sources = images or (Run.open(model).example_images(generator.direction) if model.is_dir() else ())
    result = export_generator(generator, out, format, images=sources)
    size = result.path.stat().st_size / 1e6
    print(f"wrote {result.path} ({size:.1f} MB), {generator.direction}; weights have {result.tensors}")
    print(
        f"verified with {result.reader}: at most {result.difference:.1e} in [-1, 1], {result.value_difference:.1e} in "
        f"{result.target.value_unit}, from the network's translations of {', '.join(result.sizes)} (images×height×width)"
    )
    print(f"images for the verification: {result.images}")
    return SUCCESS
