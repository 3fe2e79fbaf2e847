"""Run a module as a program, seeded: ``python -m safekey_peft.lab.seeded_run SEED MODULE …``.

Axolotl draws an adapter's weights before it seeds anything, and with all switches off our plugin changes
nothing about that. The demo should give the same table twice, so its runs are seeded from outside.
"""

from __future__ import annotations

import runpy
import sys


def main() -> None:
    """Seed, and hand over to the module named on the command line."""
    from transformers import set_seed

    _, seed, module, *arguments = sys.argv
    set_seed(int(seed))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
