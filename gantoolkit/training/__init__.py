"""Training: the trainer that runs phases, and the loop around it."""

from gantoolkit.training.building import build_trainer
from gantoolkit.training.distributed import ProcessGroup, get_world_size, is_main_process
from gantoolkit.training.events import Callback, CheckpointSaved, Event, RunEnded, RunStarted, SamplesDrawn, StepDone
from gantoolkit.training.loop import train
from gantoolkit.training.samples import draw_grid
from gantoolkit.training.trainer import StepResult, Trainer
from gantoolkit.training.translation import run_generator

__all__ = [
    "Callback",
    "CheckpointSaved",
    "Event",
    "ProcessGroup",
    "RunEnded",
    "RunStarted",
    "SamplesDrawn",
    "StepDone",
    "StepResult",
    "Trainer",
    "build_trainer",
    "draw_grid",
    "get_world_size",
    "is_main_process",
    "run_generator",
    "train",
]
