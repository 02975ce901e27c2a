"""The trials of an ablation: each recipe with each seed, and both directions of a recipe that learns one."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gantoolkit.data import open_dataset
from gantoolkit.evaluation.ablation.designs import Design, DesignRow
from gantoolkit.recipes import Recipe, find_recipe
from gantoolkit.run import Run
from gantoolkit.runs import RunFolder, read_generator_header

__all__ = ["SETS", "Trial", "count_steps", "expand_names", "plan_trials", "read_step", "select_rows"]

SETS = {
    "ablations": (
        "ablations/cycle_alone",
        "ablations/gan_alone",
        "ablations/gan_forward",
        "ablations/gan_backward",
        "cyclegan",
    ),
    "baselines": ("cogan", "bigan", "simgan", "feature_gan", "cyclegan", "pix2pix"),
}
"""Named sets of recipes: `ablations` for the rows of tables 4 and 5, `baselines` for tables 2 and 3 (Zhu et al. 2017)."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One run of an ablation; equal only to itself.

    Args:
        name: The name of the recipe on the command line.
        seed: `training.seed`.
        recipe: The recipe with all changes.
        path: The run's folder.
        differs: Known differences from the paper.
    """

    name: str
    seed: int
    recipe: Recipe
    path: Path
    differs: tuple[str, ...] = ()

    def __str__(self) -> str:
        direction = self.recipe.system.parameters.get("direction")
        return f"{self.name}{f' {direction}' if direction else ''}, seed {self.seed}"


def expand_names(names: Sequence[str]) -> list[str]:
    """Replace the names of `SETS` by their recipes and remove duplicates."""
    return list(dict.fromkeys(recipe for name in names for recipe in SETS.get(name, (name,))))


def select_rows(names: Sequence[str], design: Design | None) -> list[DesignRow]:
    """The rows of recipes, with their settings in the design; without names, all rows of the design, or `ablations`."""
    by_name = {row.recipe: row for row in design.rows} if design is not None else {}
    chosen = expand_names(names or list(by_name) or ["ablations"])
    return [by_name.get(name) or DesignRow(recipe=name) for name in chosen]


def plan_trials(
    rows: Sequence[DesignRow], seeds: Sequence[int], changes: Mapping[str, Any], out: Path, design: Design | None = None
) -> list[Trial]:
    """List the runs of an ablation: every recipe with every seed, and both directions of a one-directional recipe.

    Args:
        rows: The recipes with their own settings.
        seeds: Values of `training.seed`.
        changes: Changes of every recipe, which come after those of the rows.
        out: Folder for all runs.
        design: Its settings apply to every row.

    Raises:
        GantoolkitError: If a recipe does not exist, or a change does not fit one of them.
    """
    common = dict(design.settings) if design is not None else {}
    differs = design.differs if design is not None else ()
    trials: list[Trial] = []
    for seed, row in itertools.product(seeds, rows):
        name = row.recipe
        short = Path(name).stem if name.endswith(".toml") else name
        settings = {**common, **row.settings, **changes, "training.seed": seed}
        recipe = find_recipe(name, settings).check()
        notes = (*differs, *row.differs)
        # A one-directional system has a parameter `direction`.
        if "direction" in recipe.system.parameters and "direction" not in settings:
            for direction in ("A2B", "B2A"):
                directed = find_recipe(name, {**settings, "direction": direction})
                trials.append(Trial(short, seed, directed, out / short / f"seed-{seed}-{direction}", notes))
        else:
            trials.append(Trial(short, seed, find_recipe(name, settings), out / short / f"seed-{seed}", notes))
    return trials


def count_steps(recipe: Recipe, data: Path) -> int:
    """The steps of a whole run.

    Raises:
        DataError: If the data set cannot be used.
    """
    images = max(map(len, open_dataset(data).images.values()))
    return -(-images // recipe.training.batch_size) * recipe.training.epochs


def read_step(run: Run | RunFolder) -> int:
    """The step of the saved generators, from the header of their files; 0 if nothing is saved."""
    folder = run.folder if isinstance(run, Run) else run
    files = folder.generators.glob("*.safetensors")
    return max((read_generator_header(path).step for path in files), default=0)
