"""The cost of training a recipe: measured on this machine (`bench`), or predicted before it starts (`plan`)."""

from gantoolkit.cost.fitting import Proposal
from gantoolkit.cost.measurement import Bench, Share, bench
from gantoolkit.cost.prediction import Plan, Probe, TimeEstimate, plan
from gantoolkit.cost.step_cost import StageCost, StepCost, count_step, count_translations

__all__ = [
    "Bench",
    "Plan",
    "Probe",
    "Proposal",
    "Share",
    "StageCost",
    "StepCost",
    "TimeEstimate",
    "bench",
    "count_step",
    "count_translations",
    "plan",
]
