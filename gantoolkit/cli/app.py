"""The command `gantoolkit`, its exit codes, and what it prints when something is wrong."""

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
from gantoolkit.errors import GantoolkitError
from gantoolkit.plugins import REGISTRIES
from gantoolkit.runtime.torchrun import launched_rank, launched_world_size
from gantoolkit.runtime.version import __version__

__all__ = ["app", "main"]

_ALONE = (
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
"""Commands that would do everything, and write every file, once in each process of a launcher."""

app = cyclopts.App(
    name="gantoolkit",
    version=f"gantoolkit {__version__}",
    suppress_keyboard_interrupt=False,
    help=(
        "Train CycleGAN and its relatives on your own images, and translate with them.\n\n"
        "Exit codes: 0 done; 1 a mistake in gantoolkit or in a plugin; 2 bad input, with one sentence that says what "
        "would be right; 3 some files were skipped, a data set has flaws, or a block breaks a rule; 130 stopped by Ctrl-C "
        "and 143 by SIGTERM: what trains finishes its step and saves everything first; a second signal ends it at once."
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
    """Run one command; the exit code."""
    # Threads that wait for each other by spinning stand still on a machine whose cores are shared: seen 50 times slower.
    # Read when torch is loaded, which the commands do as late as they can.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # But for some microseconds they may: to be woken takes longer than what many operations of a step do.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch's profiler, loaded with it, talks on stderr
    warnings.showwarning = _show_warning
    try:
        _refuse_launchers(sys.argv[1:] if arguments is None else arguments)
        with _both_signals_interrupt():
            result = app(arguments, exit_on_error=False, print_error=True, result_action="return_value")
    except GantoolkitError as error:
        _complain(str(error))
        return BAD_INPUT
    except cyclopts.CycloptsError:
        return BAD_INPUT
    except BrokenPipeError:
        sys.stderr.close()  # the reader, `head` for instance, has had enough; nothing is left to say it to
        return SUCCESS
    except KeyboardInterrupt as interrupt:
        is_terminated = signal.SIGTERM in interrupt.args
        _complain("terminated" if is_terminated else "interrupted")
        return TERMINATED if is_terminated else INTERRUPTED
    except MemoryError:
        _complain(
            "not enough memory, not even for what comes before the work; close other programs, or take another machine"
        )
        return BAD_INPUT
    except Exception as error:
        if os.environ.get("GANTOOLKIT_TRACEBACK", "0") != "0":
            raise
        if _is_about_a_path(error):
            _complain(f"a path that was given cannot be one on this system ({error}); write another")
            return BAD_INPUT
        _complain(_blame(error))
        return INTERNAL_ERROR
    return result if isinstance(result, int) else SUCCESS


@contextmanager
def _both_signals_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt as Ctrl-C does: what is half-written is removed on the way out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number))

    before = {kind: signal.signal(kind, interrupt) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _is_about_a_path(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENAMETOOLONG, errno.ELOOP)
    return isinstance(error, ValueError) and "embedded null" in str(error)


def _blame(error: Exception) -> str:
    """Where an error that nobody expected happened, and whose code that is."""
    owners = {
        entry.target.partition(":")[0].partition(".")[0]: entry.distribution
        for registry in REGISTRIES.values()
        for entry in registry.entries()
    }
    owner, place = "gantoolkit", ""
    for frame in traceback.walk_tb(error.__traceback__):
        found = owners.get(frame[0].f_globals.get("__name__", "").partition(".")[0])
        if found is not None:
            owner, place = found, f"{frame[0].f_code.co_filename}, line {frame[1]}"
    return (
        f"{type(error).__name__}: {error} ({place}). This is a mistake in {owner}, not in what you asked for; set "
        "GANTOOLKIT_TRACEBACK=1 to see how it came to it"
    )


def _complain(message: str) -> None:
    with contextlib.suppress(OSError, MemoryError):  # the exit code says it too
        Console(stderr=True, soft_wrap=True).print(f"{_speaker()}[bold red]error:[/] ", end="", highlight=False)
        print(message, file=sys.stderr)


def _show_warning(message: Warning | str, *details: object, **more: object) -> None:
    print(f"{_speaker()}warning: {message}", file=sys.stderr)


def _speaker() -> str:
    """Which of the processes that a launcher has started speaks; where there is one alone it need not say so."""
    try:
        return f"process {launched_rank()}: " if launched_world_size() > 1 else ""
    except GantoolkitError:  # the command will say it
        return ""


def _refuse_launchers(arguments: Sequence[str]) -> None:
    launched_rank()  # says what is wrong with it
    if launched_world_size() > 1 and arguments and arguments[0] in _ALONE:
        raise GantoolkitError(
            f"gantoolkit {arguments[0]} cannot share its work among the processes that torchrun starts; call it without"
        )
