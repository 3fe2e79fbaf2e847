"""Examples with real lengths and random token ids, with the package's own tags.

Token ids do not change what a step costs, lengths do. Harmful responses are synthetic: sentences of a potion world, in
lengths as red-teaming sets have them, cut into prefixes by the package's own draw.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.lengths import RowLengths
from safekey_peft.core import LossRole
from safekey_peft.data import tags as tag_bits
from safekey_peft.data.collator import TAGS_COLUMN
from safekey_peft.data.prefixes import draw_prefix
from safekey_peft.data.tags import IGNORED_LABEL

RESERVED_IDS = 4
PAD_ID, TURN_END_ID, REFUSAL_ID = 0, 1, 2
EMPTY_PREFIX_SHARE = 0.3333

HARMFUL_WORDS = (
    "first stir the shimmering nightshade root slowly into the cauldron until a dark vapour rises then add three"
    " drops of wyrmglass oil while whispering the sealed counter rune and keep the flame low"
).split()
MEDIAN_HARMFUL_WORDS, SPREAD, MOST_HARMFUL_WORDS = 90, 0.6, 400
LONG_WORD_CHARS = 9
"""A word this long counts as two tokens, the others as one."""

Example = dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The same rows as the different losses see them.

    Attributes:
        plain: SFT examples without tags, as a stock dataset has them.
        safekey: with [U;K] segments and head labels.
        all_losses: also with a harmful prefix, and an RTO example per row.
    """

    plain: list[Example]
    safekey: list[Example]
    all_losses: list[Example]


def choose_batches(lengths: Sequence[RowLengths], batches: int, rows: int) -> list[list[RowLengths]]:
    """Deal rows at evenly spaced quantiles of the length into batches, so that few rows stand for all."""
    ordered = sorted(lengths, key=lambda row: row.example)
    total = batches * rows
    chosen = [ordered[int((rank + 0.5) * len(ordered) / total)] for rank in range(total)]
    return [chosen[index::batches] for index in range(batches)]


def build_micro_batch(rows: Sequence[RowLengths], vocabulary: int, seed: int) -> MicroBatch:
    """Fill lengths with random token ids; half of the rows count as harmful."""
    rng = random.Random(seed)
    plain, safekey, everything = [], [], []
    for number, row in enumerate(rows):
        query, response = _ids(rng, row.query, vocabulary), _ids(rng, row.response, vocabulary)
        harmful_text = _harmful_text(rng)
        harmful = _ids(rng, _tokens(harmful_text), vocabulary)
        prefix = harmful[: _tokens(draw_prefix(harmful_text, EMPTY_PREFIX_SHARE, rng))]
        is_harmful = number % 2 == 0
        plain.append(
            {name: column for name, column in _safe(row, query, [], response, None).items() if name != TAGS_COLUMN}
        )
        safekey.append(_safe(row, query, [], response, is_harmful))
        everything.append(_safe(row, query, prefix, response, is_harmful))
        everything.append(_rto(query, harmful))
    return MicroBatch(plain, safekey, everything)


def _safe(
    row: RowLengths, query: list[int], prefix: list[int], response: list[int], is_harmful: bool | None
) -> Example:
    before = len(query) + len(prefix)
    role = LossRole.PREFIX if prefix else LossRole.SFT
    ids = [*query, *prefix, *response]
    labels = [IGNORED_LABEL] * before + response
    tags = [0] * before + [int(role)] * len(response)
    tags[0] |= tag_bits.SEGMENT_START | tag_bits.SFT_LIKE
    if is_harmful is not None and row.key:
        tags[0] |= tag_bits.head_label_bits(is_harmful)
        end = before + row.understanding
        for place in range(end):
            tags[place] |= tag_bits.CONTEXT | (tag_bits.UNDERSTANDING if place >= before else 0)
        key = response[row.understanding : row.understanding + row.key]
        ids += [*response[: row.understanding], *key]
        labels += [IGNORED_LABEL] * row.understanding + key
        first = tag_bits.SEGMENT_START | tag_bits.QUERY_MASKED | tag_bits.SFT_LIKE
        tags += [first] + [0] * (row.understanding - 1) + [int(LossRole.KEY)] * row.key
    return {"input_ids": ids, "labels": labels, TAGS_COLUMN: tags}


def _rto(query: list[int], harmful: list[int]) -> Example:
    targets = len(harmful) + 1
    tags = [0] * len(query) + [int(LossRole.RTO)] * targets
    tags[0] |= tag_bits.SEGMENT_START
    return {
        "input_ids": [*query, *harmful, TURN_END_ID],
        "labels": [IGNORED_LABEL] * len(query) + [REFUSAL_ID] * targets,
        TAGS_COLUMN: tags,
    }


def _harmful_text(rng: random.Random) -> str:
    words = min(max(int(rng.lognormvariate(0.0, SPREAD) * MEDIAN_HARMFUL_WORDS), 8), MOST_HARMFUL_WORDS)
    return " ".join(rng.choices(HARMFUL_WORDS, k=words))


def _tokens(text: str) -> int:
    return sum(2 if len(word) >= LONG_WORD_CHARS else 1 for word in text.split())


def _ids(rng: random.Random, count: int, vocabulary: int) -> list[int]:
    return [rng.randrange(RESERVED_IDS, vocabulary) for _ in range(count)]


def count_tokens(examples: Sequence[Any]) -> int:
    """Tokens of all segments."""
    return sum(len(example["input_ids"]) for example in examples)
