"""Which losses the training rows feed, read from the prepared data itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from safekey_peft.config import FLAG_PREFIX, SafeKeyConfig, preset_losses
from safekey_peft.data.collator import FEEDS_COLUMN, ROW_COLUMN, TAGS_COLUMN
from safekey_peft.data.encoder import FEED_BITS
from safekey_peft.data.tags import LABEL_MASK, LABEL_SHIFT
from safekey_peft.errors import ConfigError, DataError

_NEEDS = {
    "dual_path": "rows with is_harmful and marks (understanding_end, key_sentence_end)",
    "query_mask": "rows with marks (understanding_end, key_sentence_end)",
    "harmful_prefix": "rows with a response and a harmful_response",
    "rto": "rows with a harmful_response",
}


def rows_feeding(dataset: Any) -> dict[str, int]:
    """Count the distinct rows that feed each loss.

    Args:
        dataset: a ``datasets.Dataset``, or any sized dataset of encoded examples.

    Raises:
        ConfigError: a stream, whose rows cannot be counted beforehand.
    """
    if not hasattr(dataset, "__len__"):
        raise ConfigError(
            "streamed data cannot be checked before training; prepare it (streaming: false) so that a loss "
            "without rows is found"
        )
    if hasattr(dataset, "column_names"):
        if FEEDS_COLUMN not in dataset.column_names:
            return dict.fromkeys(FEED_BITS, 0)
        table = dataset.with_format(None)
        feeds, rows = table[FEEDS_COLUMN][:], table[ROW_COLUMN][:]
    else:
        items = [dataset[index] for index in range(len(dataset))]
        feeds = [item.get(FEEDS_COLUMN) for item in items]
        rows = [item.get(ROW_COLUMN, index) for index, item in enumerate(items)]
    known = [(feed, row) for feed, row in zip(feeds, rows, strict=True) if feed is not None]
    bits = np.asarray([feed for feed, _ in known], dtype=np.int64)
    keys = np.asarray([row for _, row in known], dtype=np.int64)
    return {loss: len(np.unique(keys[bits & bit != 0])) for loss, bit in FEED_BITS.items()}


def head_labels(dataset: Any) -> tuple[int, int]:
    """Count harmless and harmful examples that the safety head learns from.

    Args:
        dataset: as for ``rows_feeding``.
    """
    # The label stands on an example's first token.
    if hasattr(dataset, "column_names"):
        import pyarrow.compute as arrow

        tags = dataset.select_columns([TAGS_COLUMN]).with_format("arrow")[:][TAGS_COLUMN]
        first = arrow.list_element(tags, 0).drop_null().to_numpy()
    else:
        first = np.asarray([item[TAGS_COLUMN][0] for item in dataset if item.get(TAGS_COLUMN)], dtype=np.int64)
    labels = (first & LABEL_MASK) >> LABEL_SHIFT
    return int((labels == 1).sum()), int((labels == 2).sum())


def warn_of_single_class(dataset: Any) -> str | None:
    """Return a warning where all head labels are the same: the head then learns a constant."""
    harmless, harmful = head_labels(dataset)
    if (harmless == 0) == (harmful == 0):
        return None
    only = "harmful" if harmful else "harmless"
    return (
        f"safekey: all {harmless + harmful} labelled rows are {only}, so the safety head can only learn a constant; "
        f"add {'harmless' if harmful else 'harmful'} rows with marks"
    )


def require_rows(config: SafeKeyConfig, feeding: Mapping[str, int]) -> None:
    """Stop a run in which a switched-on loss has no row.

    Raises:
        DataError: names every such loss and what would feed it.
    """
    starved = [loss for loss in config.active if not feeding[loss]]
    by_preset = [loss for loss in starved if config.preset and loss in preset_losses(config.preset)]
    if starved:
        raise DataError(
            "; ".join(
                f"{FLAG_PREFIX}{loss} is on but no training row feeds it: it needs {_NEEDS[loss]}"
                + (", or safekey_annotation: rule" if loss in ("dual_path", "query_mask") else "")
                for loss in starved
            )
            + ". Add such rows or switch the loss off"
            + (f", beside safekey_preset: {config.preset} with {_switched_off(by_preset)}." if by_preset else ".")
        )


def _switched_off(losses: list[str]) -> str:
    return " and ".join(f"{FLAG_PREFIX}{loss}: false" for loss in losses)
