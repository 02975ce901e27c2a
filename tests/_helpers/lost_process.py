"""`python -m gantoolkit` in one of several processes, one of which kills itself at a step.

python lost_process.py RANK STEP SECONDS train ...: the process of rank RANK dies before step STEP. After the restart, the other
processes wait SECONDS before they begin.
"""

import os
import signal
import sys
import time
from typing import Any

from gantoolkit.__main__ import run
from gantoolkit.training import Trainer


def main(lost_rank: int, lost_step: int, seconds: int) -> int:
    restarts, rank = (int(os.environ[name]) for name in ("TORCHELASTIC_RESTART_COUNT", "RANK"))
    take_step = Trainer.step

    def step_or_die(trainer: Trainer, batch: Any, step: int, share: float) -> Any:
        if step == lost_step and rank == lost_rank and restarts == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return take_step(trainer, batch, step, share)

    if restarts and rank != lost_rank:
        time.sleep(seconds)
    Trainer.step = step_or_die  # type: ignore[method-assign]
    sys.argv[1:4] = []
    return run()


if __name__ == "__main__":  # worker processes import this file again
    sys.exit(main(*map(int, sys.argv[1:4])))
