"""Fitting the losses to a model and a run: what is chosen, and what is refused with its reason."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from safekey_peft.config import FLAG_PREFIX, SafeKeyConfig
from safekey_peft.data.collator import SafeKeyCollator
from safekey_peft.errors import ConfigError
from safekey_peft.model.forward import can_fuse, lm_head_of
from safekey_peft.model.probe import probe_isolation

FUSED_LOGITS_GIB = 1.0
"""``cross_entropy: auto`` goes fused on a GPU where the labelled logits of a micro-batch may exceed this."""


def refuse_options(trainer: Any) -> None:
    """Stop on training arguments that contradict the losses.

    Raises:
        ConfigError: all of them at once.
    """
    args, faults = trainer.args, []
    if not isinstance(trainer.data_collator, SafeKeyCollator):
        faults.append(f"the data collator is a {type(trainer.data_collator).__name__}, expected SafeKeyCollator")
    if args.label_smoothing_factor:
        faults.append("label_smoothing_factor changes every target; set it to 0")
    if trainer.compute_loss_func is not None:
        faults.append("another loss function (compute_loss_func) replaces the model's; remove it")
    if args.n_gpu > 1:
        faults.append("several GPUs in one process (DataParallel); start one process per GPU, e.g. with torchrun")
    accelerator = args.accelerator_config
    if accelerator is not None and (accelerator.split_batches or accelerator.dispatch_batches):
        faults.append("split_batches and dispatch_batches cut batches apart; switch them off")
    parallel = getattr(trainer.accelerator, "parallelism_config", None)
    for kind in ("tp_size", "cp_size", "sp_size"):
        if parallel is not None and (getattr(parallel, kind, 1) or 1) > 1:
            faults.append(f"{kind} > 1 splits sequences or layers, which the spans do not follow; set it to 1")
    adapters = getattr(trainer.model, "peft_config", None) or {}
    if any(getattr(adapter, "is_prompt_learning", False) for adapter in adapters.values()):
        faults.append("prompt learning shifts positions; use LoRA or another weight adapter")
    if faults:
        raise ConfigError("the safety losses cannot be trained with these options: " + "; ".join(faults))


def choose_isolation(config: SafeKeyConfig, model: nn.Module) -> tuple[Literal["packed", "rows"], str]:
    """Return how segments are kept apart, and why.

    Raises:
        ConfigError: ``packed`` is asked for and the model mixes packed segments.
    """
    if config.isolation == "rows":
        return "rows", "as configured"
    report = probe_isolation(model)
    if config.isolation == "packed" and not report.isolated:
        raise ConfigError(
            f"{FLAG_PREFIX}isolation: packed, but this model mixes packed segments ({report.reason}); "
            f"set {FLAG_PREFIX}isolation: auto or rows"
        )
    return ("packed" if report.isolated else "rows"), report.reason


def choose_cross_entropy(config: SafeKeyConfig, model: nn.Module, args: Any) -> tuple[Literal["logits", "fused"], str]:
    """Return how token losses are computed, and why.

    Raises:
        ConfigError: ``fused`` is asked for and does not fit the model.
    """
    obstacle = can_fuse(model, args.device)
    if config.cross_entropy == "fused":
        if obstacle:
            raise ConfigError(f"{FLAG_PREFIX}cross_entropy: fused, but {obstacle}; set it to auto or logits")
        return "fused", "as configured"
    if config.cross_entropy == "logits":
        return "logits", "as configured"
    if obstacle:
        return "logits", obstacle
    weight: Any = lm_head_of(model).weight
    tokens = args.per_device_train_batch_size * (getattr(args, "max_seq_length", None) or 4096)
    gib = weight.shape[0] * tokens * 4 / 2**30
    if args.device.type == "cuda" and gib > FUSED_LOGITS_GIB:
        return "fused", f"up to {gib:.1f} GiB of labelled logits"
    return "logits", "of labelled positions only"


def has_dense_mask(model: nn.Module) -> bool:
    """Whether attention takes a mask over all pairs (and rows of a batch), not lengths of sequences."""
    config = getattr(model, "config", None)
    return str(getattr(config, "_attn_implementation", "")) in ("eager", "sdpa", "flex_attention")
