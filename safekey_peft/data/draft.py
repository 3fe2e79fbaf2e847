"""An example in the making: aligned arrays over tokens, and why an example may not be usable."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safekey_peft.core.roles import LossRole
from safekey_peft.data import tags as tag_bits
from safekey_peft.data.tags import IGNORED_LABEL, IntArray

BoolArray = NDArray[np.bool_]


class Unfit(Exception):
    """An example that cannot be used, with the slug of its reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Draft:
    """Aligned arrays over the tokens of an example's main segment, plus its [U;K].

    Attributes:
        input_ids: [T].
        starts: [T], first character of each token in the text.
        ends: [T], character after the last of each token.
        labels: [T], target ids or −100.
        tags: [T].
        masked_ids: tokens of [U;K]; ``masked_labels`` and ``masked_tags`` beside them.
        kind: of the example.
        feeds: bit set over the losses.
        untouchable: tokens on the left that truncation must leave (prefix, U and K).
    """

    def __init__(self, input_ids: IntArray, starts: IntArray, ends: IntArray) -> None:
        self.input_ids = input_ids
        self.starts = starts
        self.ends = ends
        self.labels = np.full_like(input_ids, IGNORED_LABEL)
        self.tags = np.zeros_like(input_ids)
        self.tags[0] = tag_bits.SEGMENT_START
        self.masked_ids: list[int] = []
        self.masked_labels: list[int] = []
        self.masked_tags: list[int] = []
        self.kind: Literal["sft", "prefix", "rto"] = "sft"
        self.feeds = 0
        self.untouchable = 0

    def between(self, span: tuple[int, int]) -> BoolArray:
        """Return which tokens have their first character in a span."""
        return (self.starts >= span[0]) & (self.starts < span[1])

    def set_targets(self, where: BoolArray, ids: IntArray, role: LossRole) -> None:
        """Make tokens targets of a role; ``ids`` [T] are what they should be predicted as."""
        chosen = where.copy()
        chosen[0] = False  # nothing predicts the first token
        self.labels[chosen] = ids[chosen]
        self.tags[chosen] |= int(role)

    def append_masked_segment(self, understanding: BoolArray, key_sentence: BoolArray) -> None:
        """Append [U;K], in which K is a target that does not see the query."""
        u_ids, k_ids = self.input_ids[understanding].tolist(), self.input_ids[key_sentence].tolist()
        self.masked_ids = [*u_ids, *k_ids]
        self.masked_labels = [IGNORED_LABEL] * len(u_ids) + k_ids
        self.masked_tags = [0] * len(u_ids) + [int(LossRole.KEY)] * len(k_ids)
        self.masked_tags[0] |= tag_bits.SEGMENT_START | tag_bits.QUERY_MASKED | tag_bits.SFT_LIKE

    def truncate(self, length: int) -> None:
        """Cut the main segment on the right."""
        self.input_ids, self.labels, self.tags = (
            column[:length] for column in (self.input_ids, self.labels, self.tags)
        )
