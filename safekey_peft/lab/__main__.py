"""``python -m safekey_peft.lab``: run the demo."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from safekey_peft.errors import SafeKeyError
from safekey_peft.lab.tuning_set import TuningSizes


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", default=0, show_default=True, help="Of world, base, rows and adapters.")
@click.option(
    "--workdir",
    default=Path("demo-run"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is written; a base found there is used again.",
)
@click.option("--fresh", is_flag=True, help="Train the base anew.")
@click.option(
    "--harmless-wrapped",
    default=TuningSizes().harmless_wrapped,
    show_default=True,
    type=click.IntRange(min=0),
    help="Harmless rows in wrappers; they plant the shortcut 'a wrapper means comply'.",
)
def main(seed: int, workdir: Path, fresh: bool, harmless_wrapped: int) -> None:
    """Compare a helpful-only base with plain SFT, SafeKey, DeRTa and all four losses in the potion world.

    Trains the base, then four adapters with Axolotl, two at a time; minutes on two cores, without GPU, network or any
    model from elsewhere. Writes results.json and report.html. safekey lab does the same for many seeds.
    """
    from safekey_peft.lab.demo import run_demo

    try:
        run_demo(workdir, seed, fresh, harmless_wrapped)
    except SafeKeyError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped. A finished base is kept; what was not finished is not used again.")


if __name__ == "__main__":
    main(prog_name="python -m safekey_peft.lab")
