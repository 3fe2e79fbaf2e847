"""What became of the rows: counts that add up, and the first faults in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from safekey_peft.data.encoder import FEED_BITS, EncodedExample
from safekey_peft.data.rows import RowError

KEPT_FAULTS = 20
"""How many faults are kept in words; all are counted."""


@dataclass
class DataReport:
    """Counts over rows: read = used + the sum of dropped.

    Attributes:
        read: rows seen.
        used: rows with at least one example.
        truncated: used rows of which an example was cut on the right.
        dropped: reason → rows.
        examples: kind → examples.
        examples_dropped: reason → examples of *used* rows that were dropped, e.g. an over-long safe response
            beside an RTO example that fits.
        rows_feeding: loss → rows with at least one example that feeds it.
        faults: the first dropped rows, one line each.
    """

    read: int = 0
    used: int = 0
    truncated: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: Counter[str] = field(default_factory=Counter)
    examples_dropped: Counter[str] = field(default_factory=Counter)
    rows_feeding: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add_used(self, examples: Iterable[EncodedExample], faults: Iterable[RowError] = ()) -> None:
        """Count a row that yielded examples, and the faults of those it did not."""
        self.read += 1
        self.used += 1
        feeds, truncated = 0, False
        for example in examples:
            self.examples[example.kind] += 1
            feeds |= example.feeds
            truncated |= example.truncated
        self.truncated += truncated
        for fault in faults:
            self.examples_dropped[fault.reason] += 1
            self._keep(f"{fault} (the row's other examples are used)")
        for loss, bit in FEED_BITS.items():
            self.rows_feeding[loss] += bool(feeds & bit)

    def add_dropped(self, reason: str, fault: str) -> None:
        """Count a row that yielded none."""
        self.read += 1
        self.dropped[reason] += 1
        self._keep(fault)

    def _keep(self, fault: str) -> None:
        if len(self.faults) < KEPT_FAULTS:
            self.faults.append(fault)

    def merge(self, other: DataReport) -> None:
        """Add another part's counts."""
        self.read += other.read
        self.used += other.used
        self.truncated += other.truncated
        self.dropped.update(other.dropped)
        self.examples.update(other.examples)
        self.examples_dropped.update(other.examples_dropped)
        self.rows_feeding.update(other.rows_feeding)
        self.faults = (self.faults + other.faults)[:KEPT_FAULTS]

    def counts(self) -> dict[str, Any]:
        """Return the counts as the manifest writes them."""
        return {
            "rows": {
                "read": self.read,
                "used": self.used,
                "truncated": self.truncated,
                "dropped": dict(sorted(self.dropped.items())),
            },
            "examples": {kind: self.examples[kind] for kind in ("sft", "prefix", "rto")},
            "examples_dropped": dict(sorted(self.examples_dropped.items())),
            "rows_feeding": {loss: self.rows_feeding[loss] for loss in FEED_BITS},
        }

    @classmethod
    def from_counts(cls, counts: Mapping[str, Any], faults: Iterable[str] = ()) -> DataReport:
        """Read ``counts()`` back."""
        rows = counts["rows"]
        return cls(
            read=rows["read"],
            used=rows["used"],
            truncated=rows["truncated"],
            dropped=Counter(rows["dropped"]),
            examples=Counter(counts["examples"]),
            examples_dropped=Counter(counts["examples_dropped"]),
            rows_feeding=Counter(counts["rows_feeding"]),
            faults=list(faults),
        )

    def summary(self) -> str:
        """Return one line for a log."""
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common())
        return (
            f"{self.read} rows read, {self.used} used ({self.truncated} truncated), "
            f"{sum(self.dropped.values())} dropped{f' ({dropped})' if dropped else ''}; examples: "
            + ", ".join(f"{self.examples[kind]} {kind}" for kind in ("sft", "prefix", "rto"))
            + "".join(f", {count} dropped as {reason}" for reason, count in self.examples_dropped.most_common())
        )
