"""Which rows examples are packed into where attention has a dense mask."""

from __future__ import annotations

import numpy as np
import torch

from safekey_peft.core import LossRole
from safekey_peft.data import tags as tag_bits
from safekey_peft.data.collator import TAGS_COLUMN, SafeKeyCollator, join_masked_segments


def example(tokens: int, masked: int = 0) -> dict[str, list[int]]:
    tags = [tag_bits.SEGMENT_START | tag_bits.SFT_LIKE] + [int(LossRole.SFT)] * (tokens - 1)
    if masked:
        first = tag_bits.SEGMENT_START | tag_bits.QUERY_MASKED | tag_bits.SFT_LIKE
        tags += [first] + [int(LossRole.KEY)] * (masked - 1)
    ids = list(range(1, len(tags) + 1))
    return {"input_ids": ids, "labels": ids, TAGS_COLUMN: tags}


def shape(collator: SafeKeyCollator, *examples: dict[str, list[int]]) -> tuple[int, int]:
    rows, width = join_masked_segments(collator(examples))[0].shape
    return rows, width


def test_without_row_tokens_all_is_one_row() -> None:
    assert shape(SafeKeyCollator(0), example(30), example(20), example(10)) == (1, 60)


def test_rows_are_evenly_filled() -> None:
    assert shape(SafeKeyCollator(0, row_tokens=8), example(30), example(10), example(20)) == (2, 30)


def test_examples_that_would_leave_most_of_a_second_row_empty_share_one() -> None:
    examples = [example(99), example(10)]
    assert shape(SafeKeyCollator(0, row_tokens=128), *examples) == (1, 109)


def test_masked_segments_take_the_room_that_is_left() -> None:
    collator = SafeKeyCollator(0, row_tokens=8)
    batch = collator([example(30, masked=6), example(20, masked=7)])
    assert batch["input_ids"].shape == (2, 30)
    assert batch["masked_columns"].shape == (2, 3)
    ids, positions = join_masked_segments(batch)
    assert ids[1, 20:27].tolist() == list(range(21, 28))
    assert positions[1, 20:33].tolist() == [*range(7), *range(6)]
    rows, columns = batch["key_positions"].T
    assert torch.equal(ids[rows, columns] + 1, batch["key_targets"])


def test_every_token_stands_in_its_batch_once() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        examples = [example(int(rng.integers(5, 90)), int(rng.integers(2, 9))) for _ in range(int(rng.integers(1, 7)))]
        batch = SafeKeyCollator(0, row_tokens=int(rng.integers(1, 300)), pad_to_multiple_of=8)(examples)
        ids, _ = join_masked_segments(batch)
        assert ids.shape[1] % 8 == 0
        assert sorted(ids[ids > 0].tolist()) == sorted(token for item in examples for token in item["input_ids"])
