"""Survey of a data set: statistics of its images, and problems such as duplicates, unreadable files and unequal pairs."""

from gantoolkit.data.survey.problems import Problem, find_notes, find_problems
from gantoolkit.data.survey.reading import DomainSurvey, Survey, survey
from gantoolkit.data.survey.sheet import describe_sizes, draw_contact_sheet

__all__ = [
    "DomainSurvey",
    "Problem",
    "Survey",
    "describe_sizes",
    "draw_contact_sheet",
    "find_notes",
    "find_problems",
    "survey",
]
