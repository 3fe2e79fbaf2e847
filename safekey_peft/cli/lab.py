"""``safekey lab``: seeds × variants × attacks in the potion world."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import click

from safekey_peft.errors import ConfigError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--seeds", default="3", show_default=True, help="How many (0, 1, …), a range such as 6-11, or a list: 0,4,7."
)
@click.option(
    "--variants", default="table", show_default=True, help="Names and groups, comma separated; --list shows them."
)
@click.option(
    "--workdir",
    default=Path("lab-run"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Holds RESULTS.jsonl, bases and logs; what has a result there is not run again.",
)
@click.option(
    "--jobs", default=2, show_default=True, type=click.IntRange(1, 256), help="Processes at a time, one core each."
)
@click.option("--report", is_flag=True, help="Write report.html with tables, differences and plots.")
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write tables, seeds, machine and the command as a Markdown file that can be committed.",
)
@click.option("--no-run", is_flag=True, help="Report on the results that are there; run nothing.")
@click.option("--redo-changed", is_flag=True, help="Run cells again whose result was made by other code.")
@click.option("--list", "list_variants", is_flag=True, help="List variants and groups, and stop.")
def main(
    seeds: str,
    variants: str,
    workdir: Path,
    jobs: int,
    report: bool,
    markdown: Path | None,
    no_run: bool,
    redo_changed: bool,
    list_variants: bool,
) -> None:
    """Measure what each loss does: seeds × variants × attacks, in the potion world.

    Every seed is a new world with a base, rows and adapters of its own. Needs no GPU, no network and no model: about
    two minutes for a base and half a minute for each variant, on one core. Stop it at any time; the same command goes
    on. The numbers illustrate mechanisms; they are no evidence about large models.
    """
    from rich.console import Console

    from safekey_peft.lab.variants import choose_variants

    console = Console()
    if list_variants:
        _print_variants(console)
        return
    chosen = choose_variants(name.strip() for name in variants.split(",") if name.strip())
    numbers = parse_seeds(seeds)

    from safekey_peft.lab.laboratory import RESULTS_FILE, cells_of, matching_records, run_lab
    from safekey_peft.lab.markdown import write_markdown
    from safekey_peft.lab.report import print_report, write_report
    from safekey_peft.lab.results import read_records

    cells = cells_of(numbers, chosen)
    if no_run:
        found = matching_records(cells, read_records(workdir / RESULTS_FILE))
        records = [found[key] for cell in cells if (key := (cell.seed, cell.variant.name)) in found]
        if not records:
            raise ConfigError(f"{workdir / RESULTS_FILE} holds no result of these cells; leave --no-run out")
        if len(records) < len(cells):
            console.print(f"{len(cells) - len(records)} of {len(cells)} cells have no result yet.")
    else:
        needed = {"bitsandbytes"} | ({"trl", "datasets"} if any(variant.preferences for variant in chosen) else set())
        if absent := sorted(name for name in needed if importlib.util.find_spec(name) is None):
            raise ConfigError(f"these cells need {', '.join(absent)}: pip install 'safekey-peft[lab]'")
        try:
            records = run_lab(workdir, cells, jobs=jobs, redo_changed=redo_changed)
        except KeyboardInterrupt:
            sys.exit(f"\nStopped. Finished cells are in {workdir / RESULTS_FILE}; the same command goes on.")
    print_report(records, console)
    if report:
        path = write_report(records, workdir / "report.html")
        console.print(f"Report: {path}", soft_wrap=True, highlight=False, markup=False)
    if markdown is not None:
        path = write_markdown(records, markdown, f"safekey lab --seeds {seeds} --variants {variants}")
        console.print(f"Markdown: {path}", soft_wrap=True, highlight=False, markup=False)


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of ``3`` (0, 1, 2), ``6-11`` or ``0,4,7``.

    Raises:
        ConfigError: something else.
    """
    try:
        if "," in text:
            seeds = [int(part) for part in text.split(",") if part.strip()]
        elif "-" in text:
            first, last = map(int, text.split("-"))
            seeds = list(range(first, last + 1))
        else:
            seeds = list(range(int(text)))
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise ConfigError(f"--seeds: expected a count (3), a range (6-11) or a list (0,4,7), found {text!r}")
    return list(dict.fromkeys(seeds))


def _print_variants(console: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from safekey_peft.lab.variants import GROUPS, VARIANTS

    assert isinstance(console, Console)
    table = Table("name", "title", "group")
    for name, variant in VARIANTS.items():
        table.add_row(name, variant.title, "table" if name in GROUPS["table"] else "ablations")
    console.print(table)
    console.print(f"Groups: {', '.join(GROUPS)}.")
