"""Rows as the doctor counts them, with the encoder of a run and without."""

from __future__ import annotations

from typing import Any

import pytest

from safekey_peft import SafeKeyConfig, SafeKeyExampleEncoder
from safekey_peft.data.readers import SourceRow
from safekey_peft.doctor.feeds import parse_only
from safekey_peft.doctor.findings import Finding, Findings
from safekey_peft.doctor.rows import check_rows, examine_rows
from tests.tokenizers import tokenizer_with_template

SAFE = "<think>\nThe user asks how to brew it. No.\n</think>\n\nSorry, I can't help."
FINISHED = "<think>\nSure. First warm it.\n</think>\n\nFirst stir it twice."
ENDLESS = "<think>\nSure. First warm it."


def rows(finished: int, endless: int, safe: str | None = SAFE) -> list[SourceRow]:
    harmful = [FINISHED] * finished + [ENDLESS] * endless
    values = [{"id": f"r{i}", "query": "Brew?", "response": safe, "harmful_response": h} for i, h in enumerate(harmful)]
    return [SourceRow(f"rows.jsonl:{i}", value, None) for i, value in enumerate(values, 1)]


def checked(sources: list[SourceRow], *, is_test: bool = False, **options: Any) -> list[Finding]:
    config = SafeKeyConfig(rto=True, **options)
    encoder = SafeKeyExampleEncoder(tokenizer_with_template("byte_bpe", "r1_distill"), config)
    findings = Findings()
    found = examine_rows("rows.jsonl", lambda: sources, encoder, is_test=is_test)
    check_rows(found, config, findings, "datasets[0].path")
    return [item for item in findings.items if item.check == "rto_positions"]


@pytest.mark.parametrize(("endless", "level"), [(1, "info"), (2, "warning")])
@pytest.mark.parametrize("safe", [SAFE, None], ids=["beside_a_safe_response", "alone"])
def test_harmful_thoughts_that_never_end_are_counted(safe: str | None, endless: int, level: str) -> None:
    (finding,) = checked(rows(5, endless, safe), rto_from="answer")
    assert (finding.level, finding.key) == (level, "safekey_rto_from")
    assert f"rows.jsonl: {endless} of {5 + endless} harmful responses are no RTO example" in finding.message
    assert finding.remedy is not None and "safekey_rto_from: divergence" in finding.remedy


def test_thoughts_that_never_end_are_no_matter_where_rto_trains_them() -> None:
    assert not checked(rows(1, 2), rto_from="divergence")
    assert not checked(rows(1, 2), rto_from="response", rto_keep=1e-9)
    assert not checked(rows(1, 2), rto_from="answer", is_test=True)
    assert not checked(rows(3, 0), rto_from="answer")


@pytest.mark.parametrize(("rto_from", "fed"), [("answer", 1), ("divergence", 3)])
def test_without_a_tokenizer_thoughts_that_never_end_feed_no_rto_in_the_answer(rto_from: str, fed: int) -> None:
    findings = Findings()
    parse_only("rows.jsonl", rows(1, 2), findings, "datasets[0].path", SafeKeyConfig(rto=True, rto_from=rto_from))
    assert f"rto {fed}" in findings.items[0].message
