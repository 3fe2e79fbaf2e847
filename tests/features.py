"""Reference examples, and the same as encoded examples: written here by hand, without the encoder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from safekey_peft.core.roles import LossRole
from safekey_peft.data import tags as bits
from tests.references.objective import ReferenceExample

REFUSAL = 11


def reference_examples(vocabulary: int, seed: int = 0) -> list[ReferenceExample]:
    """Eight examples of odd sizes: marks and none, labels and none, prefixes, RTO with and without kept positions."""
    rng = random.Random(seed)

    def ids(count: int) -> list[int]:
        return [rng.randrange(12, vocabulary) for _ in range(count)]

    def sft(x: int, p: int, u: int, k: int, r: int, harmful: bool | None, **more: Any) -> ReferenceExample:
        return ReferenceExample(ids(x), ids(p), ids(u), ids(k), ids(r), harmful, True, **more)

    def rto(x: int, h: int, kept: bool = False) -> ReferenceExample:
        flags = [rng.random() < 0.5 for _ in range(h + 1)] if kept else []
        supervised = [i != 2 for i in range(h + 1)]
        return ReferenceExample(
            ids(x), harmful_ids=ids(h), end_ids=ids(1), refusal_token_id=REFUSAL, kept=flags, supervised=supervised
        )

    return [
        sft(7, 0, 5, 3, 11, True),
        sft(3, 0, 1, 1, 2, False),
        sft(9, 4, 6, 5, 7, True),
        rto(7, 13),
        ReferenceExample(ids(5), rest_ids=ids(9)),
        sft(11, 0, 3, 7, 1, None),
        rto(5, 9, kept=True),
        sft(4, 6, 2, 2, 5, False, repeats=True),
    ]


def feature(example: ReferenceExample, row: int = 0) -> dict[str, Any]:
    """The example as dataset columns."""
    if example.is_rto:
        return _rto_feature(example, row)
    prompt = [*example.prompt_ids, *example.prefix_ids]
    response = [*example.understanding_ids, *example.key_ids, *example.rest_ids]
    ids = prompt + response
    role = int(LossRole.PREFIX if example.prefix_ids else LossRole.SFT)
    labels = [-100] * len(prompt) + response
    tags = [0] * len(prompt) + [role] * len(response)
    tags[0] |= bits.SEGMENT_START | bits.SFT_LIKE
    feeds = 4 if example.prefix_ids else 0
    if example.has_marks and not example.repeats:
        first, last = len(prompt), len(prompt) + len(example.understanding_ids)
        for index in range(last):
            tags[index] |= bits.CONTEXT
        for index in range(first, last):
            tags[index] |= bits.UNDERSTANDING
        tags[0] |= bits.head_label_bits(example.is_harmful)
        masked_tags = [0] * len(example.understanding_ids) + [int(LossRole.KEY)] * len(example.key_ids)
        masked_tags[0] |= bits.SEGMENT_START | bits.QUERY_MASKED | bits.SFT_LIKE
        ids = ids + [*example.understanding_ids, *example.key_ids]
        labels = labels + [-100] * len(example.understanding_ids) + [*example.key_ids]
        tags = tags + masked_tags
        feeds |= 2 | (1 if example.is_harmful is not None else 0)
    return _columns(ids, labels, tags, row, feeds)


def _rto_feature(example: ReferenceExample, row: int) -> dict[str, Any]:
    answer = [*example.harmful_ids, *example.end_ids]
    ids = [*example.prompt_ids, *answer]
    chosen = [
        (not example.kept or example.kept[i]) and (not example.supervised or example.supervised[i])
        for i in range(len(answer))
    ]
    labels = [-100] * len(example.prompt_ids) + [REFUSAL if keep else -100 for keep in chosen]
    tags = [0] * len(example.prompt_ids) + [int(LossRole.RTO) if keep else 0 for keep in chosen]
    tags[0] |= bits.SEGMENT_START
    return _columns(ids, labels, tags, row, 8)


def _columns(ids: Sequence[int], labels: Sequence[int], tags: Sequence[int], row: int, feeds: int) -> dict[str, Any]:
    return {
        "input_ids": list(ids),
        "attention_mask": [1] * len(ids),
        "labels": list(labels),
        "safekey_tags": list(tags),
        "safekey_row": row,
        "safekey_feeds": feeds,
    }


def features(vocabulary: int, seed: int = 0) -> list[dict[str, Any]]:
    """All reference examples as dataset columns, each a row of its own."""
    return [feature(example, row) for row, example in enumerate(reference_examples(vocabulary, seed))]
