from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from safekey_peft.cli import main
from safekey_peft.cli.lab import parse_seeds
from safekey_peft.errors import ConfigError
from safekey_peft.lab.experiment import Cell
from safekey_peft.lab.laboratory import RESULTS_FILE
from safekey_peft.lab.variants import VARIANTS
from tests.lab.canned import canned


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [0, 1, 2]), ("6-8", [6, 7, 8]), ("4,0,4", [4, 0]), ("5,", [5])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "-3", "x", "3-1", "1,-2", "", "1-2-3"])
def test_seeds_that_are_none_are_told(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds: expected"):
        parse_seeds(text)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["lab", *arguments], env={"COLUMNS": "300"})
    return result.exit_code, result.output


def test_list_names_every_variant_and_group() -> None:
    code, output = run("--list")
    assert code == 0 and all(name in output for name in (*VARIANTS, "table", "ablations", "all-of-the-table"))


def test_wrong_names_end_in_one_line() -> None:
    code, output = run("--variants", "sft,derata")
    assert code == 1 and "did you mean 'derta'?" in output and "Traceback" not in output


def test_no_run_reports_what_is_there(tmp_path: Path) -> None:
    code, output = run("--no-run", "--workdir", str(tmp_path))
    assert code == 1 and "holds no result" in output
    record = {**canned(0, "sft", 0.5), "digest": Cell(0, VARIANTS["sft"]).digest()}
    stale = {**canned(0, "rto", 0.5), "digest": "of another configuration"}
    (tmp_path / RESULTS_FILE).write_text(f"{json.dumps(record)}\n{json.dumps(stale)}\n")
    code, output = run("--no-run", "--seeds", "1", "--workdir", str(tmp_path), "--report")
    assert code == 0 and "8 of 9 cells have no result yet" in output and "no evidence about large models" in output
    assert (tmp_path / "report.html").exists() and "RTO" not in output


def test_markdown_has_the_command_that_gives_it_again(tmp_path: Path) -> None:
    record = {**canned(0, "sft", 0.5), "digest": Cell(0, VARIANTS["sft"]).digest()}
    (tmp_path / RESULTS_FILE).write_text(f"{json.dumps(record)}\n")
    file = tmp_path / "benchmarks" / "lab.md"
    options = ["--seeds", "0-1", "--variants", "sft,derta", "--workdir", str(tmp_path)]
    code, output = run("--no-run", *options, "--markdown", str(file))
    assert code == 0 and f"Markdown: {file}" in output and not (tmp_path / "report.html").exists()
    text = file.read_text()
    assert "`safekey lab --seeds 0-1 --variants sft,derta`" in text and str(tmp_path) not in text
    assert "| unseen wrappers | success | 0.50 |" in text


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom safekey_peft.cli import main\n"
        "try: main(['lab', '--help'])\nexcept SystemExit as stop: assert not stop.code\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--variants" in result.stdout and result.stdout.strip().endswith("[]")
