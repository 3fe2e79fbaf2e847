"""Batches: segments in rows, index tensors for what is computed where.

A batch is a flat dictionary of tensors, so that any host can move it to a device:

    input_ids, position_ids          [B, T]      all segments but the query-masked ones; packed, [U;K] segments may
                                                 begin in what would be filling at the end of a row
    masked_columns, …_position_ids   [B, T']     the rest of the [U;K] segments, to be joined on the right, or
    masked_rows, …_position_ids      [B', T']    … below (one segment per row)
    {sft,prefix,rto,key}_positions   [N, 2]      (row, column) of the hidden state that predicts a target
    {sft,prefix,rto,key}_targets     [N]         token ids
    pool_positions                   [S, 2]      (row, column) of the states that the safety head pools
    pool_members                     [2, M, S]   1.0 where a state belongs to the span: understanding, context path
    head_labels                      [M]         1.0 harmful, 0.0 harmless
    example_tokens                   [2]         tokens of SFT-like examples, tokens of [U;K] segments

The query-masked segments stand apart so that a trainer drops them by not joining them, while the schedule has
their losses off; dataloader workers run ahead and cannot know the step. ``key_positions`` index the joined batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from safekey_peft.core.roles import TARGET_ROLES, LossRole
from safekey_peft.data.tags import Segment, split_segments, stock_tags

TAGS_COLUMN = "safekey_tags"
ROW_COLUMN = "safekey_row"
FEEDS_COLUMN = "safekey_feeds"
EXAMPLE_COLUMNS = (TAGS_COLUMN, ROW_COLUMN, FEEDS_COLUMN)

Isolation = Literal["packed", "rows"]
Placed = tuple[Segment, int, int]  # segment, row, first column


class SafeKeyCollator:
    """Collates encoded examples, packed or one by one, into a batch of segments.

    Args:
        pad_token_id: fills up rows; never attended to by a segment and never a target.
        isolation: ``packed``: segments share rows, kept apart by restarting ``position_ids``; ``rows``: every
            segment is a row of its own, for models that leak across packed segments.
        pad_to_multiple_of: round row lengths up to a multiple of this.
        row_tokens: in packed isolation, the width of a row at which attention with a dense mask costs as much per
            token as everything else. Examples that a host has not packed itself are divided into the rows that
            cost least by it: wide rows pay for attention across examples, many rows for filling up. None: all
            into one row, as variable-length kernels like it.
    """

    def __init__(
        self,
        pad_token_id: int,
        *,
        isolation: Isolation = "packed",
        pad_to_multiple_of: int | None = None,
        row_tokens: int | None = None,
        one_row: bool = False,
    ) -> None:
        self.pad_token_id = pad_token_id
        self.isolation = isolation
        self.pad_to_multiple_of = pad_to_multiple_of or 1
        self.row_tokens = row_tokens
        self.one_row = one_row

    def __call__(self, features: Sequence[Any]) -> dict[str, Tensor]:
        """Collate examples, or lists of examples where the host packed them.

        Raises:
            ValueError: an example's columns disagree.
        """
        bins: list[list[list[Segment]]]
        if features and not isinstance(features[0], Mapping):
            bins = [[_segments(example) for example in packed] for packed in features]
        else:
            bins = self._pack([_segments(example) for example in features])
        flat = [segment for packed in bins for example in packed for segment in example]
        if self.isolation == "rows":
            return self._collate_rows(flat)
        rows = [flat] if self.one_row else [[s for example in packed for s in example] for packed in bins]
        return self._collate_packed(rows, flat)

    def _pack(self, examples: list[list[Segment]]) -> list[list[list[Segment]]]:
        """Divide examples into the rows that cost least; within a row they keep their order."""
        if self.row_tokens is None or self.isolation == "rows":
            return [examples]
        lengths = [sum(len(s) for s in example if not s.query_masked) for example in examples]
        # The [U;K] segments do not count: while their losses are off they are not there, afterwards they fill rows up.
        divisions = [_divide(lengths, [0] * rows) for rows in range(1, len(examples) + 1)]
        cheapest = min(divisions, key=lambda bins: _dense_cost(bins, lengths, self.row_tokens or 0))
        return [[examples[index] for index in sorted(row)] for row in cheapest]

    def _collate_packed(self, rows: list[list[Segment]], flat: list[Segment]) -> dict[str, Tensor]:
        full = [[segment for segment in row if not segment.query_masked] for row in rows]
        filled = [sum(map(len, row)) for row in full]
        main_width = self._round_up(max(filled))
        # A [U;K] attends only to itself and need not stand in its example's row: it goes where most room is left.
        masked = [segment for segment in flat if segment.query_masked]
        for row, indices in zip(full, _divide([len(segment) for segment in masked], filled), strict=True):
            row.extend(masked[index] for index in indices)
        width = self._round_up(max(sum(map(len, row)) for row in full))
        ids, positions, placed = self._fill(full, width)
        batch = {"input_ids": ids[:, :main_width], "position_ids": positions[:, :main_width]}
        batch["masked_columns"] = ids[:, main_width:]
        batch["masked_columns_position_ids"] = positions[:, main_width:]
        batch = {name: tensor.contiguous() for name, tensor in batch.items()}
        return batch | _targets(placed) | _pools(placed) | _token_counts(flat)

    def _collate_rows(self, flat: list[Segment]) -> dict[str, Tensor]:
        main = [[segment] for segment in flat if not segment.query_masked]
        masked = [[segment] for segment in flat if segment.query_masked]
        width = self._round_up(max(len(row[0]) for row in main))
        masked_width = self._round_up(max((len(row[0]) for row in masked), default=0))
        ids, positions, placed = self._fill(main, width)
        masked_ids, masked_positions, masked_placed = self._fill(masked, masked_width)
        below = [(segment, row + len(main), column) for segment, row, column in masked_placed]
        batch = {"input_ids": ids, "position_ids": positions}
        batch["masked_rows"], batch["masked_rows_position_ids"] = masked_ids, masked_positions
        return batch | _targets(placed + below) | _pools(placed) | _token_counts(flat)

    def _fill(self, rows: list[list[Segment]], width: int) -> tuple[Tensor, Tensor, list[Placed]]:
        """Write segments into rows of ``width`` tokens."""
        ids = np.full((len(rows), width), self.pad_token_id, dtype=np.int64)
        positions = np.zeros((len(rows), width), dtype=np.int64)
        placed: list[Placed] = []
        for index, row in enumerate(rows):
            at = 0
            for segment in row:
                end = at + len(segment)
                # Rotary positions are relative, so a packed [U;K] may restart at 0, which variable-length kernels
                # need; alone in a row it keeps its positions, which learned positions need.
                first = segment.start_position if self.isolation == "rows" else 0
                ids[index, at:end] = segment.input_ids
                positions[index, at:end] = np.arange(first, first + len(segment))
                placed.append((segment, index, at))
                at = end
            if self.isolation == "rows":
                positions[index, at:] = positions[index, at - 1] if at else 0
            else:
                positions[index, at:] = np.arange(width - at)
        return torch.from_numpy(ids), torch.from_numpy(positions), placed

    def _round_up(self, tokens: int) -> int:
        return -(-tokens // self.pad_to_multiple_of) * self.pad_to_multiple_of


def join_masked_segments(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return (input_ids, position_ids) of a batch with its query-masked segments joined in.

    In rows the narrower of the two is padded on the right, where causal attention never looks.
    """
    ids, positions = batch["input_ids"], batch["position_ids"]
    if "masked_columns" in batch:
        if batch["masked_columns"].shape[1] == 0:
            return ids, positions
        return (
            torch.cat([ids, batch["masked_columns"]], dim=1),
            torch.cat([positions, batch["masked_columns_position_ids"]], dim=1),
        )
    below, below_positions = batch["masked_rows"], batch["masked_rows_position_ids"]
    if below.shape[0] == 0:
        return ids, positions
    gap = ids.shape[1] - below.shape[1]
    widen = torch.nn.functional.pad
    return (
        torch.cat([widen(ids, (0, max(-gap, 0))), widen(below, (0, max(gap, 0)))]),
        torch.cat([widen(positions, (0, max(-gap, 0))), widen(below_positions, (0, max(gap, 0)))]),
    )


