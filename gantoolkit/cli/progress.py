"""The progress display of a training run."""

import contextlib
import shlex
import sys
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gantoolkit.errors import CheckpointError
from gantoolkit.run import Run
from gantoolkit.runtime.torchrun import launched_world_size
from gantoolkit.training import CheckpointSaved, Event, RunEnded, RunStarted, SamplesDrawn, StepDone

__all__ = ["TrainingProgress"]

_LINE_SECONDS = 10.0
"""The time between two lines of output that is not a terminal."""


class TrainingProgress:
    """A callback that shows speed, remaining time and losses: a bar on a terminal, otherwise a line every ten seconds."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.console = Console(stderr=False, soft_wrap=True, highlight=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
        )
        self.bar = Progress(
            *columns,
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(run.recipe.name, total=None, speed="")
        self.start: tuple[int, float] | None = None
        self.updated_at = time.monotonic()
        self.bad_files: set[str] = set()
        self.notes: set[str] = set()
        self.folder_notes: tuple[str, ...] = ()
        self.is_mute = False
        """Whether the output is no longer writable. The run continues without it, with its log and its report."""

    def __enter__(self) -> "TrainingProgress":
        try:
            self.say(f"training {self.run.recipe.name} on {self.run.data} into {self.run.path}")
            self.bar.start()
        except (OSError, UnicodeError, SystemExit):
            self.is_mute = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, UnicodeError, SystemExit):
            self.bar.stop()  # restores the cursor, also after an error

    def __call__(self, event: Event) -> None:
        if self.is_mute:
            return
        try:
            self.show(event)
        except (OSError, UnicodeError, SystemExit):  # rich raises SystemExit if the pipe is closed
            self.is_mute = True

    def show(self, event: Event) -> None:
        match event:
            case RunStarted(notes=notes):
                self.folder_notes = notes
                for note in notes:
                    print(f"note: {note}", file=sys.stderr)
            case StepDone():
                self.show_step(event)
            case SamplesDrawn(step, path):
                self.say(f"step {step}: samples in {path}")
            case CheckpointSaved(step, path):
                self.say(f"step {step}: saved {path}")
            case RunEnded():
                self.bar.stop()
                self.show_end(event)

    def show_step(self, event: StepDone) -> None:
        now = time.monotonic()
        for path, reason in event.bad_files.items():
            if path not in self.bad_files:
                self.bad_files.add(path)
                print(f"warning: {path} {reason}; another image is used instead", file=sys.stderr)
        for path, notes in event.notes.items():
            for note in notes:
                if note.text not in self.notes:  # the end of the run counts the files of each kind
                    self.notes.add(note.text)
                    print(f"note: {path} {note.text}", file=sys.stderr)
        if event.skipped:
            message = f"warning: step {event.step}: {event.skipped} was not finite and was skipped"
            print(message, file=sys.stderr)
        if self.start is None:
            self.start = (event.step - 1, now)
        interval = 0.5 if self.console.is_terminal else _LINE_SECONDS
        if now - self.updated_at < interval and event.step < event.steps:
            return
        self.updated_at = now
        steps, seconds = event.step - self.start[0], max(now - self.start[1], 1e-9)
        speed = f"{steps / seconds:.2f} steps/s" if steps > 1 else ""
        losses = " ".join(f"{name} {float(value):.3f}" for name, value in event.losses.items() if "total" not in name)
        if self.console.is_terminal:
            self.bar.update(self.task, completed=event.step, total=event.steps, speed=speed, description=losses)
        else:
            remaining = (event.steps - event.step) * seconds / steps
            parts = (f"step {event.step}/{event.steps}", speed, f"{_format_duration(remaining)} left")
            self.say(f"{', '.join(filter(None, parts))}{f': {losses}' if losses else ''}")

    def show_end(self, end: RunEnded) -> None:
        for line in end.notes:
            print(f"note: {line}", file=sys.stderr)
        for line in end.passed_over:
            if line not in (*end.notes, *self.folder_notes):
                print(f"passed over: {line}", file=sys.stderr)
        self.say(_describe_end(end))
        if end.reason != "finished":
            command = "gantoolkit" if launched_world_size() == 1 else "torchrun ... -m gantoolkit"
            self.say(f"continue with: {command} train --resume {shlex.quote(str(self.run.path))}{self.moved_data()}")

    def moved_data(self) -> str:
        """The option that names the data set, if it is not where the run has its own."""
        with contextlib.suppress(CheckpointError):
            if Path(self.run.folder.read_metadata()["data"]) == self.run.data.resolve():
                return ""
        return f" --data {shlex.quote(str(self.run.data))}"

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)


def _describe_end(end: RunEnded) -> str:
    if end.start == end.step and end.reason == "finished":
        return (
            f"the run was finished before, at step {end.step}: there was nothing to train. Other settings, such as more "
            f"training.epochs, need another --out; report: {end.report}"
        )
    if end.start == end.step and end.reason == "stopped":
        return f"the run is at step {end.step}, where --stop-at ends it: nothing was trained; report: {end.report}"
    phrases = {
        "finished": "finished",
        "stopped": "stopped as requested",
        "SIGINT": "interrupted",
        "SIGTERM": "terminated",
    }
    return f"{phrases[end.reason]} at step {end.step}; report: {end.report}"


def _format_duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
