"""`gantoolkit plan`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from gantoolkit.cli.bench import format_count, format_seconds, print_facts
from gantoolkit.cli.settings import parse_settings

if TYPE_CHECKING:
    from gantoolkit.cost import Plan, TimeEstimate

__all__ = ["plan"]


def plan(
    recipe: str,
    /,
    *,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    data: Path | None = None,
    steps: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    memory: str | None = None,
    device: str = "auto",
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Predict the memory and time that training a recipe needs, and propose the largest batch and the largest crop that fit.

    Memory is computed without allocating it. Time is measured on small crops for about half a minute, and extrapolated.

    Parameters
    ----------
    recipe
        A recipe's name (`gantoolkit recipes`) or the path of a .toml file.
    settings
        Change a field of the recipe, such as --set data.crop_size=512. May be repeated.
    data
        Folder of the data set, which determines the number of steps.
    steps
        Number of steps, if there is no data set yet.
    memory
        Memory that the run may use, such as 12GB. Default: what is free on the device.
    device
        cpu, cuda, cuda:1, or auto.
    json_file
        Also write the results to this file.
    """
    from gantoolkit import cost
    from gantoolkit.files.text import write_json
    from gantoolkit.recipes import find_recipe
    from gantoolkit.runtime.memory import parse_bytes

    changes = parse_settings(settings)
    limit = None if memory is None else parse_bytes(memory)
    result = cost.plan(find_recipe(recipe, changes), data=data, steps=steps, device=device, memory=limit)
    try:
        if json_file is not None:
            write_json(json_file, asdict(result))
    finally:
        print_plan(result)


def print_plan(result: "Plan") -> None:
    """Print the predicted values, then the settings that fit."""
    from gantoolkit.runtime.memory import MARGIN, format_bytes

    cost = result.cost
    parts = {
        "weights": cost.weight_bytes,
        "gradients": cost.gradient_bytes,
        "optimizers": cost.optimizer_bytes,
        "image pools": cost.pool_bytes,
        "the step itself": cost.working_bytes,
    }
    breakdown = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items() if size)
    if result.available_bytes is None:
        verdict = "; the available memory is not known"
    else:
        verdict = f": {'fits' if result.fits else 'does not fit'} into {format_bytes(result.available_bytes)}"
    facts = {
        "memory": f"{format_bytes(cost.peak_bytes)} at the peak: {breakdown}",
        "required": f"{format_bytes(result.needed_bytes)} with a margin of {MARGIN:.0%}{verdict}",
        "work": f"{format_count(cost.flops)}FLOP a step"
        + "".join(
            f", {format_count(flops)}FLOP to translate {name}" for name, flops in result.translation_flops.items()
        ),
        "time": _describe_time(result.time),
    }
    if result.hours is not None:
        likely, least, most = (_describe_hours(hours) for hours in result.hours)
        facts["run"] = f"{result.steps:,} steps: {likely}, between {least} and {most}"
    size = f"batches of {result.batch_size}, crops of {result.crop_size}×{result.crop_size}"
    print_facts(f"{result.recipe} on {result.device}: {size}", facts)
    for proposal in result.proposals:
        options = " ".join(f"--set {setting}" for setting in proposal.settings) or "as it is"
        print(
            f"largest that fits: batches of {proposal.batch_size}, crops of {proposal.crop_size}×{proposal.crop_size}, "
            f"{format_bytes(proposal.needed_bytes)}: {options}"
        )
    if result.available_bytes is not None and not result.proposals:
        print("no batch and no crop of it fits; use a smaller generator")


def _describe_time(estimate: "TimeEstimate | None") -> str:
    if estimate is None:
        return "not measured: even a step on small crops does not fit into the available memory"
    last = estimate.probes[-1]
    return (
        f"{format_seconds(estimate.seconds_per_step)} a step, between {format_seconds(estimate.low)} and "
        f"{format_seconds(estimate.high)}; measured on batches of {last.batch_size}, crops of "
        f"{last.crop_size}×{last.crop_size}"
    )


def _describe_hours(hours: float) -> str:
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
