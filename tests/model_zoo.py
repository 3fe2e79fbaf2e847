"""Tiny randomly initialised causal language models, one per architecture family.

Sizes are odd on purpose (hidden 48, vocabulary 131), weights are large (standard deviation 0.2 instead of
0.02) so that a leak between segments or a forgotten scale is far above rounding, and the 1-D parameters (norm
gains, biases, sinks) are moved off their constant initial values so that a dropped bias or a missing final
norm shows.

Configurations keep the `use_cache=True` of the library: a caller that packs segments has to pass
`use_cache=False`, because with a cache transformers does not look for packed segments in `position_ids` and
attends across them.

Compare like with like: `gemma2` under sdpa leaves out the soft-capping of attention scores, and
`falcon_alibi` adds its bias differently under eager and sdpa, so the two implementations give other logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

HIDDEN_SIZE = 48
VOCAB_SIZE = 131
WEIGHT_STD = 0.2
SLIDING_WINDOW_TOKENS = 5

_ATTENTION = {
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_MAMBA_2 = {
    "mamba_d_ssm": 64,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_state": 16,
    "mamba_chunk_size": 8,
}


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture of the zoo.

    Attributes:
        model_type: the `model_type` of transformers.
        settings: arguments of the configuration, without vocabulary and special tokens.
        isolates: attention implementations under which segments packed into one row with restarting
            `position_ids`, `attention_mask=None` and `use_cache=False` neither see nor disturb one another
            (measured).
        hides_by_mask: whether a 4-D attention mask can hide a stretch of tokens completely.
        restart_is_exact: whether [U;K] with restarted positions equals [U;K] with the positions it has in the
            full row.
        attention: attention implementations the family can run with.
    """

    model_type: str
    settings: Mapping[str, Any]
    isolates: tuple[str, ...] = ("eager", "sdpa")
    hides_by_mask: bool = True
    restart_is_exact: bool = True
    attention: tuple[str, ...] = ("eager", "sdpa")


def _rope(**settings: Any) -> dict[str, Any]:
    return {**_ATTENTION, **settings}


_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
_MIXED = {
    "sliding_window": SLIDING_WINDOW_TOKENS,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": Family("llama", _rope()),
        "qwen2": Family("qwen2", _rope()),
        "qwen3": Family("qwen3", _rope(head_dim=16)),
        "qwen3_moe": Family(
            "qwen3_moe", _rope(head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
        ),
        "mistral": Family("mistral", _rope(sliding_window=None)),
        "mistral_sliding": Family("mistral", _rope(sliding_window=SLIDING_WINDOW_TOKENS)),
        "mixtral": Family("mixtral", _rope(**_MOE)),
        "gemma2": Family(
            "gemma2",
            _rope(
                head_dim=12,
                query_pre_attn_scalar=12,
                num_hidden_layers=2,
                sliding_window=SLIDING_WINDOW_TOKENS,
                attn_logit_softcapping=2.0,
                final_logit_softcapping=3.0,
            ),
        ),
        "gemma3": Family(
            "gemma3_text",
            _rope(head_dim=12, query_pre_attn_scalar=12, num_hidden_layers=3, **_MIXED),
        ),
        "phi3": Family("phi3", _rope(original_max_position_embeddings=512)),
        "granite": Family(
            "granite",
            _rope(
                embedding_multiplier=3.0,
                logits_scaling=2.0,
                residual_multiplier=0.7,
                attention_multiplier=0.2,
            ),
        ),
        "deepseek_v3": Family(
            "deepseek_v3",
            _rope(
                num_key_value_heads=4,
                q_lora_rank=24,
                kv_lora_rank=16,
                qk_rope_head_dim=8,
                qk_nope_head_dim=8,
                v_head_dim=12,
                n_routed_experts=4,
                num_experts_per_tok=2,
                n_group=2,
                topk_group=1,
                n_shared_experts=1,
                first_k_dense_replace=1,
                moe_intermediate_size=24,
            ),
        ),
        "gpt_oss": Family(
            "gpt_oss",
            _rope(
                head_dim=12,
                num_hidden_layers=3,
                rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
                **_MOE,
                **_MIXED,
            ),
            isolates=(),
            attention=("eager",),
        ),
        "gpt2": Family(
            "gpt2",
            {
                "n_embd": HIDDEN_SIZE,
                "n_layer": 2,
                "n_head": 4,
                "n_positions": 512,
                "resid_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "attn_pdrop": 0.0,
            },
            restart_is_exact=False,
        ),
        "opt": Family(
            "opt",
            {
                "hidden_size": HIDDEN_SIZE,
                "word_embed_proj_dim": HIDDEN_SIZE,
                "ffn_dim": 80,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "max_position_embeddings": 512,
                "dropout": 0.0,
            },
            isolates=(),
            restart_is_exact=False,
        ),
        "falcon_alibi": Family(
            "falcon",
            {"hidden_size": HIDDEN_SIZE, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
            isolates=(),
            hides_by_mask=False,
        ),
        "falcon_h1": Family("falcon_h1", _rope(head_dim=12, **_MAMBA_2), isolates=(), hides_by_mask=False),
        "lfm2": Family(
            "lfm2",
            _rope(layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
            isolates=(),
            hides_by_mask=False,
        ),
        "qwen3_next": Family(
            "qwen3_next",
            _rope(
                head_dim=12,
                layer_types=["linear_attention", "full_attention"],
                linear_num_key_heads=2,
                linear_num_value_heads=4,
                linear_key_head_dim=8,
                linear_value_head_dim=8,
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=24,
                shared_expert_intermediate_size=24,
            ),
            isolates=(),
            hides_by_mask=False,
        ),
        "mamba2": Family(
            "mamba2",
            {
                "hidden_size": HIDDEN_SIZE,
                "num_heads": 12,
                "head_dim": 8,
                "state_size": 16,
                "num_hidden_layers": 2,
                "n_groups": 1,
                "chunk_size": 8,
            },
            isolates=(),
            hides_by_mask=False,
            attention=("eager",),
        ),
    }
)


def tiny_model(
    name: str,
    vocab_size: int = VOCAB_SIZE,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    seed: int = 0,
    **overrides: Any,
) -> PreTrainedModel:
    """Build one tiny model of the zoo, in evaluation mode.

    The weights depend on the family, the sizes and the seed alone: float32 and float64 models have the same
    values, and the global random state is left as it was.

    Args:
        name: a key of `FAMILIES`.
        vocab_size: tokens in the vocabulary; ids 0, 1, 2 are padding, beginning and end.
        dtype: floating type of all parameters and buffers.
        attn_implementation: `eager`, `sdpa` or None for the library's choice.
        seed: seed of the weights.
        overrides: further configuration values, for example `hidden_size=64`.

    Returns:
        The model; `model.zoo_family` names its family.
    """
    family = FAMILIES[name]
    settings = {
        "vocab_size": vocab_size,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        **family.settings,
        **overrides,
    }
    config = AutoConfig.for_model(family.model_type, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            config, attn_implementation=attn_implementation, dtype=torch.float32
        )
    _enlarge_weights(model, seed)
    if dtype == torch.float64 and getattr(config, "_experts_implementation", None) is not None:
        model.set_experts_implementation("eager")  # the grouped matrix product knows no float64
    model.zoo_family = name
    return model.to(dtype).eval()


def _enlarge_weights(model: PreTrainedModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(WEIGHT_STD * noise)
            else:
                parameter.add_(0.1 * noise)
