"""Score the trials of an ablation, several at once in processes of their own."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch

from gantoolkit.errors import GantoolkitError, first_line
from gantoolkit.evaluation.ablation.results import Ablation, MetricChoice
from gantoolkit.evaluation.ablation.trials import Trial
from gantoolkit.evaluation.scoring import RunScores
from gantoolkit.runtime.device import is_out_of_memory

__all__ = ["measure_trials"]


def measure_trials(
    ablation: Ablation,
    trials: Sequence[Trial],
    choice: MetricChoice,
    *,
    devices: Sequence[str],
    jobs: int,
    threads: int,
    report: Callable[[Trial, str], None] = lambda trial, problem: None,
) -> list[RunScores]:
    """Score trials, or read their scores from disk. A trial that cannot be scored does not stop the others.

    Args:
        ablation: Where the scores are written.
        trials: Trials that have saved generators.
        choice: The metrics.
        devices: The devices, which the processes share.
        jobs: The number of processes, as many as trained the trials; with one, this process does the work.
        threads: Threads of each process.
        report: Called with a trial that was scored and an empty text, or with the reason why it was not.

    Returns:
        The scores of each trial that has some.
    """
    scores: list[RunScores] = []
    if jobs == 1:
        for trial in trials:
            try:
                scores.append(ablation.measure(trial, choice, device=devices[0]))
            except (GantoolkitError, RuntimeError, MemoryError) as error:
                report(trial, _explain(error))
            else:
                report(trial, "")
        return scores
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(trials) or 1), context, _initialize, (threads,)) as pool:
        try:
            futures = {
                pool.submit(ablation.measure, trial, choice, device=devices[number % len(devices)], jobs=jobs): trial
                for number, trial in enumerate(trials)
            }
            for future in as_completed(futures):
                try:
                    scores.append(future.result())
                except (GantoolkitError, BrokenProcessPool, RuntimeError, MemoryError) as error:
                    report(futures[future], _explain(error))
                else:
                    report(futures[future], "")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return scores


def _explain(error: Exception) -> str:
    """The message of an error that concerns one trial; other errors are raised.

    Raises:
        RuntimeError: When the error is not about memory, but a fault.
    """
    if isinstance(error, GantoolkitError | BrokenProcessPool):
        return str(error)
    if is_out_of_memory(error):
        return f"there is not enough memory to score it ({first_line(error)}); call again, or use fewer jobs"
    raise error


def _initialize(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the command, which stops its processes
    torch.set_num_threads(threads)
