from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from safekey_peft.config import config_from_flags
from safekey_peft.errors import SafeKeyError
from safekey_peft.lab import axolotl_run
from safekey_peft.lab.axolotl_run import FOUR_LOSSES, tail, train, training_config, write_config


def config(flags) -> dict:
    return training_config(
        Path("base"), Path("rows.jsonl"), Path("documents.jsonl"), Path("out/sft"), 0, flags
    )


def test_variants_differ_in_flags_only() -> None:
    plain, full = config({}), config(FOUR_LOSSES)
    assert {key: value for key, value in full.items() if key not in FOUR_LOSSES} == plain
    assert not config_from_flags(plain).any_active
    assert config_from_flags(full).active == ("dual_path", "query_mask", "harmful_prefix", "rto")


def test_written_configuration_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "sft.yaml"
    write_config(path, "Purpose.", config(FOUR_LOSSES))
    assert yaml.safe_load(path.read_text()) == config(FOUR_LOSSES)
    assert path.read_text().startswith("# Purpose.\n# Run it again: axolotl train ")


def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> Path:
    """Put a script in the place of the interpreter that runs Axolotl."""
    script = tmp_path / "child.py"
    script.write_text(body)
    launcher = tmp_path / "python"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}"\n')
    launcher.chmod(0o755)
    monkeypatch.setattr(axolotl_run.sys, "executable", str(launcher))
    return tmp_path / "child.log"


def test_progress_is_the_trainers_own_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = child(
        monkeypatch,
        tmp_path,
        "import sys\n"
        "print('Encoding rows: 100%|####| 400/400 [00:00<00:00]', flush=True)\n"
        "for n in (1, 2, 3):\n"
        "    sys.stderr.write(f'\\r {n * 33}%|#   | {n}/3 [00:0{n}<00:02, 7it/s]'); sys.stderr.flush()\n",
    )
    steps: list[tuple[int, int]] = []
    train(tmp_path / "x.yaml", log, 0, lambda done, planned: steps.append((done, planned)))
    assert steps[-1] == (3, 3) and all(planned == 3 for _, planned in steps)


def test_failing_child_shows_the_end_of_its_log_and_where_it_is(monkeypatch, tmp_path: Path) -> None:
    log = child(monkeypatch, tmp_path, "print('first line'); raise SystemExit('no such loss')")
    with pytest.raises(SafeKeyError, match="exit status 1") as caught:
        train(tmp_path / "x.yaml", log, 0)
    assert "no such loss" in str(caught.value) and str(log) in str(caught.value)


def test_tail_leaves_bars_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("a\n\n 50%|##  | 1/2 [00:01<00:01]\r100%|####| 2/2 [00:02<00:00]\nb\n")
    assert tail(log) == "  | a\n  | b"
