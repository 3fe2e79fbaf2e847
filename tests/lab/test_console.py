from __future__ import annotations

import io

import pytest
from rich.console import Console

from safekey_peft.lab import console
from safekey_peft.lab.console import Stage, demo_progress
from safekey_peft.lab.remaining_time import RemainingTime


class Clock:
    """Stands in for ``time.monotonic``."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def phases() -> list[RemainingTime]:
    base, train = Stage("base", "base"), [Stage("train", f"train {name}") for name in "abc"]
    return [RemainingTime([base], 1), RemainingTime(train, 2)]


def test_where_the_output_is_no_terminal_each_finished_stage_is_a_line(clock: Clock) -> None:
    target = Console(file=io.StringIO(), width=100)
    with demo_progress(phases(), target) as progress:
        progress.started("base")
        clock.now += 80
        progress.finished("base")
        progress.started("train a")
        clock.now += 20
        progress.finished("train a")
        assert progress.seconds == {"base": 80, "train a": 20}
    # 3 runs of a guessed 50 s on two cores; then 2 of the 20 s that the first took
    assert target.file.getvalue().strip().splitlines() == [
        "base: 80 s, about 0:01:15 left", "train a: 20 s, about 0:00:20 left",
    ]  # fmt: skip


def test_steps_tell_the_time_of_their_stage_and_of_the_whole(clock: Clock) -> None:
    target = Console(file=io.StringIO(), width=120, force_terminal=True)
    with demo_progress(phases(), target) as progress:
        progress.started("base")
        for done in (10, 20, 30):
            clock.now += 5
            progress.step("base", done, 100, "loss 1.0")
        bars = {task.description: task.fields for task in progress._progress.tasks}
        assert bars["base"]["remark"].startswith("0:00:35 left") and bars["base"]["count"] == "30/100"
        assert bars["demo"]["remark"] == "about 0:01:50 left"  # 35 s and 3 × 50 s on two cores
    assert "loss 1.0" in target.file.getvalue()
