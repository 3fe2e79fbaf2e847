"""Child processes side by side: their logs, their progress, their errors, and that none outlives its parent.

Each child leads a process group of its own, so that an interruption from the keyboard reaches this process alone,
which then ends them all. If this process is killed, ``seeded_run`` in the child sees it.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from safekey_peft.errors import SafeKeyError

CHILD_ENVIRONMENT: Mapping[str, str] = {
    "CUDA_VISIBLE_DEVICES": "",  # the same run on every machine
    "OMP_NUM_THREADS": "1",  # a second thread costs this small model more than it gives
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "AXOLOTL_DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

# The trainer's own bar stands at the start of a line; other bars have a title before the percentage.
TRAINER_BAR = re.compile(rb"(?:^|[\r\n])\s*\d+%\|[^|\r\n]*\| (\d+)/(\d+) \[")
ANY_BAR = re.compile(r"\d+%\|.*\| \d+/\d+ \[")
KEPT_BYTES = 500
TAIL_LINES = 15
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Child:
    """A command to run.

    Attributes:
        name: for progress.
        command: program and arguments.
        shown: the command as an error names it.
        log: file for all that it prints.
    """

    name: str
    command: tuple[str, ...]
    shown: str
    log: Path


class ChildWatcher(Protocol):
    """Is told what happens, by the names of the children."""

    def started(self, name: str) -> None:
        """A child has begun."""

    def step(self, name: str, done: int, planned: int) -> None:
        """A child's trainer has got on."""

    def finished(self, name: str) -> None:
        """A child is done."""

    def tick(self) -> None:
        """Some time has passed."""


class _Running:
    def __init__(self, child: Child) -> None:
        self.child = child
        self.seen = b""
        self.log: IO[bytes] = child.log.open("wb")
        self.process = subprocess.Popen(
            child.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **CHILD_ENVIRONMENT},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout

    def read(self) -> bytes:
        """Return what the child has printed, empty at its end; all of it goes to the log."""
        chunk = os.read(self.output.fileno(), 1 << 16)
        self.log.write(chunk)
        self.log.flush()
        self.seen = self.seen[-KEPT_BYTES:] + chunk
        return chunk

    def stop(self) -> None:
        """End the child and all that it started, unless it has ended, and close its log."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.output.close()
        self.log.close()


def run_children(children: Sequence[Child], jobs: int, watcher: ChildWatcher) -> None:
    """Run all, ``jobs`` at a time, in their order.

    Raises:
        SafeKeyError: one failed, and the others were ended; the message holds the end of its log and the log's path.
    """
    waiting = list(children)
    running: list[_Running] = []
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    with _interruptions_later():
                        begun = _Running(waiting.pop(0))
                        running.append(begun)
                    selector.register(begun.output, selectors.EVENT_READ, begun)
                    watcher.started(begun.child.name)
                for key, _ in selector.select(POLL_SECONDS):
                    one: _Running = key.data
                    if one.read():
                        if steps := TRAINER_BAR.findall(one.seen):
                            watcher.step(one.child.name, *map(int, steps[-1]))
                        continue
                    selector.unregister(one.output)
                    _require_success(one.child, one.process.wait())
                    running.remove(one)
                    one.stop()
                    watcher.finished(one.child.name)
                watcher.tick()
        finally:
            for one in running:
                one.stop()


@contextlib.contextmanager
def _interruptions_later() -> Iterator[None]:
    """Hold back an interruption: between a child's start and its place in the list nobody would end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _require_success(child: Child, status: int) -> None:
    if status == 0:
        return
    ended = f"exit status {status}"
    if status < 0:
        ended = f"signal {-status} ({signal.strsignal(-status)})"
        if -status == signal.SIGKILL:
            ended += ", as where memory is short"
    raise SafeKeyError(
        f"{child.shown} ended with {ended}. The end of its log:\n{tail(child.log)}\nThe whole log: {child.log}"
    )


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log, without progress bars and blank lines."""
    text = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    kept = [line for line in text.splitlines() if line.strip() and not ANY_BAR.search(line)]
    return "\n".join(f"  | {line}" for line in kept[-lines:])


@contextlib.contextmanager
def child_environment() -> Iterator[None]:
    """Set here what children are given: to be in place before libraries are imported, which read most of it then."""
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in CHILD_ENVIRONMENT}
    os.environ.update(CHILD_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
