"""The exit codes of every command."""

__all__ = ["BAD_INPUT", "INCOMPLETE", "INTERNAL_ERROR", "INTERRUPTED", "SUCCESS", "TERMINATED", "exit_code_of"]

SUCCESS = 0
INTERNAL_ERROR = 1
"""An error in gantoolkit or in a plugin."""
BAD_INPUT = 2
"""Invalid input; the message states what is valid."""
INCOMPLETE = 3
"""Some files were skipped, a data set has problems, a block breaks a rule, or a row of an ablation failed."""
INTERRUPTED = 130
TERMINATED = 143

_BY_REASON = {"finished": SUCCESS, "stopped": SUCCESS, "SIGINT": INTERRUPTED, "SIGTERM": TERMINATED}


def exit_code_of(reason: str, *, is_incomplete: bool = False) -> int:
    """The exit code of a training run.

    Args:
        reason: Why it ended, as in `gantoolkit.training.RunEnded`.
        is_incomplete: Whether files were passed over. The code of a signal says more.
    """
    return _BY_REASON[reason] or (INCOMPLETE if is_incomplete else SUCCESS)
