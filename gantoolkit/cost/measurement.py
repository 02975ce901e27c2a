"""Measure training steps on this machine: time, speed relative to the device, memory, and time by stage and operator."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import torch
from torch.profiler import ProfilerActivity, profile

from gantoolkit.cost.memory_meter import MemoryMeter
from gantoolkit.cost.step_cost import StepCost, count_step
from gantoolkit.cost.timing import MatrixRate, TimedSteps, measure_matrix_rate, synchronize, time_steps
from gantoolkit.errors import RecipeError, TrainingError
from gantoolkit.recipes import Recipe
from gantoolkit.runtime.device import select_device
from gantoolkit.runtime.memory import available_memory, format_bytes
from gantoolkit.training.building import settle_arithmetic

__all__ = ["Bench", "Share", "bench", "describe_device"]

_WARM_UP = 2
_STAGE_ROUNDS = 3
_OPERATORS = 8


@dataclass(frozen=True)
class Share:
    """A share of the time of a step.

    Args:
        name: A stage, or an operator of torch.
        seconds: Seconds in one step.
        share: The share of the whole, from 0 to 1.
    """

    name: str
    seconds: float
    share: float


@dataclass(frozen=True)
class Bench:
    """Measured steps of a recipe.

    Args:
        recipe: The name of the recipe.
        device: The device, in words.
        torch: The version of torch.
        batch_size: Pairs per step.
        crop_size: Side of the crops in pixels.
        seconds: Seconds of each timed step, in order.
        seconds_per_step: Their median.
        pairs_per_second: At the median; without reading images.
        flops: Floating-point operations of a step's convolutions and matrix products; None if they cannot be counted.
        flops_per_second: At the median.
        matrix_rate: The speed of a large matrix product on this device.
        share_of_matrix_rate: The step's speed relative to it.
        memory_bytes: The measured peak; None if the system does not report it.
        memory_kind: What `memory_bytes` measures.
        predicted_bytes: The predicted peak of the step's tensors.
        stages: Time by stage.
        operators: Time by operator of torch, without the operators that it calls: the most expensive ones, and the rest.
        notes: What could not be measured, and why.
    """

    recipe: str
    device: str
    torch: str
    batch_size: int
    crop_size: int
    seconds: tuple[float, ...]
    seconds_per_step: float
    pairs_per_second: float
    flops: float | None
    flops_per_second: float | None
    matrix_rate: MatrixRate
    share_of_matrix_rate: float | None
    memory_bytes: int | None
    memory_kind: str
    predicted_bytes: int | None
    stages: tuple[Share, ...]
    operators: tuple[Share, ...]
    notes: tuple[str, ...]


def bench(recipe: Recipe, *, device: str | None = None, steps: int = 10) -> Bench:
    """Run steps of a recipe on random images and measure them.

    On a CPU, memory is the growth of this process: measure in a fresh process.

    Args:
        recipe: Any recipe; its batch and crop sizes are used.
        device: As for `gantoolkit.runtime.device.select_device`.
        steps: Timed steps, after a warm-up.

    Raises:
        RecipeError, PluginError: When the recipe cannot work.
        TrainingError: When there is not enough memory.
        CheckpointError: When a pretrained part cannot be loaded.
    """
    recipe, target = recipe.check(), select_device(device)
    notes: list[str] = []
    cost = _count(recipe, notes)
    _refuse_too_large(recipe, cost, target)
    arithmetic = settle_arithmetic(recipe, target)
    rate = measure_matrix_rate(target, arithmetic.precision)
    meter = MemoryMeter(target)
    with time_steps(recipe, target, arithmetic) as timed_steps:
        timed_steps.warm_up(_WARM_UP)
        meter.restart()
        seconds = tuple(timed_steps.time() for _ in range(ceil(steps / timed_steps.cycle)))
        memory = meter.read()
        stages = _time_stages(timed_steps, rounds=min(_STAGE_ROUNDS, steps))
        operators = _time_operators(timed_steps, target)
    median = statistics.median(seconds)
    achieved = cost and cost.flops / median
    return Bench(
        recipe=recipe.name,
        device=describe_device(target),
        torch=torch.__version__,
        batch_size=recipe.training.batch_size,
        crop_size=recipe.data.crop_size,
        seconds=seconds,
        seconds_per_step=median,
        pairs_per_second=recipe.training.batch_size / median,
        flops=cost and cost.flops,
        flops_per_second=achieved,
        matrix_rate=rate,
        share_of_matrix_rate=achieved and achieved / rate.flops_per_second,
        memory_bytes=memory,
        memory_kind=meter.kind,
        predicted_bytes=cost and cost.peak_bytes,
        stages=stages,
        operators=operators,
        notes=tuple(notes),
    )


def describe_device(device: torch.device) -> str:
    """A device in words, such as `cpu, 8 threads`."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"


def _count(recipe: Recipe, notes: list[str]) -> StepCost | None:
    try:
        return count_step(recipe)
    except RecipeError as error:
        notes.append(str(error))
        return None


def _refuse_too_large(recipe: Recipe, cost: StepCost | None, device: torch.device) -> None:
    # Linux promises more memory than there is, and kills a process that then uses it.
    available = available_memory(device)
    if cost is not None and available is not None and cost.peak_bytes > available:
        raise TrainingError(
            f"{recipe.name}: a step needs {format_bytes(cost.peak_bytes)}, and {device} has {format_bytes(available)} free; "
            "`gantoolkit plan` proposes what fits"
        )


def _time_stages(steps: TimedSteps, *, rounds: int) -> tuple[Share, ...]:
    times = [steps.time_stages() for _ in range(rounds)]
    return _shares({name: statistics.median(stages.get(name, 0.0) for stages in times) for name in times[0]})


def _time_operators(steps: TimedSteps, device: torch.device) -> tuple[Share, ...]:
    """Each operator's own time, without that of the operators that it calls."""
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        for _ in range(steps.cycle):
            steps.step(capture=False)  # a graph hides which operator launched a kernel
        synchronize(device)
    seconds: dict[str, float] = {}
    for event in profiler.key_averages():
        # Kernels are listed in addition to the operators that launched them, with the same time.
        if event.device_type.name == "CPU":
            own = event.self_device_time_total if on_cuda else event.self_cpu_time_total
            seconds[event.key.removeprefix("aten::")] = own * 1e-6 / steps.cycle
    costly = dict(sorted(seconds.items(), key=lambda item: -item[1])[:_OPERATORS])
    return _shares({**costly, "all others": sum(seconds.values()) - sum(costly.values())})


def _shares(seconds: Mapping[str, float]) -> tuple[Share, ...]:
    whole = sum(seconds.values()) or 1.0
    return tuple(Share(name, spent, spent / whole) for name, spent in seconds.items())
