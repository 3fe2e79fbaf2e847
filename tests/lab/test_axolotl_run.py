from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from safekey_peft.config import config_from_flags
from safekey_peft.errors import SafeKeyError
from safekey_peft.lab.axolotl_run import (
    flags_of,
    training_child,
    training_config,
    training_record,
    write_config,
)
from safekey_peft.lab.demo import TUNED
from safekey_peft.lab.experiment import Cell
from safekey_peft.lab.variants import VARIANTS, Variant
from tests.lab.tiny import TINY


def config(cell: Cell) -> dict:
    return training_config(cell, Path("base"), Path("rows.jsonl"), Path("documents.jsonl"), Path("out/run"))


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_flags_are_those_of_the_laboratory(variant: Variant) -> None:
    flags = flags_of(variant)
    assert config_from_flags(flags) == variant.config()
    assert bool(flags) == variant.config().any_active


def test_variants_differ_in_flags_only() -> None:
    plain = config(Cell(0, VARIANTS["sft"]))
    assert not any(key.startswith("safekey_") for key in plain)
    for name in TUNED:
        cell = Cell(0, VARIANTS[name])
        flags = flags_of(cell.variant)
        assert {key: value for key, value in config(cell).items() if key not in flags} == plain
        assert config_from_flags(config(cell)).active == cell.variant.config().active


def test_sizes_and_seed_are_the_cells() -> None:
    sizes = replace(TINY, training=replace(TINY.training, epochs=3, batch=5, learning_rate=0.5, lora_r=7, most_steps=9))
    written = config(Cell(11, VARIANTS["all"], sizes))
    names = ("num_epochs", "micro_batch_size", "learning_rate", "lora_r", "max_steps", "seed")
    assert [written[name] for name in names] == [3, 5, 0.5, 7, 9, 11]
    assert "max_steps" not in config(Cell(0, VARIANTS["all"]))


def test_written_configuration_reads_back(tmp_path: Path) -> None:
    path, written = tmp_path / "all.yaml", config(Cell(0, VARIANTS["all"]))
    write_config(path, "Purpose.", written)
    assert yaml.safe_load(path.read_text()) == written
    assert path.read_text().startswith("# Purpose.\n# Run it again: axolotl train ")


def test_child_is_axolotl_seeded() -> None:
    child = training_child("train all", Path("all.yaml"), Path("all.log"), 5)
    assert child.command[0] == sys.executable and child.command[2:5] == (
        "safekey_peft.lab.seeded_run", "5", "axolotl.cli.main",
    )  # fmt: skip
    assert child.command[5:] == ("train", "all.yaml", "--launcher", "python")
    assert child.shown == "axolotl train all.yaml"


def finished_run(output: Path, history: list[dict]) -> Path:
    (output / "checkpoint-20").mkdir(parents=True)
    state = {"global_step": 20, "log_history": history}
    (output / "checkpoint-20" / "trainer_state.json").write_text(json.dumps(state))
    return output


def test_losses_of_a_finished_run_are_those_of_a_laboratory_record(tmp_path: Path) -> None:
    history = [
        {"step": 10, "loss": 2.0, "safekey/loss_key": 0.5, "safekey/loss_rto": float("nan"), "grad_norm": 3.0},
        {"step": 20, "loss": 1.0, "safekey/loss_key": 0.25},
        {"step": 20, "train_loss": 1.5, "train_runtime": 9.0},
    ]
    record = training_record(finished_run(tmp_path / "run", history))
    assert record["losses"] == [{"step": 10, "loss": 2.0, "loss_key": 0.5}, {"step": 20, "loss": 1.0, "loss_key": 0.25}]
    assert record["steps"] == 20 and record["rows"] is None  # plain SFT: Axolotl writes no manifest


def test_counts_of_rows_come_from_the_manifest(tmp_path: Path) -> None:
    output = finished_run(tmp_path / "run", [])
    counts = {"rows": {"read": 7}, "examples": {"rto": 2}, "examples_dropped": {}, "rows_feeding": {"rto": 2}}
    (output / "safekey_manifest.json").write_text(json.dumps({**counts, "losses": ["rto"]}))
    assert training_record(output)["rows"] == counts


def test_a_run_without_its_state_is_told(tmp_path: Path) -> None:
    with pytest.raises(SafeKeyError, match="expected one checkpoint with trainer_state.json .*, found 0"):
        training_record(tmp_path)
