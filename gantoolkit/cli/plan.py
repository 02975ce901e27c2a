"""`gantoolkit plan`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from gantoolkit.cli.bench import format_count, format_seconds, print_facts
from gantoolkit.cli.train import parse_setting

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
    """Predict the memory and the time of training a recipe, and propose the largest batch and the largest crop that fit.

    Memory is counted without taking any. Time is measured on small crops, for about half a minute, and grows with the work.

    Parameters
    ----------
    recipe
        A recipe's name (`gantoolkit recipes`) or the path of a .toml file.
    settings
        Change a field of the recipe, as often as you like: --set data.crop_size=512 --set training.batch_size=4.
    data
        Folder of the data set; it says how many steps the run has.
    steps
        How many steps, where there is no data set yet.
    memory
        What the run may take, such as 12GB; by default what the device has left.
    device
        cpu, cuda, cuda:1, or auto.
    json_file
        Write everything to this file too.
    """
    from gantoolkit import cost
    from gantoolkit.files.text import write_json
    from gantoolkit.recipes import find_recipe
    from gantoolkit.runtime.memory import parse_bytes

    changes = dict(parse_setting(setting) for setting in settings or [])
    limit = None if memory is None else parse_bytes(memory)
    made = cost.plan(find_recipe(recipe, changes), data=data, steps=steps, device=device, memory=limit)
    print_plan(made)
    if json_file is not None:
        write_json(json_file, asdict(made))


def print_plan(made: "Plan") -> None:
    """The figures, then the settings that fit."""
    from gantoolkit.runtime.memory import MARGIN, format_bytes

    cost = made.cost
    parts = {
        "weights": cost.weight_bytes,
        "gradients": cost.gradient_bytes,
        "optimizers": cost.optimizer_bytes,
        "image pools": cost.pool_bytes,
        "the step itself": cost.working_bytes,
    }
    listed = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items() if size)
    verdict = {True: "fits into", False: "does not fit into", None: ""}[made.fits]
    there = "; how much there is, is not known here" if made.available_bytes is None else ""
    if made.available_bytes is not None:
        there = f": {verdict} {format_bytes(made.available_bytes)}"
    facts = {
        "memory": f"{format_bytes(cost.peak_bytes)} at the peak: {listed}",
        "to have": f"{format_bytes(made.needed_bytes)} with a margin of {MARGIN:.0%}{there}",
        "work": f"{format_count(cost.flops)}FLOP a step"
        + "".join(f", {format_count(flops)}FLOP to translate {way}" for way, flops in made.translation_flops.items()),
        "time": _describe_time(made.time),
    }
    if made.hours is not None:
        likely, least, most = (_describe_hours(hours) for hours in made.hours)
        facts["run"] = f"{made.steps:,} steps: {likely}, between {least} and {most}"
    size = f"batches of {made.batch_size}, crops of {made.crop_size}×{made.crop_size}"
    print_facts(f"{made.recipe} on {made.device}: {size}", facts)
    for proposal in made.proposals:
        words = " ".join(f"--set {setting}" for setting in proposal.settings) or "as it is"
        print(
            f"largest that fits: batches of {proposal.batch_size}, crops of {proposal.crop_size}×{proposal.crop_size}, "
            f"{format_bytes(proposal.needed_bytes)}: {words}"
        )
    if made.available_bytes is not None and not made.proposals:
        print("no batch and no crop of it fits; take a smaller generator")


def _describe_time(estimate: "TimeEstimate | None") -> str:
    if estimate is None:
        return "not measured: not even a step on small crops fits into the memory here"
    last = estimate.probes[-1]
    return (
        f"{format_seconds(estimate.seconds_per_step)} a step, between {format_seconds(estimate.low)} and "
        f"{format_seconds(estimate.high)}; measured on batches of {last.batch_size}, crops of "
        f"{last.crop_size}×{last.crop_size}"
    )


def _describe_hours(hours: float) -> str:
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
