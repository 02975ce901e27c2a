"""`gantoolkit bench`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from gantoolkit.cli.settings import parse_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gantoolkit.cost import Bench, Share

__all__ = ["bench", "format_count", "format_seconds", "print_facts"]


def bench(
    recipe: str,
    /,
    *,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    steps: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 10,
    device: str = "auto",
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Measure training steps of a recipe on this machine: speed, device utilization, memory, and where the time goes.

    The steps use random images; reading images is not included. Utilization is relative to a large matrix product, which is
    measured too.

    Parameters
    ----------
    recipe
        A recipe's name (`gantoolkit recipes`) or the path of a .toml file.
    settings
        Change a field of the recipe, such as --set data.crop_size=128. May be repeated.
    steps
        Number of steps to time, after two warm-up steps.
    device
        cpu, cuda, cuda:1, or auto.
    json_file
        Also write the results to this file.
    """
    from gantoolkit import cost
    from gantoolkit.files.text import write_json
    from gantoolkit.recipes import find_recipe

    changes = parse_settings(settings)
    result = cost.bench(find_recipe(recipe, changes), device=device, steps=steps)
    try:
        if json_file is not None:
            write_json(json_file, asdict(result))
    finally:
        print_bench(result)


def print_bench(result: "Bench") -> None:
    """Print the measured values, then where the time of a step goes."""
    from gantoolkit.runtime.memory import format_bytes

    facts = {
        "speed": f"{result.pairs_per_second:.3g} pairs/s, {format_seconds(result.seconds_per_step)} a step "
        f"(median of {len(result.seconds)}, {format_seconds(min(result.seconds))} to "
        f"{format_seconds(max(result.seconds))})"
    }
    rate = result.matrix_rate
    if result.flops is not None:
        facts["work"] = f"{format_count(result.flops)}FLOP a step, {format_count(result.flops_per_second)}FLOP/s"
        facts["share"] = (
            f"{result.share_of_matrix_rate:.1%} of {format_count(rate.flops_per_second)}FLOP/s, which a product of "
            f"{rate.side}×{rate.side} matrices in {rate.arithmetic} reaches here"
        )
    if result.memory_bytes is not None:
        facts["memory"] = f"{format_bytes(result.memory_bytes)} at the peak ({result.memory_kind})"
    if result.predicted_bytes is not None:
        facts["predicted"] = f"{format_bytes(result.predicted_bytes)} of tensors"
    size = f"batches of {result.batch_size}, crops of {result.crop_size}×{result.crop_size}"
    print_facts(f"{result.recipe} on {result.device}: {size}", facts)
    _print_shares("stage of a step", result.stages)
    _print_shares("operator, own time", result.operators)
    for note in result.notes:
        print(note)


def print_facts(title: str, facts: dict[str, str]) -> None:
    """Print a heading, and one line for each fact: its name and its text."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    console.print(title, markup=False, style="bold")
    width = max(map(len, facts))
    for name, text in facts.items():
        console.print(f"  {name:<{width}}  {text}", markup=False)


def format_count(number: float | None) -> str:
    """Format a number with an SI prefix, such as `1.29 T`.

    >>> format_count(1_288_298_299_392), format_count(11_708)
    ('1.29 T', '11.7 k')
    """
    value = number or 0.0
    for prefix, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "


def format_seconds(seconds: float) -> str:
    """Format a short duration, such as `15.4 s` or `231 ms`.

    >>> format_seconds(15.432), format_seconds(0.2312)
    ('15.4 s', '231 ms')
    """
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _print_shares(title: str, shares: "Sequence[Share]") -> None:
    from rich.table import Table

    from gantoolkit.cli.evaluate import print_whole

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(title, no_wrap=True)
    table.add_column("a step", no_wrap=True, justify="right")
    table.add_column("share", no_wrap=True, justify="right")
    for share in shares:
        table.add_row(share.name, format_seconds(share.seconds), f"{share.share:.1%}")
    print_whole(table)
