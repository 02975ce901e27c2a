"""What came out of a study: the share of trials in which a fake was taken for real, by algorithm."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2
import torch

from gantoolkit.evaluation.intervals import Estimate, bootstrap, wilson
from gantoolkit.evaluation.study.store import read_trials
from gantoolkit.files.text import write_csv, write_json, write_text
from gantoolkit.runtime.version import __version__

__all__ = ["Fooled", "summarize_study", "write_summary"]

_FEW = 5
_TEMPLATES = jinja2.Environment(loader=jinja2.PackageLoader("gantoolkit.evaluation.study"), autoescape=True)


@dataclass(frozen=True)
class Fooled:
    """One algorithm's result.

    Args:
        algorithm: Its name.
        participants: Who finished their session, and so count.
        unfinished: Who did not, and do not.
        trials: Counted trials of those who finished.
        fooled: Trials in which the fake was taken for real.
        share: Of these, with a 95 % interval.
        interval: How that was made. `participants`: a bootstrap over people, whose answers hang together; `trials`: Wilson's
            score interval, as if each trial were another person's, where there are too few people to draw from.
        seconds: Median time to an answer.
        void: Trials that were shown and left without an answer.
    """

    algorithm: str
    participants: int
    unfinished: int
    trials: int
    fooled: int
    share: Estimate
    interval: str
    seconds: float | None
    void: int


def summarize_study(database: Path) -> list[Fooled]:
    """Read a study's file, which may be in use.

    Raises:
        DataError: When it cannot be read.
    """
    about, rows = read_trials(database)
    found: list[Fooled] = []
    for algorithm in about["algorithms"]:
        mine = [row for row in rows if row["algorithm"] == algorithm]
        people = {row["participant"] for row in mine}
        finished = sorted({row["participant"] for row in mine if row["finished"]})
        counted = [row for row in mine if row["finished"] and row["state"] == "answered" and not row["practice"]]
        hits = {person: [0, 0] for person in finished}
        for row in counted:
            hits[row["participant"]][0] += row["answer"] != row["real_side"]
            hits[row["participant"]][1] += 1
        fooled = sum(hit for hit, _ in hits.values())
        many = len(finished) >= _FEW
        if many:
            sums = torch.tensor(list(hits.values()), dtype=torch.float64)
            share = bootstrap(sums, lambda each: {"share": float(each[0] / each[1])})["share"]
        else:
            share = wilson(fooled, len(counted))
        times = sorted(row["milliseconds"] for row in counted)
        found.append(
            Fooled(
                algorithm,
                len(finished),
                len(people) - len(finished),
                len(counted),
                fooled,
                share,
                "participants" if many else "trials",
                times[len(times) // 2] / 1000 if times else None,
                sum(row["state"] == "void" for row in mine),
            )
        )
    return found


def write_summary(database: Path, out: Path) -> list[Path]:
    """Write `study.csv`, `study.json`, `trials.csv` (every trial) and `study.html` with a chart.

    Raises:
        DataError: When the study cannot be read, or the files not be written.
    """
    about, rows = read_trials(database)
    found = summarize_study(database)
    files = [out / name for name in ("study.csv", "study.json", "trials.csv", "study.html")]
    plain = [{**asdict(each), "share": None, **_percent(each.share)} for each in found]
    plain = [{key: value for key, value in row.items() if key != "share"} for row in plain]
    write_csv(files[0], plain)
    write_json(files[1], {"protocol": about, "algorithms": plain})
    write_csv(files[2], [row for row in rows if row["number"] is not None])
    page = _TEMPLATES.get_template("summary.html.j2").render(
        about=about, found=found, chart=_draw([each for each in found if each.trials]), version=__version__
    )
    write_text(files[3], page)
    return files


def _percent(share: Estimate) -> dict[str, float | None]:
    if share.value != share.value:  # nobody has answered yet
        return {"percent": None, "low": None, "high": None}
    return {"percent": 100 * share.value, "low": 100 * (share.low or 0.0), "high": 100 * (share.high or 0.0)}


def _draw(found: Sequence[Fooled]) -> str:
    """Shares with their intervals, as SVG; nothing where nobody has finished."""
    if not found:
        return ""
    from matplotlib.figure import Figure as Drawing  # imported when used: it takes half a second

    drawing = Drawing(figsize=(7.5, 0.8 + 0.5 * len(found)), layout="constrained")
    axes = drawing.subplots()
    for place, each in enumerate(reversed(found)):
        figures = _percent(each.share)
        middle, low, high = (figures[key] or 0.0 for key in ("percent", "low", "high"))
        axes.barh(place, middle, height=0.6, color="#8fb8de")
        reach = [[max(0.0, middle - low)], [max(0.0, high - middle)]]  # never below 0 by a rounding error
        axes.errorbar(middle, place, xerr=reach, color="#1c1c1c", capsize=4)
    axes.axvline(50, color="#767676", ls="--", lw=1)
    axes.text(50, len(found) - 0.45, " cannot be told from real ones", color="#595959", fontsize=8, va="bottom")
    axes.set_yticks(range(len(found)), [each.algorithm for each in reversed(found)])
    axes.set(xlim=(0, 100), ylim=(-0.5, len(found)), xlabel="fakes taken for real, in % of trials")
    stream = io.StringIO()
    drawing.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()[stream.getvalue().index("<svg") :]
