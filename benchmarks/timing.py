"""Process CPU time per optimizer step, variants interleaved in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.examples import MicroBatch, build_micro_batch
from benchmarks.lengths import RowLengths

Advance = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step.

    Attributes:
        variant: what ran.
        round: rounds count batches × repeats; a ratio compares steps of one round.
        batch: which batch.
        cpu_seconds: user and system time of the whole process, all threads.
        wall_seconds: on a shared machine of little meaning.
        loss: of the step.
    """

    variant: str
    round: int
    batch: int
    cpu_seconds: float
    wall_seconds: float
    loss: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio over rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"


def time_variants(
    bench: Any, batches: Sequence[MicroBatch], vocabulary: int, plan: Sequence[Sequence[str]], advance: Advance
) -> list[StepTime]:
    """Run rounds of steps: A B C …, then from B on, and so on, each round on one batch.

    Args:
        bench: a ``Workbench``.
        batches: taken in turn.
        vocabulary: of the warm-up's random ids.
        plan: the variants of each round.
        advance: told the name of each step before it starts.
    """
    warm_up = build_micro_batch([RowLengths(4, 3, 2, 8)] * 2, vocabulary, seed=0)
    for variant in dict.fromkeys(name for names in plan for name in names):
        bench.step(variant, warm_up)
    times = []
    for number, names in enumerate(plan):
        place = number % len(batches)
        turn = number % len(names)
        for variant in [*names[turn:], *names[:turn]]:
            advance(variant)
            wall, cpu = time.perf_counter(), time.process_time()
            loss = bench.step(variant, batches[place])
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            times.append(StepTime(variant, number, place, cpu, wall, loss))
    return times


def ratio(times: Sequence[StepTime], above: str, below: str) -> Ratio:
    """Compare two variants round by round, on the same batch at about the same time.

    Raises:
        ValueError: no round has both.
    """
    rounds: dict[int, dict[str, float]] = {}
    for step in times:
        rounds.setdefault(step.round, {})[step.variant] = step.cpu_seconds
    ratios = [seconds[above] / seconds[below] for seconds in rounds.values() if above in seconds and below in seconds]
    if not ratios:
        raise ValueError(f"no round holds both {above} and {below}")
    return Ratio(median(ratios), min(ratios), max(ratios))


def median_seconds(times: Sequence[StepTime], variant: str) -> float:
    """Median CPU seconds of a variant's steps."""
    return median(step.cpu_seconds for step in times if step.variant == variant)
