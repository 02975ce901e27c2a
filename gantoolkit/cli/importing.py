"""`gantoolkit import`."""

from pathlib import Path
from typing import Literal

import cyclopts

from gantoolkit.cli.exit_codes import SUCCESS

__all__ = ["app"]

app = cyclopts.App(name="import", help="Convert weights of other projects into a file for `gantoolkit translate`.")


@app.command
def official(source: Path, /, *, out: Path | None = None, direction: Literal["A2B", "B2A"] = "A2B") -> int:
    """Import a generator of the official PyTorch code (pytorch-CycleGAN-and-pix2pix), such as latest_net_G_A.pth.

    Architecture and sizes are recognized from the weights. A file with Python objects other than tensors is rejected.

    Parameters
    ----------
    source
        The file of weights.
    out
        The file to write. Default: the source with the extension .safetensors.
    direction
        The direction to record in the new file.
    """
    from gantoolkit.official import convert_official

    result = convert_official(source, out or source.with_suffix(".safetensors"), direction=direction)
    for finding in result.findings:
        print(f"- {finding}")
    print(f"wrote {result.path}; use it with: gantoolkit translate {result.path} IMAGES --out DIR")
    return SUCCESS
