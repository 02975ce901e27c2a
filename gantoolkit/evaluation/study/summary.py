"""Results of a study: the share of trials in which participants took a fake for real, by algorithm."""

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

__all__ = ["AlgorithmResult", "summarize_study", "write_summary"]

_MIN_PARTICIPANTS = 5
"""The smallest number of participants for a bootstrap over participants."""
_TEMPLATES = jinja2.Environment(loader=jinja2.PackageLoader("gantoolkit.evaluation.study"), autoescape=True)


@dataclass(frozen=True)
class AlgorithmResult:
    """The result of one algorithm.

    Args:
        algorithm: The name of the algorithm.
        participants: Participants who finished their session; only their trials count.
        unfinished: Participants who did not finish.
        trials: Counted trials of the participants who finished.
        fooled: Trials in which the fake was taken for real.
        share: The proportion of these trials, with a 95 % interval.
        interval: The kind of interval. `participants`: a bootstrap over participants, whose answers are correlated; `trials`:
            Wilson's score interval, which treats trials as independent, if there are fewer than five participants.
        seconds: Median response time.
        void: Trials that were shown but not answered.
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


def summarize_study(database: Path) -> list[AlgorithmResult]:
    """Compute the result of each algorithm from a study's database, which may be in use.

    Raises:
        DataError: If the database cannot be read.
    """
    protocol, rows = read_trials(database)
    results: list[AlgorithmResult] = []
    for algorithm in protocol["algorithms"]:
        trials = [row for row in rows if row["algorithm"] == algorithm]
        participants = {row["participant"] for row in trials}
        finished = sorted({row["participant"] for row in trials if row["finished"]})
        counted = [row for row in trials if row["finished"] and row["state"] == "answered" and not row["practice"]]
        hits = {participant: [0, 0] for participant in finished}  # trials in which the fake was chosen, and all trials
        for row in counted:
            hits[row["participant"]][0] += row["answer"] != row["real_side"]
            hits[row["participant"]][1] += 1
        fooled = sum(hit for hit, _ in hits.values())
        use_bootstrap = len(finished) >= _MIN_PARTICIPANTS
        if use_bootstrap:
            counts = torch.tensor(list(hits.values()), dtype=torch.float64)
            share = bootstrap(counts, lambda sums: {"share": float(sums[0] / sums[1])})["share"]
        else:
            share = wilson(fooled, len(counted))
        times = sorted(row["milliseconds"] for row in counted)
        results.append(
            AlgorithmResult(
                algorithm,
                len(finished),
                len(participants) - len(finished),
                len(counted),
                fooled,
                share,
                "participants" if use_bootstrap else "trials",
                times[len(times) // 2] / 1000 if times else None,
                sum(row["state"] == "void" for row in trials),
            )
        )
    return results


def write_summary(database: Path, out: Path) -> list[Path]:
    """Write `study.csv`, `study.json`, `trials.csv` (every trial) and `study.html` with a chart.

    Raises:
        DataError: If the database cannot be read or a file cannot be written.
    """
    protocol, rows = read_trials(database)
    results = summarize_study(database)
    files = [out / name for name in ("study.csv", "study.json", "trials.csv", "study.html")]
    plain = []
    for result in results:
        fields = asdict(result)
        del fields["share"]
        plain.append({**fields, **_percent(result.share)})
    write_csv(files[0], plain)
    write_json(files[1], {"protocol": protocol, "algorithms": plain})
    write_csv(files[2], [row for row in rows if row["number"] is not None])
    page = _TEMPLATES.get_template("summary.html.j2").render(
        protocol=protocol,
        results=results,
        chart=_draw_chart([result for result in results if result.trials]),
        version=__version__,
    )
    write_text(files[3], page)
    return files


def _percent(share: Estimate) -> dict[str, float | None]:
    if share.value != share.value:  # NaN: no answers yet
        return {"percent": None, "low": None, "high": None}
    return {"percent": 100 * share.value, "low": 100 * (share.low or 0.0), "high": 100 * (share.high or 0.0)}


def _draw_chart(results: Sequence[AlgorithmResult]) -> str:
    """Draw the shares with their intervals as SVG; an empty string if there are no results."""
    if not results:
        return ""
    from matplotlib.figure import Figure as Chart  # takes half a second to import

    chart = Chart(figsize=(7.5, 0.8 + 0.5 * len(results)), layout="constrained")
    axes = chart.subplots()
    for row, result in enumerate(reversed(results)):
        percent = _percent(result.share)
        middle, low, high = (percent[key] or 0.0 for key in ("percent", "low", "high"))
        axes.barh(row, middle, height=0.6, color="#8fb8de")
        errors = [[max(0.0, middle - low)], [max(0.0, high - middle)]]  # rounding must not make them negative
        axes.errorbar(middle, row, xerr=errors, color="#1c1c1c", capsize=4)
    axes.axvline(50, color="#767676", ls="--", lw=1)
    axes.text(50, len(results) - 0.45, " chance level", color="#595959", fontsize=8, va="bottom")
    axes.set_yticks(range(len(results)), [result.algorithm for result in reversed(results)])
    axes.set(xlim=(0, 100), ylim=(-0.5, len(results)), xlabel="fakes taken for real (% of trials)")
    stream = io.StringIO()
    chart.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()[stream.getvalue().index("<svg") :]
