"""Ablations: train and score several recipes with several seeds on one data set, and compare them with the paper's tables."""

from gantoolkit.evaluation.ablation.designs import Design, DesignRow, find_design, list_designs
from gantoolkit.evaluation.ablation.results import Ablation
from gantoolkit.evaluation.ablation.rows import Row, describe_order, format_markdown, table_cells
from gantoolkit.evaluation.ablation.trials import SETS, Trial, expand_names, plan_trials, select_rows

__all__ = [
    "SETS",
    "Ablation",
    "Design",
    "DesignRow",
    "Row",
    "Trial",
    "describe_order",
    "expand_names",
    "find_design",
    "format_markdown",
    "list_designs",
    "plan_trials",
    "select_rows",
    "table_cells",
]
