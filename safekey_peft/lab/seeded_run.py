"""Run a module as a program, seeded: ``python -m safekey_peft.lab.seeded_run SEED MODULE …``.

Axolotl draws an adapter's weights before it seeds anything, and with all switches off our plugin changes
nothing about that. The demo should give the same table twice, so its runs are seeded from outside.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

POLL_SECONDS = 0.5


def main() -> None:
    """Seed, and hand over to the module named on the command line."""
    threading.Thread(target=_end_without, args=(os.getppid(),), daemon=True).start()
    from transformers import set_seed

    _, seed, module, *arguments = sys.argv
    set_seed(int(seed))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_without(parent: int) -> None:
    """End this process, and its group if it leads one, once its parent is gone: nobody would read what it writes.

    A demo that is killed and started again would otherwise write to the same folders as its own leftovers.
    """
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
