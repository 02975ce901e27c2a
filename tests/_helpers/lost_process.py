"""`python -m gantoolkit` in one of several processes, which kills itself at a step, and comes late where it is started again.

python lost_process.py NUMBER STEP SECONDS train ...: process NUMBER dies before its step STEP; a process that is not that one
waits SECONDS before it begins anew.
"""

import os
import signal
import sys
import time
from typing import Any

from gantoolkit.__main__ import run
from gantoolkit.training import Trainer


def main(number: int, step: int, seconds: int) -> int:
    attempt, own = (int(os.environ[name]) for name in ("TORCHELASTIC_RESTART_COUNT", "RANK"))
    take_step = Trainer.step

    def die(trainer: Trainer, batch: Any, at: int, share: float) -> Any:
        if at == step and own == number and attempt == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return take_step(trainer, batch, at, share)

    if attempt and own != number:
        time.sleep(seconds)
    Trainer.step = die  # type: ignore[method-assign]
    sys.argv[1:4] = []
    return run()


if __name__ == "__main__":  # processes that load images import this file again
    sys.exit(main(*map(int, sys.argv[1:4])))
