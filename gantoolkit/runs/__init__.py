"""What a run leaves on disk: its folder, checkpoints, generator files, log, report and health."""

from gantoolkit.runs.folder import Checkpoint, RunFolder
from gantoolkit.runs.generator_files import (
    GeneratorHeader,
    LoadedGenerator,
    load_generator,
    read_generator_header,
    write_generator,
)

__all__ = [
    "Checkpoint",
    "GeneratorHeader",
    "LoadedGenerator",
    "RunFolder",
    "load_generator",
    "read_generator_header",
    "write_generator",
]
