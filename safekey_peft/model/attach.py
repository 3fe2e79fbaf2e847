"""Attaching the safety head to a model so that it trains with it and is saved beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from safekey_peft.config import SafeKeyConfig
from safekey_peft.core import DualPathSafetyHead
from safekey_peft.errors import ConfigError
from safekey_peft.model.forward import HEAD_NAME, causal_lm_of, lm_head_of
from safekey_peft.model.head_files import save_safety_head

_HEAD_PREFIX = f"{HEAD_NAME}."


def attach_safety_head(model: nn.Module, config: SafeKeyConfig, *, seed: int = 42) -> DualPathSafetyHead | None:
    """Attach a float32 ``DualPathSafetyHead`` as ``model.safekey_head``; call it after the adapter is there.

    Before the adapter, PEFT would freeze the head. From then on ``model.save_pretrained`` writes
    ``safekey_head.safetensors`` beside the weights and leaves the head's keys out of the weights themselves, so
    the folder is a plain PEFT adapter or checkpoint.

    Args:
        model: a PEFT model, or a causal LM in full tuning.
        config: nothing happens unless ``dual_path`` is on.
        seed: of the head's initial weights; they do not depend on what was drawn before.

    Returns:
        The head (the one already attached where there is one), or None with ``dual_path`` off.

    Raises:
        ConfigError: the model's hidden size is unknown.
    """
    if not config.dual_path:
        return None
    present = getattr(model, HEAD_NAME, None)
    if isinstance(present, DualPathSafetyHead):
        return present
    hidden_size = _hidden_size(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = DualPathSafetyHead(hidden_size)
    # Where the last hidden states are; a model spread over devices ends on another one than it begins on.
    device = next((p.device for p in lm_head_of(model).parameters() if not p.is_meta), torch.device("cpu"))
    setattr(model, HEAD_NAME, head.to(device))
    _save_head_with_model(model)
    return head


def disable_avx512_bf16_repacking(model: nn.Module) -> None:
    """Keep bitsandbytes' 4-bit layers trainable on CPUs with AVX512-BF16.

    There one call in eval mode repacks the weights, after which backward silently gives no gradient. Has to happen
    before the first eval-mode call, a probe or an evaluation included.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def without_head(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict less the safety head's entries."""
    return {name: value for name, value in state_dict.items() if _HEAD_PREFIX not in name}


def head_state(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the safety head's entries of a model's (gathered) state dict, under their own names."""
    return {name.split(_HEAD_PREFIX, 1)[1]: value for name, value in state_dict.items() if _HEAD_PREFIX in name}


def _hidden_size(model: nn.Module) -> int:
    config = getattr(causal_lm_of(model), "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = getattr(text, "hidden_size", None)
    if not isinstance(size, int):
        raise ConfigError(f"{type(causal_lm_of(model)).__name__} states no hidden_size; the safety head needs it")
    return size


def _save_head_with_model(model: nn.Module) -> None:
    """Wrap this instance's ``save_pretrained``: every way to save (final, checkpoint, interrupt) passes there."""
    original = model.save_pretrained

    def save_pretrained(save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        state = kwargs.pop("state_dict", None)
        full = dict(state) if state is not None else model.state_dict()
        head = head_state(full) or head_state(model.state_dict())
        result = original(save_directory, *args, state_dict=without_head(full), **kwargs)
        if kwargs.get("is_main_process", True):
            save_safety_head(head, Path(save_directory))
        return result

    model.save_pretrained = save_pretrained  # type: ignore[assignment]
