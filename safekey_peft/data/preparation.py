"""Rows to dataset records, with every row accounted for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from safekey_peft.data.collator import FEEDS_COLUMN, ROW_COLUMN, TAGS_COLUMN
from safekey_peft.data.encoder import EncodedExample, SafeKeyExampleEncoder
from safekey_peft.data.readers import SourceRow
from safekey_peft.data.report import DataReport
from safekey_peft.data.rows import RowError, SafetyRow, parse_row

Record = dict[str, Any]


def example_record(example: EncodedExample, row_key: str) -> Record:
    """Return an example as dataset columns; all examples of a row share its number."""
    digest = hashlib.sha256(row_key.encode("utf-8", "surrogatepass")).digest()
    return {
        "input_ids": example.input_ids,
        "attention_mask": [1] * len(example.input_ids),
        "labels": example.labels,
        TAGS_COLUMN: example.tags,
        ROW_COLUMN: int.from_bytes(digest[:8], "big") >> 1,
        FEEDS_COLUMN: example.feeds,
    }


def encode_source_row(
    source: SourceRow, encoder: SafeKeyExampleEncoder, report: DataReport, unique: Callable[[str], bool]
) -> list[Record]:
    """Encode one row as read, or count why it cannot be.

    Args:
        source: a row of a reader; may hold an error instead of a value.
        encoder: does the work.
        report: counts, updated in place.
        unique: whether an id occurs once in its data set; draws of other rows are seeded by their content.
    """
    try:
        if source.error is not None:
            raise source.error
        row = parse_row(source.value, source.where)
        key = row.key()
        draw_key = row.id if row.id is not None and unique(row.id) else key
        examples, faults = encoder.encode_counted(row, source.where, draw_key)
    except RowError as error:
        report.add_dropped(error.reason, str(error))
        return []
    report.add_used(examples, faults)
    return [example_record(example, key) for example in examples]


def prepare_examples(sources: Iterable[SourceRow], encoder: SafeKeyExampleEncoder) -> tuple[list[Record], DataReport]:
    """Encode all rows of a data set in memory.

    Returns:
        Records for ``datasets.Dataset.from_list`` (or a plain list), and the counts.
    """
    rows = list(sources)
    unique = unique_ids(rows)
    report = DataReport()
    records = [record for row in rows for record in encode_source_row(row, encoder, report, unique)]
    return records, report


def unique_ids(rows: Iterable[SourceRow]) -> Callable[[str], bool]:
    """Return a predicate: does this id occur exactly once?"""
    counts: Counter[str] = Counter()
    for row in rows:
        if isinstance(row.value, dict) and row.value.get("id") is not None:
            counts[str(row.value["id"])] += 1
    once = {name for name, count in counts.items() if count == 1}
    return once.__contains__


def as_source_rows(rows: Iterable[SafetyRow | Any], name: str = "rows") -> Iterable[SourceRow]:
    """Wrap mappings (e.g. of a Hub data set) as source rows; they are named by their index."""
    for index, value in enumerate(rows):
        yield SourceRow(where=f"{name}[{index}]", value=value, error=None)
