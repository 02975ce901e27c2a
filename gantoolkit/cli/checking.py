"""`gantoolkit check`."""

from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from gantoolkit.cli.blocks import find_kinds
from gantoolkit.cli.exit_codes import INCOMPLETE
from gantoolkit.cli.settings import parse_settings
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
    """Test a block against every rule of its kind's protocol, on the CPU and, if available, on CUDA.

    The exit code is 3 if a rule is broken.

    Parameters
    ----------
    name
        A block's name. If two kinds share it, put the kind in front: image_pools/none.
    settings
        Set a parameter of the block, such as --set width=8. May be repeated.
    sizes
        Heights and widths to test, in pixels. Default: sizes that the block accepts.
    layers
        For a feature extractor: the layers to request.
    device
        cpu, cuda, or auto: the CPU, then CUDA if available.
    """
    from gantoolkit.runtime.device import available_devices, select_device

    with requires_extra("testing", "gantoolkit check", PluginError):
        from gantoolkit.testing import RULEBOOKS, Subject

    devices = available_devices() if device == "auto" else [device]
    console = Console(soft_wrap=True, highlight=False)
    broken_count = 0
    short = name.rpartition("/")[2]
    parameters: dict[str, Any] = {}
    for field, value in parse_settings(settings).items():
        merge_field(parameters, field.split("."), value, short)
    for kind in find_kinds(name):
        block = BlockSpec.of(short, **parameters)
        for device_name in devices:
            subject = Subject(kind, block, select_device(device_name), sizes, layers or ())
            subject.factory()  # a block that cannot be loaded, or a wrong parameter, is an error and not a broken rule
            console.print(f"[bold]{escape(str(subject))}[/], on {subject.device}")
            for rule in RULEBOOKS[kind].rules:
                outcome = rule.run(subject)
                reason = f": {outcome.message}" if outcome.state in ("expected failure", "not applicable") else ""
                console.print(f"  [{_STYLES[outcome.state]}]{outcome.state:16}[/] {rule.name}", end="")
                print(reason)
                if outcome.state == "failed":
                    broken_count += 1
                    print("".join(f"                   {line}\n" for line in outcome.message.splitlines()[1:]), end="")
    print(f"{broken_count} broken" if broken_count else "no rule is broken")
    return INCOMPLETE if broken_count else 0
