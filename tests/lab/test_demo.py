from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from safekey_peft.cli import main as safekey
from safekey_peft.errors import ConfigError, SafeKeyError
from safekey_peft.lab import axolotl_run, demo
from safekey_peft.lab.demo import TUNED, clear, demo_cells, gate_sentence, results_table, run_demo
from safekey_peft.lab.statistics import ATTACKS, OTHER_MEASURES
from safekey_peft.lab.tuning_set import TuningSizes
from safekey_peft.lab.variants import VARIANTS
from tests.lab.canned import canned
from tests.lab.tiny import TINY, put_tiny_bases

ROOT = Path(__file__).parents[2]
SUCCESS = {"base": 1.0, "sft": 0.75, "safekey": 0.25, "derta": 0.125, "all": 0.0625}


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def test_table_has_a_column_per_model_and_fits_a_narrow_terminal() -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(results_table([canned(0, name, success) for name, success in SUCCESS.items()]))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    header = next(line for line in text.splitlines() if "SafeKey" in line)
    assert [header.find(title) for title in ("base", "SFT", "SafeKey", "DeRTa", "all")] == sorted(
        header.find(VARIANTS[name].title) for name in SUCCESS
    )
    for attack in ATTACKS.values():
        assert attack in text
    assert text.count("0.06") == 2 * len(ATTACKS)  # success and leak of all four losses
    for outcome in ("success", "refused", "garbled", "leak"):
        assert text.count(outcome) == len(ATTACKS)
    assert all(title.split()[0] in text for title in OTHER_MEASURES.values())


def test_models_are_those_of_the_laboratory() -> None:
    cells = demo_cells(4, 37)
    assert list(cells) == ["base", *TUNED] == list(SUCCESS)
    for name, cell in cells.items():
        assert cell.variant is VARIANTS[name] and cell.seed == 4
        assert cell.tuning_sizes() == TuningSizes(harmless_wrapped=37)


def test_gate_is_told_kind_by_kind() -> None:
    base = demo.BaseModel(Path("base"), {"story": 0.9667, "sort": 1.0}, cached=True)
    text = gate_sentence(base)
    assert "from an earlier run" in text and "at least 0.95" in text and "story 0.97, sort 1.00" in text


def test_results_of_an_earlier_demo_are_removed_and_the_base_stays(tmp_path: Path) -> None:
    (tmp_path / "base-abc").mkdir()
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "adapter_model.safetensors").touch()
    for name in ("tuning.jsonl", "results.json", "report.html", "report-losses.png", "sft.yaml", "sft.log"):
        (tmp_path / name).touch()
    clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base-abc", "tuning.jsonl"]


def test_a_folder_that_is_no_demos_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_write_rows", lambda *_: pytest.fail("went on"))
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "mine").touch()
    with pytest.raises(ConfigError, match="expected a new folder, .* found 'all' but no tuning.jsonl"):
        run_demo(tmp_path, console=quiet(), progress_console=quiet())
    assert (tmp_path / "all" / "mine").exists() and len(list(tmp_path.iterdir())) == 1


def test_missing_libraries_are_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="needs axolotl, bitsandbytes, datasets: pip install"):
        run_demo(tmp_path / "run", console=quiet(), progress_console=quiet())
    assert not (tmp_path / "run").exists()


def interpreter(tmp_path: Path, body: str) -> str:
    """Return a program that stands in for the interpreter that runs Axolotl."""
    launcher = tmp_path / "python"
    launcher.write_text(f"#!/bin/sh\n{body}\n")
    launcher.chmod(0o755)
    return str(launcher)


