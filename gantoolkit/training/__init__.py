"""Training: the trainer that runs phases, the loop around it, and what a run writes."""

from gantoolkit.training.building import build_trainer
from gantoolkit.training.events import Callback, CheckpointSaved, Event, RunEnded, SamplesDrawn, StepDone
from gantoolkit.training.folder import Checkpoint, RunFolder
from gantoolkit.training.generatorfile import (
    GeneratorHeader,
    LoadedGenerator,
    load_generator,
    read_generator_header,
    write_generator,
)
from gantoolkit.training.loop import train
from gantoolkit.training.processes import Processes, count_processes, is_writer
from gantoolkit.training.samples import draw_grid
from gantoolkit.training.trainer import StepResult, Trainer
from gantoolkit.training.translation import run_generator

__all__ = [
    "Callback",
    "Checkpoint",
    "CheckpointSaved",
    "Event",
    "GeneratorHeader",
    "LoadedGenerator",
    "Processes",
    "RunEnded",
    "RunFolder",
    "SamplesDrawn",
    "StepDone",
    "StepResult",
    "Trainer",
    "build_trainer",
    "count_processes",
    "draw_grid",
    "is_writer",
    "load_generator",
    "read_generator_header",
    "run_generator",
    "train",
    "write_generator",
]
