"""Batches: what stands where, in both kinds of isolation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from safekey_peft.data.collator import SafeKeyCollator, join_masked_segments
from tests.features import features, reference_examples

VOCABULARY = 131


def targets_of(batch: dict[str, torch.Tensor], role: str) -> list[tuple[int, int]]:
    """(token that predicts, target) pairs of a role, in the joined batch."""
    ids, _ = join_masked_segments(batch)
    rows, columns = batch[f"{role}_positions"].T
    return sorted(zip(ids[rows, columns].tolist(), batch[f"{role}_targets"].tolist(), strict=True))


@pytest.mark.parametrize(
    "settings",
    [{}, {"row_tokens": 40}, {"isolation": "rows"}, {"pad_to_multiple_of": 64}, {"one_row": True}],
    ids=str,
)
def test_every_layout_has_the_same_targets(settings: dict[str, Any]) -> None:
    batch = SafeKeyCollator(0, **settings)(features(VOCABULARY))
    plain = SafeKeyCollator(0)(features(VOCABULARY))
    for role in ("sft", "prefix", "rto", "key"):
        assert targets_of(batch, role) == targets_of(plain, role)
        assert targets_of(batch, role)
    assert sorted(batch["head_labels"].tolist()) == [0.0, 1.0, 1.0]
    assert batch["pool_members"].sum() == plain["pool_members"].sum()


def test_key_targets_are_predicted_without_the_query() -> None:
    batch = SafeKeyCollator(0)(features(VOCABULARY))
    expected = []
    for example in reference_examples(VOCABULARY):
        if example.has_marks and not example.repeats:
            visible = [*example.understanding_ids, *example.key_ids]
            start = len(example.understanding_ids)
            expected += list(zip(visible[start - 1 : -1], visible[start:], strict=True))
    assert targets_of(batch, "key") == sorted(expected)


def test_packed_segments_restart_and_rows_keep_their_positions() -> None:
    example = reference_examples(VOCABULARY)[0]
    one = features(VOCABULARY)[:1]
    packed = SafeKeyCollator(0)(one)
    _, positions = join_masked_segments(packed)
    main = 7 + 5 + 3 + 11
    assert positions[0].tolist() == [*range(main), *range(8)]
    rows = SafeKeyCollator(0, isolation="rows")(one)
    ids, positions = join_masked_segments(rows)
    assert positions[1].tolist()[:8] == list(range(7, 15))
    assert ids[1].tolist()[:8] == [*example.understanding_ids, *example.key_ids]


def test_leaving_masked_segments_out_leaves_other_positions_valid() -> None:
    batch = SafeKeyCollator(0, pad_to_multiple_of=16)(features(VOCABULARY))
    joined, _ = join_masked_segments(batch)
    assert joined.shape[1] % 16 == 0
    width = batch["input_ids"].shape[1]
    for role in ("sft", "prefix", "rto"):
        assert int(batch[f"{role}_positions"][:, 1].max()) < width
    assert int(batch["key_positions"][:, 1].min()) >= width
    assert int(batch["pool_positions"][:, 1].max()) < width


def test_packed_bins_of_the_host_stay_together() -> None:
    columns = features(VOCABULARY)
    batch = SafeKeyCollator(0)([columns[:5], columns[5:]])
    assert batch["input_ids"].shape[0] == 2
    joined = SafeKeyCollator(0, one_row=True)([columns[:5], columns[5:]])
    assert joined["input_ids"].shape[0] == 1
    assert targets_of(batch, "sft") == targets_of(joined, "sft")


def test_stock_examples_train_by_their_own_labels() -> None:
    stock = {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8], "attention_mask": [1] * 4, "safekey_tags": None}
    batch = SafeKeyCollator(0)([stock, *features(VOCABULARY)[:1]])
    assert (6, 7) in targets_of(batch, "sft") and (7, 8) in targets_of(batch, "sft")
    trained_on_input = {**stock, "labels": [5, 6, 7, 8]}
    # nothing predicts the first token
    assert targets_of(SafeKeyCollator(0)([trained_on_input]), "sft") == [(5, 6), (6, 7), (7, 8)]


def test_extra_tokens_are_counted() -> None:
    batch = SafeKeyCollator(0)(features(VOCABULARY))
    examples = [e for e in reference_examples(VOCABULARY) if not e.is_rto]
    whole = sum(len([*e.prompt_ids, *e.prefix_ids, *e.understanding_ids, *e.key_ids, *e.rest_ids]) for e in examples)
    extra = sum(len(e.understanding_ids) + len(e.key_ids) for e in examples if e.has_marks and not e.repeats)
    assert batch["example_tokens"].tolist() == [whole, extra]
