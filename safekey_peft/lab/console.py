"""What the demo looks like while it runs: progress bars, and libraries that keep quiet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from safekey_peft.lab.base_model import OnStep

CHATTY_LOGGERS = ("torchao", "torch.utils._pytree")
"""They warn about kernels for other machines as soon as they are imported."""


@contextmanager
def progress_bars(console: Console) -> Iterator[Callable[[str], OnStep]]:
    """Show bars with elapsed and remaining time.

    Yields: a function that adds a bar with a title and returns what to call after each step.
    """
    columns = (
        TextColumn("{task.description:22}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:.0f}/{task.fields[planned]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=console) as progress:

        def add_bar(title: str) -> OnStep:
            task = progress.add_task(title, total=None, planned="…", remark="starting")

            def report(done: int, planned: int, remark: str) -> None:
                progress.update(task, completed=done, total=planned, planned=planned, remark=remark)

            return report

        yield add_bar


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
        yield
    finally:
        torch.set_num_threads(threads)
        if had_bars:
            transformers_logging.enable_progress_bar()