def test_a_failing_run_ends_the_demo_with_its_log_and_without_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = tmp_path / "run"
    put_tiny_bases(workdir, 0)
    body = 'case "$*" in *derta*) echo no such loss; exit 1;; *) sleep 60;; esac'
    monkeypatch.setattr(axolotl_run.sys, "executable", interpreter(tmp_path, body))
    began = time.monotonic()
    with pytest.raises(SafeKeyError, match="derta.yaml ended with exit status 1") as caught:
        run_demo(workdir, sizes=TINY, console=quiet(), progress_console=quiet())
    assert time.monotonic() - began < 50  # the other run was not waited for
    assert "no such loss" in str(caught.value) and str(workdir / "derta.log") in str(caught.value)
    assert not (workdir / "results.json").exists() and not (workdir / "report.html").exists()
    assert len(list(workdir.glob("base-*"))) == 1


def test_interrupted_demo_says_what_is_kept(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    put_tiny_bases(workdir, 0)
    launcher = interpreter(tmp_path, f"echo $$ > {tmp_path}/pid; sleep 60")
    code = (
        "import functools, sys\n"
        "from safekey_peft.lab import __main__, axolotl_run, demo\n"
        "from tests.lab.tiny import TINY\n"
        "axolotl_run.sys = type('', (), {'executable': sys.argv.pop(1)})\n"
        "demo.run_demo = functools.partial(demo.run_demo, sizes=TINY)\n"
        "__main__.main()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, launcher, "--workdir", str(workdir)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # A shell starts commands in the background with the signal ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "pid").exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=300)
    assert child.returncode == 1 and "Stopped. A finished base is kept" in errors and "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_command_is_listed_with_what_it_compares() -> None:
    output = CliRunner().invoke(safekey, ["--help"]).output
    assert "base, SFT, SafeKey, DeRTa and all four" in " ".join(output.split())


def test_help_loads_no_torch() -> None:
    code = (
        "import sys, runpy; sys.argv = ['lab', '--help']\n"
        "try: runpy.run_module('safekey_peft.lab', run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--seed" in result.stdout and result.stdout.strip().endswith("[]")


@pytest.mark.slow
def test_whole_demo_writes_records_of_the_laboratorys_shape_and_uses_its_base_again(tmp_path: Path) -> None:
    """Four short runs of Axolotl, and as many again; a minute or two."""
    from safekey_peft.lab.experiment import run_cell

    put_tiny_bases(tmp_path, 0)
    sizes = dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, most_steps=10))
    console, progress = quiet(), quiet()
    results = run_demo(tmp_path, sizes=sizes, harmless_wrapped=9, console=console, progress_console=progress)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert list(results["models"]) == ["base", *TUNED]
    for name, cell in demo_cells(0, 9, sizes).items():
        record = results["models"][name]
        of_the_laboratory = run_cell(cell, tmp_path, lambda *_: None)
        assert of_the_laboratory.keys() | {"code"} == record.keys()
        assert record["digest"] != of_the_laboratory["digest"]  # not to be mistaken for it
        for part in ("columns", "refusal_positions", "key_sentence", "training"):
            assert record[part].keys() == of_the_laboratory[part].keys()
        assert (record["head_auc"] is None) == (of_the_laboratory["head_auc"] is None)
        if name == "base":
            assert record["columns"] == of_the_laboratory["columns"]
        else:
            assert record["training"]["steps"] == 10 and record["training"]["losses"][0]["step"] == 10
            assert record["training"]["losses"][0].keys() == of_the_laboratory["training"]["losses"][-1].keys()
    assert results["models"]["all"]["training"]["rows"]["examples"]["rto"] == 10
    assert "no evidence about large models" in " ".join(console.file.getvalue().split())
    page = (tmp_path / "report.html").read_text()
    assert "trained by axolotl train" in page and "One seed" in page
    assert "train all:" in progress.file.getvalue() and "left" in progress.file.getvalue()
    again = run_demo(tmp_path, sizes=sizes, harmless_wrapped=9, console=quiet(), progress_console=quiet())
    for name, record in again["models"].items():
        assert {**record, "seconds": 0} == {**results["models"][name], "seconds": 0}
