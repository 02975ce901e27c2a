"""The command `gantoolkit`: its subcommands, exit codes and error messages."""

import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import cyclopts
from rich.console import Console

from gantoolkit.cli import (
    ablate,
    bench,
    blocks,
    checking,
    data,
    demo,
    evaluate,
    export,
    hub,
    importing,
    plan,
    plugins,
    segmenter,
    serve,
    show,
    study,
    train,
    translate,
)
from gantoolkit.cli.exit_codes import BAD_INPUT, INTERNAL_ERROR, INTERRUPTED, SUCCESS, TERMINATED
from gantoolkit.cli.output import tolerant_output
from gantoolkit.cli.paths import convert_argument
from gantoolkit.errors import GantoolkitError
from gantoolkit.plugins import REGISTRIES
from gantoolkit.runtime.torchrun import launched_rank, launched_world_size
from gantoolkit.runtime.version import __version__

__all__ = ["app", "main"]

_SINGLE_PROCESS = (
    "ablate",
    "bench",
    "card",
    "demo",
    "evaluate",
    "export",
    "pull",
    "push",
    "serve",
    "translate",
    "train-segmenter",
)
"""Commands that cannot run under torchrun: each process would do all the work and write every file."""

_RESULTS_IN_FILES = (
    "ablate",
    "demo",
    "evaluate",
    "export",
    "import",
    "pull",
    "serve",
    "study",
    "train",
    "train-segmenter",
    "translate",
)
"""Commands that write or serve their results. They have succeeded even if what they print is lost."""

app = cyclopts.App(
    name="gantoolkit",
    version=f"gantoolkit {__version__}",
    suppress_keyboard_interrupt=False,
    default_parameter=cyclopts.Parameter(converter=convert_argument),
    help=(
        "Train CycleGAN and related methods on your own images, and translate images with them.\n\n"
        "Exit codes: 0 success; 1 an error in gantoolkit or in a plugin; 2 bad input, with one sentence that says what "
        "would be right; 3 some files were skipped, a data set has problems, a block breaks a rule, or a row of an ablation "
        "failed; 130 stopped by Ctrl-C; 143 stopped by SIGTERM. On either signal, training finishes its step and saves; a "
        "second signal ends the process at once."
    ),
)
app.command(train.train)
app.command(translate.translate)
app.command(export.export)
app.command(show.show)
app.command(serve.serve)
app.command(hub.card)
app.command(hub.push)
app.command(hub.pull)
app.command(evaluate.evaluate)
app.command(ablate.ablate)
app.command(segmenter.train_segmenter)
app.command(study.app)
app.command(plan.plan)
app.command(bench.bench)
app.command(data.app)
app.command(importing.app)
app.command(demo.demo)
app.command(blocks.app)
app.command(plugins.app)
app.command(checking.check)
app.command(blocks.recipes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # keeps torch's profiler from printing to stderr
    warnings.showwarning = _show_warning
    arguments = sys.argv[1:] if arguments is None else arguments
    with tolerant_output() as find_problem:
        code = _run_command(arguments)
        if problem := find_problem():
            _print_error(f"the output cannot be written ({problem.strerror or problem})")
            if code == SUCCESS and (arguments or [""])[0] not in _RESULTS_IN_FILES:
                return BAD_INPUT
    return code


def _run_command(arguments: Sequence[str]) -> int:
    try:
        _check_launcher(arguments)
        with _sigterm_interrupts():
            result = app(arguments, exit_on_error=False, print_error=True, result_action="return_value")
    except GantoolkitError as error:
        _print_error(str(error))
        return BAD_INPUT
    except cyclopts.CycloptsError:
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        is_terminated = signal.SIGTERM in interrupt.args
        _print_error("terminated" if is_terminated else "interrupted")
        return TERMINATED if is_terminated else INTERRUPTED
    except MemoryError:
        _print_error("not enough memory even to start the command; close other programs, or use another machine")
        return BAD_INPUT
    except Exception as error:
        if os.environ.get("GANTOOLKIT_TRACEBACK", "0") != "0":
            raise
        if _is_invalid_path(error):
            _print_error(f"a path in the command is not valid on this system ({error}); use another path")
            return BAD_INPUT
        _print_error(_describe_internal_error(error))
        return INTERNAL_ERROR
    return result if isinstance(result, int) else SUCCESS


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt as Ctrl-C does, so that partial files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number))

    previous = {kind: signal.signal(kind, interrupt) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)


def _is_invalid_path(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENAMETOOLONG, errno.ELOOP)
    return isinstance(error, ValueError) and "embedded null" in str(error)


def _describe_internal_error(error: Exception) -> str:
    """Say where an unexpected error occurred: in gantoolkit, or in which plugin."""
    owners = {
        entry.target.partition(":")[0].partition(".")[0]: entry.distribution
        for registry in REGISTRIES.values()
        for entry in registry.entries()
    }
    owner, location = "gantoolkit", ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in owners:
            owner, location = owners[package], f"{frame.f_code.co_filename}, line {line}"
    return (
        f"{type(error).__name__}: {error} ({location}). This is a mistake in {owner}, not in your command; set "
        "GANTOOLKIT_TRACEBACK=1 to see the traceback"
    )


def _print_error(message: str) -> None:
    with contextlib.suppress(OSError, MemoryError):  # the exit code reports the error in any case
        Console(stderr=True, soft_wrap=True).print(f"{_process_prefix()}[bold red]error:[/] ", end="", highlight=False)
        print(message, file=sys.stderr)


def _show_warning(message: Warning | str, *details: object, **more: object) -> None:
    print(f"{_process_prefix()}warning: {message}", file=sys.stderr)


def _process_prefix() -> str:
    """The rank of this process, to put before its messages; empty if it is the only one."""
    try:
        return f"rank {launched_rank()}: " if launched_world_size() > 1 else ""
    except GantoolkitError:  # the command reports it
        return ""


def _check_launcher(arguments: Sequence[str]) -> None:
    """Check torchrun's environment, and refuse commands that cannot share their work."""
    launched_rank()  # raises if the environment is not valid
    if launched_world_size() > 1 and arguments and arguments[0] in _SINGLE_PROCESS:
        raise GantoolkitError(
            f"gantoolkit {arguments[0]} cannot share its work among the processes that torchrun starts; call it without"
        )
