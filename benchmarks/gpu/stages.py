"""The stages of `python -m benchmarks.gpu`, most important first."""

from dataclasses import dataclass

__all__ = ["STAGES", "Stage"]


@dataclass(frozen=True)
class Stage:
    """A module that runs in its own process.

    Args:
        name: Unique name.
        command: The module and its arguments.
        limit: Seconds after which the process is killed.
        takes: The options of `benchmarks.gpu` that are passed on if they are given: `golden` and `peer`.
        needs: Those without which the stage is left out.
        side_by_side: Whether it may run beside its neighbors, because it measures no time.
        quick: Further arguments in a rehearsal.
        full: Further arguments otherwise.
    """

    name: str
    command: tuple[str, ...]
    limit: int
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    side_by_side: bool = False
    quick: tuple[str, ...] = ()
    full: tuple[str, ...] = ()


def _check(name: str, limit: int, *, needs: tuple[str, ...] = ()) -> Stage:
    command = ("benchmarks.gpu.checks", name)
    return Stage(f"check-{name}", command, limit, needs, needs, side_by_side=True, quick=("--quick",))


def _training(name: str, limit: int, *command: str, peer: bool = True) -> Stage:
    takes = ("peer",) if peer else ()
    quick = ("--side", "64", "--rounds", "1", "--calls", "1")
    return Stage(name, ("benchmarks.training", *command), limit, takes, quick=quick)


def _inference(name: str, limit: int, *command: str, peer: bool = True) -> Stage:
    takes = ("peer",) if peer else ()
    quick = ("--side", "64", "--rounds", "1", "--calls", "1")
    return Stage(name, ("benchmarks.inference", *command), limit, takes, quick=quick)


_MAIN_VARIANTS = ("bf16 captured", "bf16", "tf32 captured", "fp16 captured", "fp32 captured", "fp32")

STAGES = (
    Stage("machine", ("benchmarks.gpu.machine",), 40, quick=("--quick",)),
    Stage("tests", ("benchmarks.gpu.device_tests",), 120, side_by_side=True, quick=("--workers", "0")),
    _check("kernels", 90),
    _check("golden", 90, needs=("golden",)),
    _check("precision", 90),
    _check("capture", 90),
    _check("resume", 90),
    _check("recipes", 120),
    _check("translation", 60),
    _check("memory", 90),
    _training("training-1", 150, "--rounds", "9", "--calls", "10", "--variants", *_MAIN_VARIANTS),
    Stage("profile", ("benchmarks.gpu.step_profile",), 60, quick=("--side", "64", "--host")),
    _training(
        "training-16", 110, "--batch", "16", "--rounds", "5", "--calls", "2", "--variants", "bf16 captured", "bf16"
    ),
    _inference("inference-1", 50, "--rounds", "11", "--calls", "50"),
    _inference("inference-16", 50, "--batch", "16", "--rounds", "7", "--calls", "10"),
    Stage("kernels", ("benchmarks.kernels",), 60, quick=("--rounds", "1", "--batches", "1")),
    Stage(
        "scaling",
        ("benchmarks.scaling", "--variant", "bf16 captured", "--rounds", "20"),
        60,
        quick=("--sides", "32", "--rounds", "1"),
    ),
    Stage(
        "data",
        ("benchmarks.data", "--networks", "64", "--images", "60", "--rounds", "2"),
        90,
        quick=(
            *("--networks", "4", "--images", "4", "--width", "40", "--height", "40", "--side", "36", "--crop", "32"),
            *("--batches", "3", "--steps", "2", "--rounds", "1"),
        ),
    ),
    _training(
        *("training-1-without-identity", 90, "--no-identity", "--rounds", "5", "--calls", "10"),
        *("--variants", "bf16 captured"),
    ),
    _inference(
        "inference-compiled", 150, "--rounds", "7", "--calls", "50", "--variants", "bf16", "bf16 compiled", peer=False
    ),
    _training(
        *("training-compiled", 300, "--rounds", "5", "--calls", "10", "--variants", "bf16 captured"),
        "bf16 compiled captured",
        peer=False,
    ),
    Stage(
        "plan",
        ("benchmarks.plan", "--steps", "3"),
        150,
        quick=("cyclegan:data.crop_size=32:generator.width=4",),
        full=("cyclegan", "pix2pix"),
    ),
)
