"""Child processes side by side; shells and short scripts stand in for Axolotl."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from safekey_peft.errors import SafeKeyError
from safekey_peft.lab.children import CHILD_ENVIRONMENT, Child, child_environment, run_children, tail

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120


class Notes:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.steps: list[tuple[int, int]] = []

    def started(self, name: str) -> None:
        self.events.append(("started", name))

    def step(self, name: str, done: int, planned: int) -> None:
        self.steps.append((done, planned))

    def finished(self, name: str) -> None:
        self.events.append(("finished", name))

    def tick(self) -> None:
        pass


def shell(tmp_path: Path, name: str, script: str) -> Child:
    return Child(name, ("sh", "-c", script), f"run {name}", tmp_path / f"{name}.log")


def script(tmp_path: Path, name: str, body: str) -> Child:
    path = tmp_path / f"{name}.py"
    path.write_text(body)
    return Child(name, (sys.executable, str(path)), f"run {name}", tmp_path / f"{name}.log")


def comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_no_more_than_the_given_number_run_at_a_time_in_their_order(tmp_path: Path) -> None:
    notes = Notes()
    run_children([shell(tmp_path, name, "sleep 0.2") for name in "abc"], 2, notes)
    assert [name for event, name in notes.events if event == "started"] == ["a", "b", "c"]
    assert notes.events[:2] == [("started", "a"), ("started", "b")] and notes.events[2][0] == "finished"
    assert {name for event, name in notes.events if event == "finished"} == set("abc")


def test_progress_is_the_trainers_own_bar(tmp_path: Path) -> None:
    notes = Notes()
    child = script(
        tmp_path,
        "bars",
        "import sys\n"
        "print('Encoding rows: 100%|####| 400/400 [00:00<00:00]', flush=True)\n"
        "for n in (1, 2, 3):\n"
        "    sys.stderr.write(f'\\r {n * 33}%|#   | {n}/3 [00:0{n}<00:02, 7it/s]'); sys.stderr.flush()\n",
    )
    run_children([child], 1, notes)
    assert notes.steps[-1] == (3, 3) and all(planned == 3 for _, planned in notes.steps)
    assert "Encoding rows" in child.log.read_text()


def test_a_failing_child_is_named_with_its_log_and_the_others_are_ended(tmp_path: Path) -> None:
    other = shell(tmp_path, "other", "echo $$; sleep 60")
    failing = shell(tmp_path, "failing", "sleep 0.5; echo no such loss; exit 3")
    never = shell(tmp_path, "never", "echo begun")
    with pytest.raises(SafeKeyError, match="run failing ended with exit status 3") as caught:
        run_children([other, failing, never], 2, Notes())
    assert "no such loss" in str(caught.value) and str(failing.log) in str(caught.value)
    assert not is_running(int(other.log.read_text()))
    assert not never.log.exists()


def test_a_child_that_was_killed_says_by_what(tmp_path: Path) -> None:
    with pytest.raises(SafeKeyError, match=r"ended with signal 9 \(Killed\), as where memory is short"):
        run_children([shell(tmp_path, "x", "kill -9 $$")], 1, Notes())


def test_tail_leaves_bars_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("a\n\n 50%|##  | 1/2 [00:01<00:01]\r100%|####| 2/2 [00:02<00:00]\nb\n")
    assert tail(log) == "  | a\n  | b"


def test_environment_of_children_is_lent_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with child_environment():
        assert CHILD_ENVIRONMENT.items() <= os.environ.items()
    assert os.environ["HF_HUB_OFFLINE"] == "0" and "CUDA_VISIBLE_DEVICES" not in os.environ


def parent_of_two(tmp_path: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Start a process that runs two children through ``seeded_run``; return it and their process ids."""
    (tmp_path / "transformers.py").write_text("def set_seed(seed): pass\n")  # the real one takes seconds
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.lab.test_children import Notes, shell\n"
        "from safekey_peft.lab.children import run_children\n"
        "folder = Path(sys.argv[1])\n"
        "run = f'PYTHONPATH={folder}:$PYTHONPATH exec {sys.executable} -m safekey_peft.lab.seeded_run 0'\n"
        "children = [shell(folder, name, f'echo $$ > {folder}/{name}.pid; {run} tests.lab.sleeper') for name in 'ab']\n"
        "run_children(children, 2, Notes())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        # A shell starts commands in the background with the signal ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    files = [tmp_path / "a.pid", tmp_path / "b.pid"]
    assert comes_true(lambda: all(file.exists() and file.read_text().strip() for file in files))
    assert comes_true(lambda: all("asleep" in (tmp_path / f"{name}.log").read_text() for name in "ab"))
    return parent, [int(file.read_text()) for file in files]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_its_parent(sent: signal.Signals, tmp_path: Path) -> None:
    parent, children = parent_of_two(tmp_path)
    assert all(map(is_running, children))
    parent.send_signal(sent)
    assert parent.wait(PATIENCE_SECONDS) != 0
    assert comes_true(lambda: not any(map(is_running, children)))
