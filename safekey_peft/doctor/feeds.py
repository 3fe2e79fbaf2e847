"""Rows without a tokenizer: formats, broken rows, and what they could feed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from safekey_peft.config import SafeKeyConfig
from safekey_peft.data.encoder import FEED_BITS
from safekey_peft.data.key_sentence.rule import judge_row
from safekey_peft.data.readers import SourceRow
from safekey_peft.data.report import DataReport
from safekey_peft.data.rows import RowError, SafetyRow, parse_row
from safekey_peft.data.thoughts.format import ends_in_thought
from safekey_peft.doctor.findings import Findings
from safekey_peft.doctor.rows import one_per_reason, reasons_of
from safekey_peft.errors import SafeKeyError


def parse_only(
    name: str, rows: Iterable[SourceRow], findings: Findings, key: str, config: SafeKeyConfig | None = None
) -> None:
    """Check rows without a tokenizer: formats, broken rows, and what could feed which loss.

    Args:
        name: for messages.
        rows: of the data set.
        findings: receives the findings.
        key: of the data set's path.
        config: the options of the losses; with ``annotation: rule`` the rule's marks count.
    """
    config = config or SafeKeyConfig()
    report, could = DataReport(), Counter[str]()
    try:
        for source in rows:
            try:
                if source.error is not None:
                    raise source.error
                row = parse_row(source.value, source.where)
            except RowError as error:
                report.add_dropped(error.reason, str(error))
                continue
            report.add_used([])
            could.update(possible_losses(row, by_rule=config.annotation == "rule", rto_from=config.rto_from))
    except SafeKeyError as error:
        findings.fault("rows", str(error), key=key)
        return
    text = f"{name}: {report.read} rows read, {report.used} valid"
    if not report.used:
        findings.fault("rows", f"{text}: {reasons_of(report.dropped)}. {''.join(report.faults[:1])}", key=key)
        return
    starved = any(not could[loss] for loss in config.active)
    fed = ", ".join(f"{loss} {could[loss]}" for loss in config.active or FEED_BITS)
    rule = ", marks by rule included" if config.annotation == "rule" else ""
    findings.add(
        "info" if report.dropped or starved else "ok",
        "rows",
        f"{text}; rows with what a loss needs, before the tokenizer{rule}: {fed}",
        key=key,
    )
    for fault in one_per_reason(report):
        findings.info("rows", f"dropped: {fault}", key=key)


def rule_marks(row: SafetyRow) -> bool:
    """Whether training would mark K by rule in a row that brings no marks."""
    judgement = judge_row(row)
    return judgement is not None and judgement.marks is not None


def possible_losses(row: SafetyRow, *, by_rule: bool = False, rto_from: str = "response") -> list[str]:
    """Return the losses that a row could feed, before any tokenizer has seen it.

    Args:
        row: the row.
        by_rule: whether the rule's marks count as its own.
        rto_from: ``answer`` takes nothing of a harmful response whose thought never ends.
    """
    marked = row.understanding_end is not None or (by_rule and rule_marks(row))
    harm = row.harmful_response is not None
    return [
        loss
        for loss, feeds in (
            ("dual_path", marked and row.is_harmful is not None),
            ("query_mask", marked),
            ("harmful_prefix", row.trained_response is not None and (harm or bool(row.harmful_prefix))),
            ("rto", harm and not (rto_from == "answer" and ends_in_thought(row.harmful_response or ""))),
        )
        if feeds
    ]
