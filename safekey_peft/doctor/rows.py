"""The rows: what is dropped and why, what feeds which loss, how long the examples are."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from safekey_peft.config import FLAG_PREFIX, SafeKeyConfig
from safekey_peft.data.encoder import FEED_BITS, SafeKeyExampleEncoder
from safekey_peft.data.preparation import example_record, unique_ids
from safekey_peft.data.readers import SourceRow
from safekey_peft.data.report import DataReport
from safekey_peft.data.rows import RowError, parse_row
from safekey_peft.data.tags import LABEL_MASK, LABEL_SHIFT
from safekey_peft.data.thoughts.format import ends_in_thought
from safekey_peft.doctor.findings import Findings
from safekey_peft.doctor.texts import KeptRow
from safekey_peft.errors import DataError
from safekey_peft.hosts.feeding import require_rows

KEPT_ROWS = 64
LOST_SHARE = 0.2
"""A larger share of dropped rows is a warning of its own."""
MOST_SHARE = 0.5
"""A larger share dropped for one reason is said first."""
UNMARKED_SHARE = 0.1
_LOST_REMEDIES = {"too_long": "Raise sequence_len, or set excess_length_strategy: truncate"}


@dataclass
class ExaminedDataset:
    """What became of one data set.

    Attributes:
        name: as in messages.
        is_test: evaluated, not trained.
        report: counts.
        lengths: tokens of each example, [U;K] included.
        row_numbers: of each example.
        feeds: of each example.
        labels: head labels, harmful or not, of the examples that have one.
        marked: rows with marks, given or by the rule.
        markable: rows with a response.
        harmful: rows with a harmful response.
        endless: of these, the ones without an RTO example because the thought never ends.
        duplicate_ids: ids that stand more than once.
        kept: the first encoded rows, for a closer look.
        sampled: whether only the first rows were read.
    """

    name: str
    is_test: bool = False
    report: DataReport = field(default_factory=DataReport)
    lengths: list[int] = field(default_factory=list)
    row_numbers: list[int] = field(default_factory=list)
    feeds: list[int] = field(default_factory=list)
    labels: Counter[bool] = field(default_factory=Counter)
    marked: int = 0
    markable: int = 0
    harmful: int = 0
    endless: int = 0
    duplicate_ids: int = 0
    kept: list[KeptRow] = field(default_factory=list)
    sampled: bool = False


def examine_rows(
    name: str,
    rows: Callable[[], Iterable[SourceRow]],
    encoder: SafeKeyExampleEncoder,
    *,
    is_test: bool = False,
    sample: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> ExaminedDataset:
    """Encode the rows of a data set as training does, and keep account.

    Args:
        name: for messages.
        rows: opens the rows; called twice, because draws depend on which ids are unique.
        encoder: the run's.
        is_test: evaluated, not trained.
        sample: only this many rows; None: all.
        tick: called after each row.

    Raises:
        DataError: the rows cannot be read, or one is too long with ``excess_length_strategy: raise``.
    """
    found = ExaminedDataset(name, is_test)
    ids: Counter[str] = Counter()

    def counted() -> Iterator[SourceRow]:
        for row in rows():
            if isinstance(row.value, dict) and row.value.get("id") is not None:
                ids[str(row.value["id"])] += 1
            yield row

    unique = unique_ids(counted())
    found.duplicate_ids = sum(count > 1 for count in ids.values())
    for index, source in enumerate(rows()):
        if sample is not None and index >= sample:
            found.sampled = True
            break
        _encode(source, encoder, found, unique)
        tick()
    return found


def _encode(
    source: SourceRow, encoder: SafeKeyExampleEncoder, found: ExaminedDataset, unique: Callable[[str], bool]
) -> None:
    try:
        if source.error is not None:
            raise source.error
        row = parse_row(source.value, source.where)
    except RowError as error:
        found.report.add_dropped(error.reason, str(error))
        return
    draw_key = row.id if row.id is not None and unique(row.id) else row.key()
    harm = row.harmful_response
    found.harmful += harm is not None
    endless = encoder.config.rto_from == "answer" and harm is not None and ends_in_thought(harm)
    try:
        examples, faults = encoder.encode_counted(row, source.where, draw_key)
    except RowError as error:
        found.endless += endless and _lacks_position([error])
        found.report.add_dropped(error.reason, str(error))
        return
    found.endless += endless and _lacks_position(faults)
    found.report.add_used(examples, faults)
    found.markable += row.trained_response is not None
    found.marked += row.understanding_end is not None
    for example in examples:
        record = example_record(example, row.key())
        found.lengths.append(len(example.input_ids))
        found.row_numbers.append(record["safekey_row"])
        found.feeds.append(example.feeds)
        if example.feeds & FEED_BITS["dual_path"]:
            found.labels[(example.tags[0] & LABEL_MASK) >> LABEL_SHIFT == 2] += 1
    if len(found.kept) < KEPT_ROWS:
        found.kept.append(KeptRow(row, source.where, examples))


def _lacks_position(faults: Iterable[RowError]) -> bool:
    return any(fault.reason == "no_rto_position" for fault in faults)


def check_rows(examined: ExaminedDataset, config: SafeKeyConfig, findings: Findings, key: str) -> None:
    """Note what is wrong with the rows of one data set."""
    report, name = examined.report, examined.name
    if not report.read:
        findings.fault("rows", f"{name}: expected rows, found none", key=key, remedy="Check path and split")
        return
    if not report.used:
        first = report.faults[0] if report.faults else ""
        findings.fault(
            "rows",
            f"{name}: not one of {report.read} rows can be used: {reasons_of(report.dropped)}. First: {first}",
            key=key,
            remedy="Mend the rows, or the option that the message names",
        )
        return
    dropped = sum(report.dropped.values())
    summary = report.summary() + (", only the first rows were read (--sample)" if examined.sampled else "")
    text = f"{name}: {summary}"
    if dropped:
        few = dropped <= LOST_SHARE * report.read
        reason, count = report.dropped.most_common(1)[0]
        if count > MOST_SHARE * report.read:
            share = math.floor(100 * count / report.read)
            text = f"{name}: {count} of {report.read} rows ({share} %) are dropped as {reason}; {summary}"
        findings.add(
            "info" if few else "warning",
            "rows",
            text,
            key=key,
            remedy=None if few else _LOST_REMEDIES.get(reason, "Look at the dropped rows: safekey inspect"),
        )
        for fault in one_per_reason(report):
            findings.info("rows", f"dropped: {fault}", key=key)
    else:
        findings.ok("rows", text, key=key)
    if examined.duplicate_ids:
        findings.info(
            "ids",
            f"{name}: {examined.duplicate_ids} ids stand more than once; draws for these rows go by their content",
            key=key,
        )
    if not examined.is_test:
        _check_marks(examined, config, findings, key)
        _check_endless_thoughts(examined, findings)


def _check_marks(examined: ExaminedDataset, config: SafeKeyConfig, findings: Findings, key: str) -> None:
    if not (config.dual_path or config.query_mask) or not examined.markable:
        return
    missing = examined.markable - examined.marked
    text = f"{examined.name}: {examined.marked} of {examined.markable} rows have marks of their own"
    if missing <= UNMARKED_SHARE * examined.markable:
        findings.ok("marks", text, key=key)
    elif config.annotation == "rule":
        fed = max(examined.report.rows_feeding["query_mask"], examined.report.rows_feeding["dual_path"])
        findings.info("marks", f"{text}; with safekey_annotation: rule, {fed} feed these losses", key=key)
    else:
        findings.warn(
            "marks",
            f"{text}; the others feed neither safety head nor query mask",
            key=key,
            remedy="Run safekey annotate, or set safekey_annotation: rule",
        )


def _check_endless_thoughts(examined: ExaminedDataset, findings: Findings) -> None:
    if not examined.endless:
        return
    findings.add(
        "info" if examined.endless <= LOST_SHARE * examined.harmful else "warning",
        "rto_positions",
        f"{examined.name}: {examined.endless} of {examined.harmful} harmful responses are no RTO example: their "
        f"thought never ends, and {FLAG_PREFIX}rto_from: answer trains none of it",
        key=f"{FLAG_PREFIX}rto_from",
        remedy=f"Finish them, or set {FLAG_PREFIX}rto_from: divergence",
    )


def check_losses(examined: list[ExaminedDataset], config: SafeKeyConfig, findings: Findings) -> None:
    """Check over all training sets that each loss has rows and the head two classes."""
    training = [dataset for dataset in examined if not dataset.is_test]
    feeding = {loss: sum(d.report.rows_feeding[loss] for d in training) for loss in FEED_BITS}
    findings.facts["rows"] = {
        "read": sum(d.report.read for d in training),
        "used": sum(d.report.used for d in training),
        "dropped": dict(sum((d.report.dropped for d in training), Counter())),
    }
    findings.facts["examples"] = {
        kind: sum(d.report.examples[kind] for d in training) for kind in ("sft", "prefix", "rto")
    }
    findings.facts["rows_feeding"] = feeding
    if config.any_active and not findings.facts["rows"]["used"]:
        findings.skip("losses", "no row can be used")
        return
    for loss in config.active:
        try:
            require_rows(config.model_copy(update={name: name == loss for name in FEED_BITS}), feeding)
            findings.ok("losses", f"safekey_{loss}: fed by {feeding[loss]} rows", key=f"safekey_{loss}")
        except DataError as error:
            if any(dataset.sampled for dataset in training):
                message = f"none of the sampled rows feeds safekey_{loss}; others may"
                findings.warn("losses", message, key=f"safekey_{loss}", remedy="Run without --sample to know")
            else:
                findings.fault("losses", str(error), key=f"safekey_{loss}")
    examples = findings.facts["examples"]
    if examples["rto"] and not examples["sft"] + examples["prefix"]:
        findings.warn(
            "losses",
            f"all {examples['rto']} examples are harmful responses for RTO: nothing shows the model an answer, and "
            "it learns to refuse everywhere",
            key="datasets",
            remedy="Add rows with a response, harmless ones among them",
        )
    labels = sum((d.labels for d in training), Counter[bool]())
    if config.dual_path and len(labels) == 1:
        only, other = ("harmful", "harmless") if labels[True] else ("harmless", "harmful")
        findings.warn(
            "labels",
            f"all {sum(labels.values())} rows of the safety head are {only}: it can only learn a constant",
            key="safekey_dual_path",
            remedy=f"Add {other} rows with marks",
        )
    elif config.dual_path and labels:
        findings.ok("labels", f"{labels[True]} harmful and {labels[False]} harmless rows feed the safety head")


def check_lengths(examined: list[ExaminedDataset], sequence_len: int | None, strategy: str, findings: Findings) -> None:
    """Compare lengths with ``sequence_len``; over-long examples are in the counts, not in the lengths."""
    import numpy as np

    lengths = [length for dataset in examined if not dataset.is_test for length in dataset.lengths]
    if not lengths:
        return
    p50, p95 = (int(value) for value in np.percentile(lengths, [50, 95]))
    lost = sum(
        counts[reason]
        for dataset in examined
        for counts in (dataset.report.dropped, dataset.report.examples_dropped)
        for reason in ("too_long", "marks_truncated")
    )
    cut = sum(dataset.report.truncated for dataset in examined)
    total = len(lengths) + lost
    findings.facts["tokens"] = {"p50": p50, "p95": p95, "max": max(lengths), "sum": sum(lengths), "too_long": lost}
    text = (
        f"tokens of an example: median {p50}, 95 % below {p95}, longest {max(lengths)}; sequence_len {sequence_len}, "
        f"excess_length_strategy {strategy}: {lost} dropped, {cut} truncated"
    )
    if lost + cut > 0.05 * total:
        findings.warn("lengths", text, key="sequence_len", remedy="Raise sequence_len if memory allows")
    else:
        findings.ok("lengths", text, key="sequence_len")
    if sequence_len and max(lengths) * 4 < sequence_len:
        findings.info(
            "lengths", f"no example needs more than {max(lengths)} of {sequence_len} tokens", key="sequence_len"
        )


def reasons_of(counts: Counter[str]) -> str:
    """Return reasons with their counts, the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def one_per_reason(report: DataReport) -> list[str]:
    """Return a few faults that differ in kind: a hundred rows of one kind need one line."""
    chosen: list[str] = []
    for fault in report.faults:
        tail = fault.partition(": ")[2][:40]
        if all(difflib.SequenceMatcher(None, tail, other.partition(": ")[2][:40]).ratio() < 0.8 for other in chosen):
            chosen.append(fault if len(fault) <= 300 else f"{fault[:300]}…")
    return chosen[:5]
