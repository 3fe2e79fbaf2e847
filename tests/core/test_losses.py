"""Sums, head and objective against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from safekey_peft.core import (
    DualPathSafetyHead,
    LossSums,
    ObjectiveCounts,
    ObjectiveWeights,
    cross_entropy_sums,
    fused_cross_entropy_sums,
    objective,
    pool_spans,
    safety_head_sums,
)


def test_cross_entropy_sums_are_per_group() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]))
    sums = cross_entropy_sums(logits, torch.tensor([0, 1, 2]), [2, 0, 1])
    assert sums.tolist() == pytest.approx([-math.log(0.5) - math.log(0.8), 0.0, -math.log(0.6)])


def test_empty_groups_are_differentiable_zeros() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    sums = cross_entropy_sums(logits, torch.zeros(0, dtype=torch.long), [0, 0])
    assert sums.tolist() == [0.0, 0.0] and sums.requires_grad
    hidden = torch.zeros(0, 4, requires_grad=True)
    fused = fused_cross_entropy_sums(hidden, torch.randn(5, 4), None, torch.zeros(0, dtype=torch.long), [0])
    assert fused.tolist() == [0.0] and fused.requires_grad


@pytest.mark.parametrize("trainable", [True, False], ids=["trained head", "frozen head"])
def test_fused_sums_and_gradients_equal_those_of_logits(trainable: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(47, 31, generator=generator, dtype=torch.float64)
    weight = torch.randn(103, 31, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 103, (47,), generator=generator)
    results = []
    for fused in (False, True):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_(trainable)
        if fused:
            sums = fused_cross_entropy_sums(h, w, None, targets, [3, 0, 31, 13])
        else:
            sums = cross_entropy_sums(h @ w.T, targets, [3, 0, 31, 13])
        (sums * torch.tensor([1.0, 2.0, 0.5, 3.0])).sum().backward()
        results.append((sums.detach(), h.grad, w.grad))
    for left, right in zip(*results, strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_sums_in_16_bits_are_computed_wide() -> None:
    logits = torch.randn(200, 97, generator=torch.Generator().manual_seed(1)).bfloat16()
    targets = torch.arange(200) % 97
    exact = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="sum")
    assert float(cross_entropy_sums(logits, targets, [200])[0]) == pytest.approx(float(exact), rel=1e-6)


def test_sizes_that_do_not_cover_the_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="do not cover 3 positions"):
        cross_entropy_sums(torch.zeros(3, 5), torch.zeros(3, dtype=torch.long), [1, 1])
    with pytest.raises(ValueError, match="differ in shape"):
        safety_head_sums(torch.zeros(3), torch.zeros(2))


def test_spans_are_pooled_by_their_mean() -> None:
    hidden = torch.arange(12.0).reshape(6, 2)
    members = torch.tensor([[[0.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]]])
    pooled = pool_spans(hidden, torch.tensor([1, 3, 5]), members)
    assert pooled.tolist() == [[[8.0, 9.0]], [[6.0, 7.0]]]


def test_head_has_two_paths_with_biases_in_float32() -> None:
    head = DualPathSafetyHead(3)
    assert {name: p.dtype for name, p in head.named_parameters()} == dict.fromkeys(
        ["understanding.weight", "understanding.bias", "context.weight", "context.bias"], torch.float32
    )
    with torch.no_grad():
        for parameter, value in zip(head.parameters(), (1.0, 0.5, 2.0, -1.0), strict=True):
            parameter.fill_(value)
    understanding, context = head(torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(2, 3, dtype=torch.bfloat16))
    assert understanding.tolist() == [3.5, 3.5] and context.tolist() == [5.0, 5.0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(torch.ones(1, 3), torch.ones(1, 3))[0].dtype == torch.float32


def test_head_loss_is_binary_cross_entropy() -> None:
    sums = safety_head_sums(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]))
    assert float(sums) == pytest.approx(math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)), rel=1e-6)


def test_objective_divides_sums_by_counts_of_the_step() -> None:
    sums = LossSums(*(torch.tensor(value) for value in (10.0, 5.0, 8.0, 6.0, 3.0, 4.0)))
    value = objective(sums, ObjectiveCounts(lm=20, key=3, head=2), ObjectiveWeights(0.5, 0.2, 0.4, 0.25))
    assert float(value) == pytest.approx((10 + 5 + 0.5 * 8) / 20 + 0.2 * 6 / 3 + 0.4 * (0.25 * 3 + 0.75 * 4) / 2)


def test_objective_of_parts_adds_up() -> None:
    first = LossSums(*(torch.tensor(v, dtype=torch.float64) for v in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)))
    second = LossSums(*(torch.tensor(v, dtype=torch.float64) for v in (6.0, 0.0, 1.0, 0.0, 2.0, 2.0)))
    whole = LossSums(*(getattr(first, name) + getattr(second, name) for name in LossSums.__slots__))
    counts, weights = ObjectiveCounts(30, 2, 1) + ObjectiveCounts(10, 3, 4), ObjectiveWeights()
    parts = objective(first, counts, weights) + objective(second, counts, weights)
    assert float(parts) == pytest.approx(float(objective(whole, counts, weights)), rel=1e-12)


def test_counts_of_zero_belong_to_terms_that_are_zero() -> None:
    zeros = LossSums(*(torch.zeros((), requires_grad=True) for _ in range(6)))
    value = objective(zeros, ObjectiveCounts(0, 0, 0), ObjectiveWeights())
    assert float(value.detach()) == 0.0 and value.requires_grad
