"""Token tags: all that a loss needs to know about a token, packed into one integer.

One integer column survives what hosts do to a dataset (filters, shuffles, packing, caches), where a nested
structure would not. Layout of a tag, lowest bit first:

    bits 0–2   loss role of the token as a *target* (``LossRole``)
    bit  3     first token of a segment
    bit  4     the segment is a query-masked one, [U;K]
    bit  5     pooled by the understanding path
    bit  6     pooled by the context path
    bits 7–8   on the first token of a segment: label of the head, 0 none, 1 harmless, 2 harmful
    bit  9     the segment belongs to an SFT-like example (for ``tokens_extra_fraction``)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safekey_peft.core.roles import LossRole

ROLE_MASK = 0b111
SEGMENT_START = 1 << 3
QUERY_MASKED = 1 << 4
UNDERSTANDING = 1 << 5
CONTEXT = 1 << 6
LABEL_SHIFT = 7
LABEL_MASK = 0b11 << LABEL_SHIFT
SFT_LIKE = 1 << 9

IGNORED_LABEL = -100

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of tokens that attends only to itself, decoded from an example's columns.

    Attributes:
        input_ids: [T], token ids.
        labels: [T], the id each token has as a target, or −100; for RTO not the token itself.
        roles: [T], ``LossRole`` of each target.
        start_position: position id of the first token (as if the segment had not been cut out of its row).
        query_masked: whether this is [U;K].
        sft_like: whether it belongs to an SFT-like example (not RTO).
        understanding: [n], token offsets that the understanding path pools.
        context: [m], token offsets that the context path pools.
        head_label: 1 harmful, 0 harmless, None: no head loss.
    """

    input_ids: IntArray
    labels: IntArray
    roles: IntArray
    start_position: int
    query_masked: bool
    sft_like: bool
    understanding: IntArray
    context: IntArray
    head_label: int | None

    def __len__(self) -> int:
        """Return the number of tokens."""
        return int(self.input_ids.shape[0])


def head_label_bits(is_harmful: bool | None) -> int:
    """Return the tag bits of a head label."""
    return 0 if is_harmful is None else (2 if is_harmful else 1) << LABEL_SHIFT


def stock_tags(labels: IntArray) -> IntArray:
    """Return tags for an example of another dataset type: one segment, its own labels are SFT targets."""
    tags = np.where(labels != IGNORED_LABEL, int(LossRole.SFT), 0).astype(np.int64)
    if len(tags):
        tags[0] |= SEGMENT_START | SFT_LIKE
        # The first token has no predecessor that could predict it.
        tags[0] &= ~ROLE_MASK
    return tags


def split_segments(input_ids: IntArray, labels: IntArray, tags: IntArray) -> list[Segment]:
    """Cut an example into its segments.

    Args:
        input_ids: [T].
        labels: [T].
        tags: [T]; the first must start a segment.

    Raises:
        ValueError: the columns disagree, i.e. something cut or changed an example after it was encoded.
    """
    if not (len(input_ids) == len(labels) == len(tags)) or len(tags) == 0 or not tags[0] & SEGMENT_START:
        raise ValueError(
            f"columns of an example disagree (input_ids {len(input_ids)}, labels {len(labels)}, tags {len(tags)}): "
            "it was changed after encoding; prepare the data again"
        )
    starts = np.flatnonzero(tags & SEGMENT_START)
    segments = []
    offset = 0
    for start, end in zip(starts, [*starts[1:], len(tags)], strict=True):
        tag = tags[start:end]
        roles = tag & ROLE_MASK
        masked = bool(tag[0] & QUERY_MASKED)
        understanding = np.flatnonzero(tag & UNDERSTANDING)
        if not masked and len(understanding):
            # [U;K] follows its own main segment; its tokens keep the positions that U has there.
            offset = int(understanding[0])
        label = int((tag[0] & LABEL_MASK) >> LABEL_SHIFT)
        segments.append(
            Segment(
                input_ids=input_ids[start:end],
                labels=np.where(roles != LossRole.NONE, labels[start:end], IGNORED_LABEL),
                roles=roles,
                start_position=offset if masked else 0,
                query_masked=masked,
                sft_like=bool(tag[0] & SFT_LIKE),
                understanding=understanding,
                context=np.flatnonzero(tag & CONTEXT),
                head_label=None if label == 0 else label - 1,
            )
        )
    return segments
