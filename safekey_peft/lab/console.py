"""What the demo looks like while it runs: progress with remaining time, and libraries that keep quiet."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from safekey_peft.lab.remaining_time import RemainingTime

CHATTY_LOGGERS = ("torchao", "torch.utils._pytree", "bitsandbytes")
"""They warn about kernels for other machines as soon as they are imported."""
CHATTY_WARNING = "Skipping publisher trust check"
"""What bitsandbytes warns of when it may not look for a kernel on the Hub."""
SHOWN_EVERY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the demo that has a bar of its own.

    Attributes:
        kind: stages of one kind take about the same time.
        name: what the bar says.
    """

    kind: Literal["base", "train", "measure"]
    name: str


class DemoProgress:
    """A bar for the whole demo with the remaining time, and one for each stage that has begun.

    Args:
        progress: where the bars are.
        phases: what still has to be done, one after the other; within a phase stages run side by side.

    Attributes:
        seconds: what each finished stage took.
    """

    def __init__(self, progress: Progress, phases: Sequence[RemainingTime]) -> None:
        self.seconds: dict[str, float] = {}
        self._progress, self._phases = progress, phases
        self._stages: dict[str, tuple[Stage, RemainingTime]] = {
            stage.name: (stage, phase) for phase in phases for stage in phase.tasks
        }
        self._bars: dict[str, TaskID] = {}
        self._first_steps: dict[str, tuple[float, int]] = {}
        self._began, self._shown = time.monotonic(), 0.0
        self._all = progress.add_task("demo", total=1.0, count="", remark="")
        self.tick()

    def started(self, name: str) -> None:
        """Add a stage's bar."""
        stage, phase = self._stages[name]
        phase.began[stage] = time.monotonic()
        self._bars[name] = self._progress.add_task(name, total=None, count="", remark="starting")

    def step(self, name: str, done: int, planned: int, remark: str = "") -> None:
        """Move a stage's bar."""
        now = time.monotonic()
        if now - self._shown < SHOWN_EVERY_SECONDS and done < planned:
            return
        self._shown = now
        stage, phase = self._stages[name]
        since, first = self._first_steps.setdefault(name, (now, done))
        if done > first:
            phase.left[stage] = (now - since) / (done - first) * (planned - done)
            remark = f"{_span(phase.left[stage])} left  {remark}"
        self._progress.update(
            self._bars[name], completed=done, total=planned, count=f"{done}/{planned}", remark=remark
        )
        self.tick()

    def finished(self, name: str, remark: str = "done") -> None:
        """Complete a stage's bar; where the output is no terminal, print a line."""
        stage, phase = self._stages[name]
        seconds = self.seconds[name] = time.monotonic() - phase.began[stage]
        phase.seconds[stage.kind].append(seconds)
        phase.done.add(stage)
        bar = self._bars[name]
        self._progress.update(bar, completed=1, total=1, remark=remark)
        self._progress.stop_task(bar)
        if not self._progress.console.is_terminal:
            self._progress.console.print(f"{name}: {seconds:.0f} s, {self._left()}", highlight=False)
        self.tick()

    def tick(self) -> None:
        """Move the bar of the whole demo."""
        now = time.monotonic()
        elapsed, left = now - self._began, self._remaining(now)
        share = elapsed / (elapsed + left) if left else 1.0
        self._progress.update(self._all, completed=share, count=f"{share:.0%}", remark=self._left())

    def _remaining(self, now: float) -> float:
        return sum(phase.remaining(now) for phase in self._phases)

    def _left(self) -> str:
        return f"about {_span(self._remaining(time.monotonic()))} left"


def _span(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))


@contextmanager
def demo_progress(phases: Sequence[RemainingTime], console: Console) -> Iterator[DemoProgress]:
    """Show the progress of the demo."""
    columns = (
        TextColumn("{task.description:14}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[count]:>9}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        yield DemoProgress(progress, phases)


@contextmanager
def one_quiet_thread() -> Iterator[None]:
    """Keep torch on one thread and other libraries' bars and warnings off the screen.

    One thread, because the model is so small that a second one costs time, and much of it on a busy machine.
    """
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    import torch
    from transformers.utils import logging as transformers_logging

    threads = torch.get_num_threads()
    had_bars = transformers_logging.is_progress_bar_enabled()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=CHATTY_WARNING)
            yield
    finally:
        torch.set_num_threads(threads)
        if had_bars:
            transformers_logging.enable_progress_bar()