def _divide(lengths: Sequence[int], filled: Sequence[int]) -> list[list[int]]:
    """Divide over rows that hold ``filled`` tokens each: the longest first, each into the row that is shortest then."""
    bins: list[list[int]] = [[] for _ in filled]
    rows = list(filled)
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        place = rows.index(min(rows))
        bins[place].append(index)
        rows[place] += lengths[index]
    return bins


def _dense_cost(bins: list[list[int]], lengths: Sequence[int], row_tokens: int) -> int:
    width = max(sum(lengths[index] for index in row) for row in bins)
    return len(bins) * width * (row_tokens + width)


def _segments(example: Mapping[str, Any]) -> list[Segment]:
    ids = np.asarray(example["input_ids"], dtype=np.int64)
    labels = np.asarray(example["labels"], dtype=np.int64)
    tags = example.get(TAGS_COLUMN)
    if tags is None:
        return split_segments(ids, labels, stock_tags(labels))
    return split_segments(ids, labels, np.asarray(tags, dtype=np.int64))


def _targets(placed: list[Placed]) -> dict[str, Tensor]:
    batch: dict[str, Tensor] = {}
    for role in TARGET_ROLES:
        positions, targets = [np.empty((0, 2), dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for segment, row, column in placed:
            at = np.flatnonzero(segment.roles == role)
            if len(at):
                # A token is predicted by the one before it, which belongs to the same segment.
                predictors = np.stack([np.full(len(at), row), column + at - 1], axis=1)
                positions.append(predictors.astype(np.int64))
                targets.append(segment.labels[at])
        name = LossRole(role).name.lower()
        batch[f"{name}_positions"] = torch.from_numpy(np.concatenate(positions))
        batch[f"{name}_targets"] = torch.from_numpy(np.concatenate(targets))
    return batch


def _pools(placed: list[Placed]) -> dict[str, Tensor]:
    pooled = [item for item in placed if item[0].head_label is not None and len(item[0].understanding)]
    positions = [np.empty((0, 2), dtype=np.int64)]
    total = sum(len(segment.context) for segment, _, _ in pooled)
    members = np.zeros((2, len(pooled), total), dtype=np.float32)
    labels = np.zeros(len(pooled), dtype=np.float32)
    at = 0
    for example, (segment, row, column) in enumerate(pooled):
        context = segment.context
        positions.append(np.stack([np.full(len(context), row), column + context], axis=1).astype(np.int64))
        inside = np.isin(context, segment.understanding)
        members[0, example, at : at + len(context)] = inside
        members[1, example, at : at + len(context)] = 1.0
        labels[example] = float(cast(int, segment.head_label))
        at += len(context)
    return {
        "pool_positions": torch.from_numpy(np.concatenate(positions)),
        "pool_members": torch.from_numpy(members),
        "head_labels": torch.from_numpy(labels),
    }


def _token_counts(flat: list[Segment]) -> dict[str, Tensor]:
    masked = sum(len(segment) for segment in flat if segment.query_masked)
    sft_like = sum(len(segment) for segment in flat if segment.sft_like and not segment.query_masked)
    return {"example_tokens": torch.tensor([sft_like, masked], dtype=torch.float32)}
