"""The benchmark runs and writes its tables; what it measures is no test's business."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("peft")

from benchmarks.examples import build_micro_batch, choose_batches, count_tokens
from benchmarks.lengths import RowLengths, read_lengths
from benchmarks.step_cost import main
from benchmarks.timing import StepTime, ratio
from benchmarks.variants import TOY_SIZE, VARIANTS, Workbench


def test_quick_run_writes_both_tables(tmp_path: Path) -> None:
    assert main(["--quick", "--no-memory", "--threads", "1", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "step_cost.json").read_text(encoding="utf-8"))
    assert {step["variant"] for step in record["runs"][0]["times"]} == set(VARIANTS)
    assert {line["measure"] for line in record["findings"]} >= {
        "SafeKey losses / padding-free SFT",
        "SafeKey losses / stock SFT",
    }
    assert record["cpu"] and record["versions"]["torch"] and record["row_widths"]
    text = (tmp_path / "step_cost.md").read_text(encoding="utf-8")
    assert "| SafeKey losses / stock SFT | 256 |" in text


def test_variants_agree_on_the_losses_they_share() -> None:
    """Same rows, same weights: stock and padding-free SFT, and both ways to compute SafeKey's losses."""
    batch = build_micro_batch([RowLengths(5, 4, 3, 17), RowLengths(9, 6, 2, 11)], 64, seed=3)
    losses = {}
    for variant in VARIANTS:
        bench = Workbench(TOY_SIZE, 64, None)
        losses[variant] = bench.step(variant, batch)
    assert losses["sft"] == pytest.approx(losses["stock_sft"], abs=1e-5)
    assert losses["safekey"] == pytest.approx(losses["two_forward"], abs=1e-5)
    assert losses["safekey_fused"] == pytest.approx(losses["safekey"], abs=1e-5)
    assert losses["safekey"] > losses["sft"]


def test_committed_lengths_have_the_extra_tokens_of_the_design() -> None:
    rows = read_lengths()
    extra = sum(row.understanding + row.key for row in rows) / sum(row.example for row in rows)
    assert len(rows) == 1000
    assert 0.10 <= extra <= 0.14


def test_batches_stand_for_all_lengths() -> None:
    rows = [RowLengths(1, 1, 1, length) for length in range(3, 103)]
    batches = choose_batches(rows, batches=2, rows=2)
    assert [[row.response for row in batch] for batch in batches] == [[15, 65], [40, 90]]
    batch = build_micro_batch(batches[0], 64, seed=0)
    assert count_tokens(batch.safekey) - count_tokens(batch.plain) == 4


def test_ratios_are_taken_within_a_round() -> None:
    times = [
        StepTime("a", 0, 0, 2.0, 0.0, 0.0),
        StepTime("b", 0, 0, 1.0, 0.0, 0.0),
        StepTime("a", 1, 0, 30.0, 0.0, 0.0),
        StepTime("b", 1, 0, 10.0, 0.0, 0.0),
        StepTime("a", 2, 0, 1.0, 0.0, 0.0),
    ]
    found = ratio(times, "a", "b")
    assert (found.median, found.low, found.high) == (2.5, 2.0, 3.0)
    with pytest.raises(ValueError, match="no round"):
        ratio(times, "a", "c")
