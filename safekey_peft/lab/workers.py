"""Cells side by side, each in a process of its own, forked from a server that has the libraries loaded.

A worker writes nothing but bases (renamed into place when whole) and its log; results are written by the one
process that started all, line by line. So a kill at any moment costs the unfinished cells only.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, Protocol

from safekey_peft.errors import SafeKeyError
from safekey_peft.lab.children import child_environment, tail
from safekey_peft.lab.experiment import Cell
from safekey_peft.lab.results import Record

PRELOADED = ["safekey_peft.lab.preloaded"]
POLL_SECONDS = 0.2

Kind = Literal["base", "cell"]


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A base to train, or a cell to run once its base is there."""

    kind: Kind
    cell: Cell

    @property
    def name(self) -> str:
        """How progress names it."""
        return f"seed {self.cell.seed}, base model" if self.kind == "base" else self.cell.name


class Watcher(Protocol):
    """Is told what happens; see ``lab_progress``."""

    def started(self, task: Task) -> None:
        """A worker has begun."""

    def step(self, task: Task, doing: str, done: int, planned: int) -> None:
        """A worker has got on."""

    def finished(self, task: Task, seconds: float) -> None:
        """A worker is done."""


@dataclass(slots=True)
class _Running:
    task: Task
    process: Any
    started: float


def tasks_of(cells: Sequence[Cell], workdir: Path) -> list[Task]:
    """Return what has to be done for some cells: each missing base before the first cell that needs it."""
    tasks: list[Task] = []
    bases: set[Path] = set()
    for cell in sorted(cells, key=lambda cell: cell.seed):
        path = cell.base_path(workdir)
        if path not in bases and not path.is_dir():
            tasks.append(Task("base", cell))
        bases.add(path)
        tasks.append(Task("cell", cell))
    return tasks


def run_tasks(
    tasks: Sequence[Task], workdir: Path, jobs: int, watcher: Watcher, on_record: Callable[[Record], None]
) -> None:
    """Run tasks, ``jobs`` at a time; cells wait for the base of their seed.

    Args:
        tasks: from ``tasks_of``.
        workdir: holds bases and logs.
        jobs: processes at a time.
        watcher: told about the progress.
        on_record: given each finished cell's record as soon as it is there.

    Raises:
        SafeKeyError: a worker failed; the others are stopped.
    """
    waiting = list(tasks)
    running: dict[Connection, _Running] = {}
    with child_environment():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        try:
            while waiting or running:
                while len(running) < jobs and (task := _next_ready(waiting, workdir)):
                    waiting.remove(task)
                    ours, theirs = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(task, workdir, theirs), daemon=True)
                    process.start()
                    theirs.close()
                    running[ours] = _Running(task, process, time.monotonic())
                    watcher.started(task)
                for ready in wait(list(running), timeout=POLL_SECONDS):
                    _receive(ready, running, workdir, watcher, on_record)
        finally:
            for worker in running.values():
                worker.process.kill()
            for worker in running.values():
                worker.process.join()


def _next_ready(waiting: Sequence[Task], workdir: Path) -> Task | None:
    # A base that is being trained is not in its place yet, so its cells wait.
    return next((task for task in waiting if task.kind == "base" or task.cell.base_path(workdir).is_dir()), None)


def _receive(
    ready: Any,
    running: dict[Connection, _Running],
    workdir: Path,
    watcher: Watcher,
    on_record: Callable[[Record], None],
) -> None:
    worker = running[ready]
    try:
        message = ready.recv()
    except EOFError:
        message = ("error", "")
    kind = message[0]
    if kind == "step":
        watcher.step(worker.task, *message[1:])
        return
    worker.process.join()
    del running[ready]
    ready.close()
    if kind == "error":
        log = log_path(workdir, worker.task)
        text = message[1] or f"the process ended with exit status {worker.process.exitcode}"
        raise SafeKeyError(f"{worker.task.name}: {text}\nThe end of its log:\n{tail(log)}\nThe whole log: {log}")
    if worker.task.kind == "cell":
        on_record(message[1])
    watcher.finished(worker.task, time.monotonic() - worker.started)


def log_path(workdir: Path, task: Task) -> Path:
    """Return where a worker's output goes."""
    name = "base" if task.kind == "base" else task.cell.variant.name
    return workdir / "logs" / f"seed-{task.cell.seed}-{name}.log"


def _work(task: Task, workdir: Path, connection: Connection) -> None:
    """Do one task in this process."""
    from safekey_peft.lab.console import one_quiet_thread
    from safekey_peft.lab.experiment import run_cell, train_base

    server = os.getppid()
    _redirect_output(log_path(workdir, task))

    def report(doing: str, done: int, planned: int) -> None:
        if os.getppid() != server:
            os._exit(1)  # who would write the result was killed
        connection.send(("step", doing, done, planned))

    try:
        with one_quiet_thread():
            if task.kind == "base":
                train_base(task.cell, workdir, report)
                connection.send(("done",))
            else:
                connection.send(("record", run_cell(task.cell, workdir, report)))
    except SafeKeyError as error:
        connection.send(("error", str(error)))
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:  # whatever it is, it has to reach the user, with the log's path
        traceback.print_exc()
        connection.send(("error", f"{type(error).__name__}: {error}"))


def _redirect_output(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
