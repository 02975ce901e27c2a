"""`gantoolkit import`: weights of other projects."""

from pathlib import Path
from typing import Literal

import cyclopts

__all__ = ["app"]

app = cyclopts.App(name="import", help="Bring weights of other projects into a file that `gantoolkit translate` takes.")


@app.command
def official(source: Path, /, *, out: Path | None = None, direction: Literal["A2B", "B2A"] = "A2B") -> int:
    """Import a generator of the official PyTorch code (pytorch-CycleGAN-and-pix2pix): latest_net_G_A.pth and the like.

    Architecture and sizes are recognized from the weights. Python objects in the file are refused, not loaded.

    Parameters
    ----------
    source
        The file of weights.
    out
        The file to write; by default beside the source, with the ending .safetensors.
    direction
        What the new file calls its translation.
    """
    from gantoolkit.official import convert_official

    made = convert_official(source, out or source.with_suffix(".safetensors"), direction=direction)
    for finding in made.findings:
        print(f"- {finding}")
    print(f"wrote {made.path}; use it with: gantoolkit translate {made.path} IMAGES --out DIR")
    return 0
