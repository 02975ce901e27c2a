"""`gantoolkit check`: the rules of a block's kind, from the command line."""

from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from gantoolkit.cli.blocks import find_kinds
from gantoolkit.cli.exit_codes import INCOMPLETE
from gantoolkit.cli.train import parse_setting
from gantoolkit.errors import PluginError, requires_extra
from gantoolkit.recipes.block_spec import BlockSpec, merge_field

__all__ = ["check"]

_STYLES = {"passed": "green", "failed": "bold red", "expected failure": "yellow", "not applicable": "dim"}


def check(
    name: str,
    /,
    *,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    sizes: Annotated[list[int] | None, Parameter(consume_multiple=True, negative=())] = None,
    layers: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    device: str = "auto",
) -> int:
    """Try a block on every rule of its kind's protocol: on the CPU, and on CUDA too where there is one.

    Exit code 3 says that a rule is broken.

    Parameters
    ----------
    name
        A block's name, with its kind in front where two kinds share it: image_pools/none.
    settings
        A parameter of the block, as often as you like: --set width=8.
    sizes
        Heights and widths to try, in pixels; by default some that suit the block.
    layers
        For a feature extractor, the layers to ask for.
    device
        cpu, cuda, or auto: the CPU, then CUDA where there is one.
    """
    from gantoolkit.runtime.device import available_devices, select_device

    with requires_extra("testing", "gantoolkit check", PluginError):
        from gantoolkit.testing import RULEBOOKS, Subject

    names = available_devices() if device == "auto" else [device]
    console = Console(soft_wrap=True, highlight=False)
    broken = 0
    short = name.rpartition("/")[2]
    parameters: dict[str, Any] = {}
    for field, value in map(parse_setting, settings or []):
        merge_field(parameters, field.split("."), value, short)
    for kind in find_kinds(name):
        block = BlockSpec.of(short, **parameters)
        for device_name in names:
            subject = Subject(kind, block, select_device(device_name), sizes, layers or ())
            subject.factory()  # a block that cannot be had, or a wrong parameter, breaks no rule
            console.print(f"[bold]{subject}[/], on {subject.device}")
            for rule in RULEBOOKS[kind].rules:
                outcome = rule.run(subject)
                reason = f": {outcome.message}" if outcome.state in ("expected failure", "not applicable") else ""
                console.print(f"  [{_STYLES[outcome.state]}]{outcome.state:16}[/] {rule.name}", end="")
                print(reason)
                if outcome.state == "failed":
                    broken += 1
                    print("".join(f"                   {line}\n" for line in outcome.message.splitlines()[1:]), end="")
    print(f"{broken} broken" if broken else "no rule is broken")
    return INCOMPLETE if broken else 0
