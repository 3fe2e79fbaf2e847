"""Each tiny model runs, and its isolation of packed segments is what the zoo says."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from tests.model_zoo import FAMILIES, HIDDEN_SIZE, VOCAB_SIZE, tiny_model
from tests.references.objective import hiding_mask

VARIANTS = [(name, attention) for name, family in FAMILIES.items() for attention in family.attention]
FIRST_TOKENS, SECOND_TOKENS = 13, 11


def random_ids(n_tokens: int, seed: int) -> torch.Tensor:
    return torch.randint(3, VOCAB_SIZE, (1, n_tokens), generator=torch.Generator().manual_seed(seed))


def logits_of(
    model: PreTrainedModel, ids: torch.Tensor, positions: torch.Tensor, use_cache: bool = False
) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=use_cache).logits


def largest_difference(left: torch.Tensor, right: torch.Tensor) -> float:
    return (left - right).abs().max().item()


@pytest.mark.parametrize(("name", "attention"), VARIANTS)
def test_tiny_model_runs_forward_and_backward(name: str, attention: str) -> None:
    model = tiny_model(name, attn_implementation=attention)
    ids = random_ids(FIRST_TOKENS, seed=1)
    output = model(input_ids=ids, use_cache=False)
    assert output.logits.shape == (1, FIRST_TOKENS, VOCAB_SIZE)
    assert 0.3 < output.logits.std().item() < 3
    output.logits.logsumexp(-1).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.get_input_embeddings().weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_last_hidden_state_is_what_the_lm_head_reads(name: str) -> None:
    model = tiny_model(name)
    read = []
    model.get_output_embeddings().register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    with torch.no_grad():
        hidden = model(
            input_ids=random_ids(FIRST_TOKENS, seed=1), use_cache=False, output_hidden_states=True
        ).hidden_states
    assert hidden[-1].shape == (1, FIRST_TOKENS, HIDDEN_SIZE)
    assert torch.equal(hidden[-1], read[0])
    assert largest_difference(hidden[-2], read[0]) > 0.5  # the final norm lies between


@pytest.mark.parametrize("name", ["gpt_oss", "opt"])
def test_leaking_attention_models_obey_an_explicit_mask(name: str) -> None:
    model = tiny_model(name)
    first, second = random_ids(FIRST_TOKENS, 1), random_ids(SECOND_TOKENS, 3)
    own = torch.arange(SECOND_TOKENS)[None]
    with torch.no_grad():
        packed = model(
            input_ids=torch.cat([first, second], dim=1),
            position_ids=torch.cat([torch.arange(FIRST_TOKENS)[None], own], dim=1),
            attention_mask=hiding_mask(model, FIRST_TOKENS, FIRST_TOKENS + SECOND_TOKENS),
            use_cache=False,
        ).logits[:, FIRST_TOKENS:]
    assert largest_difference(packed, logits_of(model, second, own)) < 1e-4


@pytest.mark.parametrize(("name", "attention"), VARIANTS)
def test_isolation_of_packed_segments_is_what_the_zoo_says(name: str, attention: str) -> None:
    model = tiny_model(name, attn_implementation=attention)
    first, changed, second = (
        random_ids(FIRST_TOKENS, 1),
        random_ids(FIRST_TOKENS, 2),
        random_ids(SECOND_TOKENS, 3),
    )
    own = torch.arange(SECOND_TOKENS)[None]
    positions = torch.cat([torch.arange(FIRST_TOKENS)[None], own], dim=1)
    packed, disturbed = (
        logits_of(model, torch.cat([other, second], dim=1), positions)[:, FIRST_TOKENS:]
        for other in (first, changed)
    )
    alone = logits_of(model, second, own)
    if attention in FAMILIES[name].isolates:
        assert torch.equal(packed, disturbed)
        assert largest_difference(packed, alone) < 1e-4
    else:
        assert largest_difference(packed, disturbed) > 0.5
        assert largest_difference(packed, alone) > 0.5


@pytest.mark.parametrize("name", FAMILIES)
def test_restarted_positions_are_exact_where_the_zoo_says(name: str) -> None:
    model = tiny_model(name)
    ids = random_ids(SECOND_TOKENS, seed=3)
    restarted, kept = (
        logits_of(model, ids, torch.arange(start, start + SECOND_TOKENS)[None]) for start in (0, 40)
    )
    assert (largest_difference(restarted, kept) < 1e-4) == FAMILIES[name].restart_is_exact


def test_packed_segments_leak_when_the_cache_is_on() -> None:
    model = tiny_model("llama")
    ids = random_ids(FIRST_TOKENS + SECOND_TOKENS, seed=1)
    positions = torch.cat([torch.arange(FIRST_TOKENS), torch.arange(SECOND_TOKENS)])[None]
    isolated, leaking = (logits_of(model, ids, positions, use_cache=use_cache) for use_cache in (False, True))
    assert largest_difference(isolated, leaking) > 0.5


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "falcon_h1"])
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    state = torch.get_rng_state()
    first, same = tiny_model(name), tiny_model(name, dtype=torch.float64)
    other = tiny_model(name, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(first.parameters(), same.parameters(), strict=True))
    assert all(torch.equal(a.double(), b) for a, b in pairs)
    assert not torch.equal(first.get_input_embeddings().weight, other.get_input_embeddings().weight)


def test_sizes_can_be_chosen() -> None:
    model = tiny_model("llama", vocab_size=64, hidden_size=64, num_hidden_layers=1, tie_word_embeddings=True)
    assert model.get_input_embeddings().weight.shape == (64, 64)
