"""Seeds × variants: what is there, what is missing, and the run that fills the gap."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from safekey_peft.lab.experiment import Cell, LabSizes, code_digest
from safekey_peft.lab.machine import machine_facts
from safekey_peft.lab.remaining_time import RemainingTime
from safekey_peft.lab.results import Record, append_record, latest, read_records
from safekey_peft.lab.variants import Variant
from safekey_peft.lab.workers import Task, run_tasks, tasks_of

RESULTS_FILE = "RESULTS.jsonl"
SHOWN_EVERY_SECONDS = 0.2


def cells_of(seeds: Sequence[int], variants: Sequence[Variant], sizes: LabSizes | None = None) -> list[Cell]:
    """Return every combination, seed by seed."""
    return [Cell(seed, variant, sizes or LabSizes()) for seed in seeds for variant in variants]


def matching_records(cells: Sequence[Cell], records: Sequence[Record]) -> dict[tuple[int, str], Record]:
    """Return the last record of each cell that was made with the cell's own configuration."""
    digests = {(cell.seed, cell.variant.name): cell.digest() for cell in cells}
    return latest(r for r in records if digests.get((r["seed"], r["variant"])) == r["digest"])


def run_lab(
    workdir: Path, cells: Sequence[Cell], *, jobs: int = 2, redo_changed: bool = False, console: Console | None = None
) -> list[Record]:
    """Run the cells that have no result yet.

    Args:
        workdir: holds bases, logs and ``RESULTS.jsonl``.
        cells: what is wanted.
        jobs: processes at a time.
        redo_changed: run cells again whose result was made by other code of the package.
        console: where progress is shown; default: stderr.

    Returns: one record per cell, those of earlier runs included.

    Raises:
        SafeKeyError: a cell failed; finished ones are kept.
    """
    console = console or Console(stderr=True)
    workdir = workdir.resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    results = workdir / RESULTS_FILE
    code = code_digest()
    found = matching_records(cells, read_records(results))
    other = [key for key, record in found.items() if record["code"] != code]
    if other and redo_changed:
        found = {key: record for key, record in found.items() if key not in other}
    elif other:
        console.print(
            f"{len(other)} results were made by other code of this package; --redo-changed runs them again.",
            highlight=False,
        )
    missing = [cell for cell in cells if (cell.seed, cell.variant.name) not in found]
    if found:
        console.print(f"{len(found)} of {len(cells)} cells have a result in {results}.", highlight=False)
    if missing:
        tasks = tasks_of(missing, workdir)
        started, machine = time.time(), machine_facts()

        def keep(record: Record) -> None:
            run = {"run_started": round(started), "run": round(time.time() - started, 1), "jobs": jobs}
            seconds = {**record["seconds"], **run}
            append_record(results, {**record, "code": code, "machine": machine, "seconds": seconds})

        with progress_of(tasks, len(cells), len(found), jobs, console) as watcher:
            # Workers run the code as it was at the start, whatever is edited meanwhile.
            run_tasks(tasks, workdir, jobs, watcher, keep)
    records = matching_records(cells, read_records(results))
    return [records[cell.seed, cell.variant.name] for cell in cells]


class LabProgress:
    """One bar for all cells with the remaining time, and one for each running task."""

    def __init__(self, progress: Progress, estimate: RemainingTime, total: int, done: int) -> None:
        self._progress, self._estimate = progress, estimate
        self._bars: dict[Task, TaskID] = {}
        self._shown = 0.0
        self._all = progress.add_task("cells", total=total, completed=done, remark="")
        self._show_remaining()

    def started(self, task: Task) -> None:
        """Add a bar."""
        self._estimate.began[task] = time.monotonic()
        self._bars[task] = self._progress.add_task(task.name, total=None, remark="starting")

    def step(self, task: Task, doing: str, done: int, planned: int) -> None:
        """Move a bar."""
        now = time.monotonic()
        if now - self._shown < SHOWN_EVERY_SECONDS and done < planned:
            return
        self._shown = now
        self._progress.update(self._bars[task], completed=done, total=planned, remark=doing)
        self._show_remaining()

    def finished(self, task: Task, seconds: float) -> None:
        """Remove a bar and count."""
        self._estimate.seconds[task.kind].append(seconds)
        self._estimate.done.add(task)
        self._progress.remove_task(self._bars.pop(task))
        if task.kind == "cell":
            self._progress.advance(self._all)
            if not self._progress.console.is_terminal:
                self._progress.console.print(f"{task.name}: {seconds:.0f} s, {self._left()}", highlight=False)
        self._show_remaining()

    def _left(self) -> str:
        return f"about {timedelta(seconds=round(self._estimate.remaining(time.monotonic())))} left"

    def _show_remaining(self) -> None:
        self._progress.update(self._all, remark=self._left())


@contextmanager
def progress_of(tasks: Sequence[Task], total: int, done: int, jobs: int, console: Console) -> Iterator[LabProgress]:
    """Show progress; where the output is no terminal, a line for each finished cell."""
    columns = (
        TextColumn("{task.description:26}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield LabProgress(progress, RemainingTime(tasks, jobs), total, done)


