"""How long a run still takes, from what its parts took so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

FIRST_GUESS_SECONDS: Mapping[str, float] = {"base": 150.0, "cell": 35.0, "train": 50.0, "measure": 6.0}
"""Seconds of each kind of task on one core, until the first of its kind is done."""


class Task(Protocol):
    """A part of a run; equal parts count once."""

    @property
    def kind(self) -> Any:
        """Tasks of one kind are expected to take the same time."""


@dataclass
class RemainingTime:
    """Estimates how long the tasks still take, from those that are done.

    Attributes:
        tasks: all tasks of the run.
        jobs: processes at a time.
        seconds: what finished tasks took, by kind.
        began: start of each running task, in seconds of the same clock as ``now``.
        left: seconds that a running task still takes, where its steps tell.
        done: tasks that are finished.
    """

    tasks: Sequence[Any]
    jobs: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in FIRST_GUESS_SECONDS})
    began: dict[Any, float] = field(default_factory=dict)
    left: dict[Any, float] = field(default_factory=dict)
    done: set[Any] = field(default_factory=set)

    def expected(self, kind: str) -> float:
        """Return the mean of the finished tasks of a kind, or a guess before the first."""
        taken = self.seconds[kind]
        return sum(taken) / len(taken) if taken else FIRST_GUESS_SECONDS[kind]

    def remaining(self, now: float) -> float:
        """Return seconds until the last task ends, if all cores are kept busy."""
        left = []
        for task in self.tasks:
            if task in self.left and task not in self.done:
                left.append(self.left[task])
            elif task not in self.done:
                elapsed = now - self.began[task] if task in self.began else 0.0
                left.append(max(self.expected(task.kind) - elapsed, 1.0))
        return max(sum(left) / self.jobs, max(left, default=0.0))
