"""Profile one training step of CycleGAN on a CUDA device: the kernels that take most of its time.

    python -m benchmarks.gpu.step_profile --variant "bf16 captured"

A captured step is a replay of its graph, so that the times are those of the device alone.
"""

import argparse
import operator
import re
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.rows import record
from benchmarks.training import WARM_UP, steps_of

NAME_LENGTH = 120
"""Characters of a kernel's name, which may have thousands."""


def profile_step(variant: str, side: int, batch: int, *, host: bool) -> list[dict[str, Any]]:
    """The kernels of one step by total time: name, number of launches, microseconds; with `host`, the calls of the host."""
    step = steps_of(variant, side, batch, True, torch.device("cuda"))
    for _ in range(WARM_UP + 1):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU if host else ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    time_of = operator.attrgetter("self_cpu_time_total" if host else "self_device_time_total")
    return [
        {"kernel": shorten(event.key), "count": event.count, "microseconds": round(time_of(event), 1)}
        for event in sorted(profiler.key_averages(), key=time_of, reverse=True)
        if time_of(event) > 0
    ]


def shorten(name: str) -> str:
    """The name of a kernel without its return type and its arguments."""
    return re.sub(r"^void |\(anonymous namespace\)::|\((?!anonymous).*$", "", name)[:NAME_LENGTH]


def main() -> None:
    """Record and print the costliest kernels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="bf16 captured", help="as for benchmarks.training")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--count", type=int, default=30, help="number of kernels to list")
    parser.add_argument(
        "--host", action="store_true", help="profile the host, for a rehearsal on a device that has no profiler"
    )
    arguments = parser.parse_args()
    kernels = profile_step(arguments.variant, arguments.side, arguments.batch, host=arguments.host)
    total, launches = sum(row["microseconds"] for row in kernels), sum(row["count"] for row in kernels)
    for row in kernels[: arguments.count]:
        print(f"{row['microseconds']:10,.1f} µs {row['count']:5d} × {row['kernel']}")
    summary = f"{arguments.variant}: {total / 1000:.2f} ms in {launches} launches"
    leaders = ", ".join(f"{row['kernel'][:40]} {row['microseconds'] / total:.0%}" for row in kernels[:3])
    record(
        {
            "variant": arguments.variant,
            "side": arguments.side,
            "batch": arguments.batch,
            "device_microseconds": round(total, 1),
            "launches": launches,
            "kernels": kernels[: arguments.count],
        },
        f"{summary}; {leaders}",
    )


if __name__ == "__main__":
    main()
