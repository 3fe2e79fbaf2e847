"""The slow reference is checked against numbers by hand, finite differences and its own second definition."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.model_zoo import FAMILIES, HIDDEN_SIZE, tiny_model
from tests.references.float64 import exact_float64
from tests.references.objective import (
    ONLY_SEPARATE_ROWS,
    ReferenceExample,
    ReferenceWeights,
    objective,
    reference_loss,
    two_forward_safekey,
)

MARKED = ReferenceExample(
    prompt_ids=(1, 40, 41, 42, 43, 44, 45),
    prefix_ids=(90, 91, 92),
    understanding_ids=(50, 51, 52, 53),
    key_ids=(60, 61, 62),
    rest_ids=(70, 71, 2),
    is_harmful=True,
    has_marks=True,
)
RTO = ReferenceExample(
    prompt_ids=(1, 40, 41),
    harmful_ids=(100, 101, 102),
    end_ids=(2,),
    refusal_token_id=7,
    kept=(True, False, True, True),
    supervised=(True, True, False, True),
)
HARMLESS = ReferenceExample(
    prompt_ids=(1, 30),
    understanding_ids=(31,),
    key_ids=(32, 33),
    rest_ids=(2,),
    is_harmful=False,
    has_marks=True,
)
PLAIN = ReferenceExample(prompt_ids=(1, 30, 31), rest_ids=(35, 36, 2))
EXAMPLES = (MARKED, RTO, HARMLESS, PLAIN, replace(MARKED, prefix_ids=(95,), repeats=True))


class BigramModel(torch.nn.Module):
    """logits_t[v] = ln(3) where v follows y_t in cyclic order, else 0; the hidden state is (y_t, 1)."""

    config = SimpleNamespace(model_type="bigram")

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.scale = torch.nn.Parameter(torch.tensor(math.log(3.0), dtype=torch.float64))

    def forward(self, input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
        following = (input_ids + 1) % self.vocab_size
        logits = self.scale * torch.nn.functional.one_hot(following, self.vocab_size)
        hidden = torch.stack([input_ids.double(), torch.ones_like(input_ids).double()], dim=-1)
        return SimpleNamespace(logits=logits, hidden_states=(hidden,))


def head_params(
    hidden_size: int = HIDDEN_SIZE, dtype: torch.dtype = torch.float64
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        f"{path}.{name}": (0.1 * torch.randn(shape, generator=generator).double()).to(dtype).requires_grad_()
        for path in ("understanding", "context")
        for name, shape in (("weight", (1, hidden_size)), ("bias", (1,)))
    }


def test_reference_gives_the_numbers_computed_by_hand() -> None:
    model = BigramModel(vocab_size=8)
    followed, other = math.log(10 / 3), math.log(10)  # partition function 3 + 7
    head = {
        "understanding.weight": torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        "understanding.bias": torch.tensor([-2.0], dtype=torch.float64),
        "context.weight": torch.tensor([[0.0, 1.0]], dtype=torch.float64),
        "context.bias": torch.tensor([0.5], dtype=torch.float64),
    }
    example = ReferenceExample(
        prompt_ids=(1, 2),
        understanding_ids=(3, 5),
        key_ids=(6, 6),
        rest_ids=(7, 0),
        is_harmful=True,
        has_marks=True,
    )
    rto = ReferenceExample(
        prompt_ids=(1, 2), harmful_ids=(3, 4), end_ids=(0,), refusal_token_id=4, kept=(True, True, False)
    )
    sums, counts, correct = two_forward_safekey(model, head, [example, rto])

    assert sums["sft"].item() == pytest.approx(4 * followed + 2 * other)  # 2>3 6>7 7>0 5>6 | 3>5 6>6
    assert sums["key"].item() == pytest.approx(followed + other)
    assert sums["rto"].item() == pytest.approx(other + followed)  # labels 4 after 2 and after 3
    assert sums["head_understanding"].item() == pytest.approx(math.log(1 + math.exp(-2.0)))  # mean 4, minus 2
    assert sums["head_context"].item() == pytest.approx(math.log(1 + math.exp(-1.5)))
    assert counts == {"sft": 6, "prefix": 0, "rto": 2, "key": 2, "head": 1}
    assert correct == {"sft": 4, "prefix": 0, "rto": 1, "key": 1, "head_understanding": 1, "head_context": 1}

    expected = (6 * followed + 3 * other - followed) / 8 + 0.2 * (followed + other) / 2
    expected += 0.2 * (0.5 * math.log(1 + math.exp(-2.0)) + 0.5 * math.log(1 + math.exp(-1.5)))
    assert objective(sums, counts, ReferenceWeights()).item() == pytest.approx(expected)


def test_counts_follow_the_definition() -> None:
    model = BigramModel(vocab_size=131)
    _, counts, _ = two_forward_safekey(model, head_params(2), EXAMPLES)
    assert counts == {"sft": 4 + 3, "prefix": 10 + 10, "rto": 2, "key": 3 + 2, "head": 2}


def test_key_sentence_without_understanding_has_no_first_target() -> None:
    example = replace(HARMLESS, understanding_ids=())
    sums, counts, _ = two_forward_safekey(BigramModel(vocab_size=131), head_params(2), [example])
    assert (counts["key"], counts["head"]) == (1, 0)
    assert sums["head_context"].item() == 0


def test_gradient_agrees_with_finite_differences() -> None:
    with exact_float64():
        model = tiny_model("llama", dtype=torch.float64)
        head = head_params()
        parameters = [*model.parameters(), *head.values()]
        gradients = torch.autograd.grad(reference_loss(model, head, EXAMPLES), parameters)
        generator = torch.Generator().manual_seed(5)
        directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
        expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)).item()
        losses = []
        with torch.no_grad():
            for step in (1e-6, -2e-6):
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.add_(step * direction)
                losses.append(reference_loss(model, head, EXAMPLES).item())
    assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masked_query_equals_understanding_and_key_alone(attention: str) -> None:
    with exact_float64(), torch.no_grad():
        model = tiny_model("llama", dtype=torch.float64, attn_implementation=attention)
        masked = two_forward_safekey(model, None, [MARKED], query_mask="attention_mask").sums["key"]
        visible = [*MARKED.understanding_ids, *MARKED.key_ids]
        restarted = model(
            input_ids=torch.tensor([visible]), position_ids=torch.arange(len(visible))[None], use_cache=False
        ).logits[0]
        alone = sum(
            torch.logsumexp(restarted[t - 1], 0) - restarted[t - 1, visible[t]]
            for t in range(len(MARKED.understanding_ids), len(visible))
        )
    assert masked.item() == pytest.approx(alone.item(), abs=1e-10)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.hides_by_mask])
def test_both_ways_of_hiding_the_query_agree(name: str) -> None:
    for attention in FAMILIES[name].attention:
        with exact_float64(), torch.no_grad():
            model = tiny_model(name, dtype=torch.float64, attn_implementation=attention)
            masked = two_forward_safekey(model, None, [MARKED], query_mask="attention_mask").sums["key"]
            alone = two_forward_safekey(model, None, [MARKED], query_mask="separate_row").sums["key"]
        assert masked.item() == pytest.approx(alone.item(), abs=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_query_does_not_reach_the_key_loss_and_reaches_the_others(name: str) -> None:
    model = tiny_model(name)
    other = replace(MARKED, prompt_ids=(1, 80, 81, 82, 83, 84, 85), prefix_ids=(93, 94, 95))
    head = head_params(dtype=torch.float32)
    with torch.no_grad():
        sums, changed = (two_forward_safekey(model, head, [example]).sums for example in (MARKED, other))
    assert sums["key"].item() == pytest.approx(changed["key"].item(), abs=1e-4)
    for role in ("prefix", "head_understanding", "head_context"):
        assert abs(sums[role].item() - changed[role].item()) > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_families_and_definitions_of_hiding_match(name: str) -> None:
    family = FAMILIES[name]
    assert family.hides_by_mask == (family.model_type not in ONLY_SEPARATE_ROWS)


def test_detached_head_gives_the_model_no_gradient() -> None:
    with exact_float64():
        model = tiny_model("llama", dtype=torch.float64)
        head = head_params()
        only_head = ReferenceWeights(key=0.0, head=1.0)
        losses = [reference_loss(model, head, [MARKED], only_head, detach_head=d) for d in (False, True)]
        plain = reference_loss(model, None, [MARKED], only_head)
        weight = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        attached, detached, without = (torch.autograd.grad(loss, weight[1])[0] for loss in (*losses, plain))
    assert torch.equal(detached, without)
    assert (attached - without).abs().max() > 1e-3
