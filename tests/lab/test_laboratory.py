"""Cells through the fork server; one run serves several claims, since its start takes seconds."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from safekey_peft.errors import SafeKeyError
from safekey_peft.lab.experiment import Cell
from safekey_peft.lab.laboratory import RESULTS_FILE, cells_of, run_lab
from safekey_peft.lab.remaining_time import RemainingTime
from safekey_peft.lab.results import read_records
from safekey_peft.lab.variants import choose_variants
from safekey_peft.lab.workers import tasks_of
from tests.lab.tiny import TINY, put_tiny_bases

NAMES = ["base", "sft", "all"]


def tiny_cells(names: list[str] = NAMES) -> list[Cell]:
    return cells_of([0], choose_variants(names), TINY)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def numbers(records: list[dict]) -> list[dict]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    workdir = tmp_path_factory.mktemp("lab")
    put_tiny_bases(workdir, 0)
    return workdir, run_lab(workdir, tiny_cells([*NAMES, "dpo"]), jobs=1, console=quiet())


def test_each_cell_writes_one_line_with_everything(finished: tuple[Path, list[dict]]) -> None:
    workdir, records = finished
    assert [json.loads(line) for line in (workdir / RESULTS_FILE).read_text().splitlines()] == records
    assert [record["variant"] for record in records] == [*NAMES, "dpo"]
    base, sft, full, dpo = records
    assert base["training"]["steps"] == 0 and sft["training"]["steps"] == full["training"]["steps"] == 3
    assert full["head_auc"].keys() == {"understanding", "context"} and sft["head_auc"] is None
    assert full["training"]["rows"]["examples"]["rto"] == 10 and sft["training"]["rows"]["examples"]["rto"] == 0
    assert {"loss", "loss_sft", "loss_key"} <= full["training"]["losses"][0].keys()
    assert dpo["training"]["losses"] == sft["training"]["losses"]  # it goes on from there
    assert dpo["training"]["preference_losses"][0]["loss_dpo"] == pytest.approx(math.log(2), abs=1e-4)
    for record in records:
        assert {"seed", "digest", "code", "configuration", "versions", "caution", "seconds"} <= record.keys()
        assert record["machine"]["cores"] >= 1 and record["machine"]["cpu"]
        assert record["seconds"]["run"] >= record["seconds"]["train"] and record["seconds"]["jobs"] == 1
        assert {"unmasked", "masked"} <= record["key_sentence"].keys()
        assert record["refusal_positions"].keys() == record["columns"].keys()


def test_a_finished_cell_is_not_run_again(finished: tuple[Path, list[dict]]) -> None:
    workdir, records = finished
    before = (workdir / RESULTS_FILE).read_bytes()
    assert run_lab(workdir, tiny_cells(), console=quiet()) == records[:3]
    assert (workdir / RESULTS_FILE).read_bytes() == before


def test_same_cell_twice_gives_the_same_numbers_also_in_parallel(
    finished: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    put_tiny_bases(tmp_path, 0)
    again = run_lab(tmp_path, tiny_cells(), jobs=2, console=quiet())
    assert numbers(again) == numbers(finished[1][:3])


def test_results_of_other_code_are_told_and_redone_on_request(
    finished: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    put_tiny_bases(tmp_path, 0)
    old = {**finished[1][0], "code": "other", "key_sentence": {"unmasked": 9.0, "masked": 9.0}}
    (tmp_path / RESULTS_FILE).write_text(json.dumps(old) + "\n")
    console = quiet()
    assert run_lab(tmp_path, tiny_cells(["base"]), console=console) == [old]
    assert "1 results were made by other code" in console.file.getvalue()
    redone = run_lab(tmp_path, tiny_cells(["base"]), redo_changed=True, console=quiet())
    assert numbers(redone) == numbers(finished[1][:1])


def test_killed_and_resumed_gives_the_same_table(finished: tuple[Path, list[dict]], tmp_path: Path) -> None:
    put_tiny_bases(tmp_path, 0)
    code = (
        "from pathlib import Path; import sys\n"
        "from tests.lab.test_laboratory import run_lab, tiny_cells, quiet\n"
        "if __name__ == '__main__': run_lab(Path(sys.argv[1]), tiny_cells(), jobs=1, console=quiet())\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=os.environ, cwd=Path(__file__).parents[2])
    results = tmp_path / RESULTS_FILE
    deadline = time.monotonic() + 60
    while not results.exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = read_records(results)
    assert 1 <= len(kept) < len(NAMES)
    with results.open("ab") as file:
        file.write(b'{"seed": 0, "variant": "sf')  # what a kill during the write would leave
    assert numbers(run_lab(tmp_path, tiny_cells(), jobs=1, console=quiet())) == numbers(finished[1][:3])
    assert len(read_records(results)) == len(NAMES)


def test_a_failing_cell_is_named_with_its_log_and_costs_no_finished_one(
    finished: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    put_tiny_bases(tmp_path, 0)
    base = next(tmp_path.glob("base-*"))
    (base / "model.safetensors").write_bytes(b"not weights")
    (tmp_path / RESULTS_FILE).write_text(json.dumps(finished[1][0]) + "\n")
    with pytest.raises(SafeKeyError, match="seed 0, sft: .*") as caught:
        run_lab(tmp_path, tiny_cells(), jobs=1, console=quiet())
    assert str(tmp_path / "logs" / "seed-0-sft.log") in str(caught.value)
    assert read_records(tmp_path / RESULTS_FILE) == finished[1][:1]


def test_a_missing_base_is_trained_once_and_before_its_cells(tmp_path: Path) -> None:
    put_tiny_bases(tmp_path, 1)
    cells = cells_of([0, 1], choose_variants(NAMES), TINY)
    tasks = [(task.kind, task.cell.seed) for task in tasks_of(cells, tmp_path)]
    assert tasks == [("base", 0), *[("cell", 0)] * 3, *[("cell", 1)] * 3]


def test_remaining_time_follows_what_tasks_take(tmp_path: Path) -> None:
    tasks = tasks_of(tiny_cells(), tmp_path)
    estimate = RemainingTime(tasks, jobs=2)
    estimate.seconds["cell"] = [10.0, 20.0]
    estimate.done = set(tasks[:2])
    assert estimate.remaining(0.0) == 15.0  # two cells of 15 s on two cores
    estimate.began[tasks[2]] = 0.0
    assert estimate.remaining(5.0) == 15.0
    estimate.left[tasks[2]] = 40.0  # its steps know better
    assert estimate.remaining(5.0) == 40.0 and RemainingTime([], 2).remaining(0.0) == 0.0
