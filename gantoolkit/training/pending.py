"""Steps that were launched on the device and whose results the host has not read yet."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gantoolkit.data.notes import Note
from gantoolkit.training.state import RunState
from gantoolkit.training.trainer import StepResult

__all__ = ["MAX_BAD_STEPS", "PendingStep", "PendingSteps"]

MAX_BAD_STEPS = 10
"""Non-finite steps in a row before the run is rolled back to its last checkpoint; the next time, it stops."""

_CUDA_LAG = 2
"""Steps that the host may run ahead of CUDA. No non-finite value reaches a weight meanwhile."""


@dataclass(frozen=True)
class PendingStep:
    """A launched step.

    Args:
        step: Its number, from 1.
        result: Waits for the device when it is read.
        bad_files: Files that could not be read for it, with the reason.
        notes: The notes on the files that were read for it.
    """

    step: int
    result: StepResult
    bad_files: dict[str, str]
    notes: dict[str, tuple[Note, ...]]


class PendingSteps:
    """A queue of launched steps, which are settled in order: their losses are counted, or they are counted as skipped.

    Args:
        state: Counts losses and skipped steps.
        on_settled: Called with each settled step, and with the phase that was skipped, if any.
        is_cuda: Whether steps run asynchronously.
    """

    def __init__(
        self, state: RunState, on_settled: Callable[[PendingStep, str | None], None], *, is_cuda: bool
    ) -> None:
        self.state, self.on_settled = state, on_settled
        self.lag = _CUDA_LAG if is_cuda else 0
        self.bad_in_a_row = 0
        self._queue: deque[PendingStep] = deque()

    def clear(self) -> None:
        """Forget all steps."""
        self._queue.clear()
        self.bad_in_a_row = 0

    def add(self, pending: PendingStep) -> None:
        """Append a step."""
        self._queue.append(pending)

    def settle(self, *, all_steps: bool) -> str:
        """Settle the steps that the host need not lag behind, or all; the problem if too many in a row were non-finite."""
        while len(self._queue) > (0 if all_steps else self.lag):
            pending = self._queue.popleft()
            skipped = pending.result.skipped
            if skipped is None:
                self.bad_in_a_row = 0
                self.state.add_losses(pending.result.losses)
            else:
                self.bad_in_a_row += 1
                self.state.progress.skipped_steps += 1
                if self.bad_in_a_row == MAX_BAD_STEPS:
                    return f"losses or gradients were not finite in {MAX_BAD_STEPS} steps in a row"
            self.on_settled(pending, skipped)
        return ""
