"""`gantoolkit demo`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gantoolkit.cli.exit_codes import exit_code_of
from gantoolkit.cli.settings import parse_settings

__all__ = ["demo"]

_NAMES = {"A2B": "sepia → cyanotype", "B2A": "cyanotype → sepia"}


def demo(
    *,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    out: Path = Path("runs/demo"),
    device: str = "auto",
) -> int:
    """Train a small CycleGAN on built-in photographs and compare its output with the ground truth: minutes on a CPU.

    Domain A holds photographs as sepia prints, domain B as blue cyanotypes. Training never sees them as pairs.

    Parameters
    ----------
    settings
        Change a field of the recipe `demo`, such as --set generator=unet. May be repeated.
    out
        Folder for the photographs, the run and the pictures. An existing run resumes.
    device
        cpu, cuda, cuda:1, or auto.
    """
    from rich.console import Console
    from rich.table import Table

    from gantoolkit.cli.progress import TrainingProgress
    from gantoolkit.demo import run_demo

    result = run_demo(out, parse_settings(settings), device=device, watch=TrainingProgress)
    title = f"PSNR against the ground truth on held-out photographs, at step {result.end.step}"
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for heading in ("input unchanged", "one flat color", "before training", "after training"):
        table.add_column(heading)
    for direction, psnr in result.psnr.items():
        cells = [f"{psnr[name]:.1f} dB" for name in ("input", "flat color", "untrained", "trained")]
        table.add_row(_NAMES[direction], *cells)
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    console.print(f"pictures: {result.grid} and {result.photograph}\nreport: {result.report}", markup=False)
    return exit_code_of(result.end.reason)
