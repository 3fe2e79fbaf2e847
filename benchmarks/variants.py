"""The steps that are compared: each runs forward, backward and the optimizer on the same rows.

``stock_sft``       Axolotl's stock way: rows padded on the right to the longest (a multiple of 64), full logits, the
                    model's own loss
``sft``             padding-free SFT through the package's forward: the cross-entropy that the losses use
``safekey``         safety head and query-mask modelling
``safekey_fused``   the same with fused cross-entropy
``all_losses``      also harmful prefixes and RTO
``two_forward``     SafeKey as published: two padded forwards with full logits, the second with the query hidden by
                    the attention mask
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.examples import PAD_ID, Example, MicroBatch
from safekey_peft.config import SafeKeyConfig
from safekey_peft.core import LossRole, ObjectiveCounts, ObjectiveWeights, objective
from safekey_peft.data.collator import TAGS_COLUMN, SafeKeyCollator, join_masked_segments
from safekey_peft.data.tags import CONTEXT, IGNORED_LABEL, QUERY_MASKED, ROLE_MASK, UNDERSTANDING, split_segments
from safekey_peft.model.attach import attach_safety_head
from safekey_peft.model.forward import HEAD_NAME, CrossEntropy, SegmentForward, forward_plan

PAD_TO_MULTIPLE_OF = 64
LORA_RANK = 32
LEARNING_RATE = 1e-4


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A Llama's size; the body is the same for every vocabulary."""

    hidden: int = 640
    intermediate: int = 1728
    layers: int = 8
    heads: int = 10


FULL_SIZE = ModelSize()
SMALL_SIZE = ModelSize(hidden=256, intermediate=704, layers=8, heads=8)
TOY_SIZE = ModelSize(hidden=32, intermediate=48, layers=2, heads=2)


class Workbench:
    """A model with adapter, head and optimizer, on which every variant runs.

    Args:
        size: of the body.
        vocabulary: V.
        row_tokens: of the collator, as under dense attention masks in the trainer.
    """

    def __init__(self, size: ModelSize, vocabulary: int, row_tokens: int | None) -> None:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=size.hidden,
            intermediate_size=size.intermediate,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            max_position_embeddings=16384,
            pad_token_id=PAD_ID,
            attn_implementation="sdpa",
        )
        base = LlamaForCausalLM(config).float()
        self.parameters = sum(parameter.numel() for parameter in base.parameters())
        self.model: nn.Module = get_peft_model(
            base, LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        attach_safety_head(self.model, SafeKeyConfig(dual_path=True))
        self.model.train()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
        self.collator = SafeKeyCollator(PAD_ID, row_tokens=row_tokens)

    def step(self, variant: str, batch: MicroBatch) -> float:
        """Run one optimizer step and return its loss."""
        loss = VARIANTS[variant](self, batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


def stock_sft(bench: Workbench, batch: MicroBatch) -> Tensor:
    """Padded rows, full logits, the model's loss."""
    inputs = pad_rows(batch.plain)
    loss: Tensor = bench.model(**inputs, use_cache=False).loss
    return loss


def sft(bench: Workbench, batch: MicroBatch) -> Tensor:
    """Only the SFT role of the package's forward."""
    return _segments(bench, batch.plain, {LossRole.SFT}, head=False)


def safekey(bench: Workbench, batch: MicroBatch) -> Tensor:
    """Safety head and query-mask modelling."""
    return _segments(bench, batch.safekey, {LossRole.SFT, LossRole.KEY}, head=True)


def safekey_fused(bench: Workbench, batch: MicroBatch) -> Tensor:
    """The same with fused cross-entropy."""
    return _segments(bench, batch.safekey, {LossRole.SFT, LossRole.KEY}, head=True, cross_entropy="fused")


def all_losses(bench: Workbench, batch: MicroBatch) -> Tensor:
    """All four."""
    return _segments(bench, batch.all_losses, set(LossRole) - {LossRole.NONE}, head=True)


def two_forward(bench: Workbench, batch: MicroBatch) -> Tensor:
    """The published script's way."""
    inputs = pad_rows(batch.plain)
    masks = _two_forward_masks(batch.safekey, inputs["input_ids"].shape[1])
    weights = ObjectiveWeights()
    first = bench.model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        output_hidden_states=True,
        use_cache=False,
    )
    loss = _shifted_cross_entropy(first.logits, inputs["labels"])
    hidden = first.hidden_states[-1]
    pooled = [(masks[name] @ hidden).squeeze(1) for name in ("understanding", "context")]
    head = getattr(bench.model, HEAD_NAME)
    logits = torch.stack(head(*pooled))
    head_loss = functional.binary_cross_entropy_with_logits(logits, masks["harmful"].expand_as(logits))
    second = bench.model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"] * masks["visible"], use_cache=False
    )
    key_loss = _shifted_cross_entropy(second.logits, masks["key_labels"])
    return loss + weights.key * key_loss + weights.head * head_loss


VARIANTS: dict[str, Callable[[Workbench, MicroBatch], Tensor]] = {
    "stock_sft": stock_sft,
    "sft": sft,
    "safekey": safekey,
    "safekey_fused": safekey_fused,
    "all_losses": all_losses,
    "two_forward": two_forward,
}


def pad_rows(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Pad on the right as DataCollatorForSeq2Seq does with Axolotl's default ``pad_to_multiple_of``."""
    longest = max(len(example["input_ids"]) for example in examples)
    width = -(-longest // PAD_TO_MULTIPLE_OF) * PAD_TO_MULTIPLE_OF
    ids = torch.full((len(examples), width), PAD_ID)
    labels = torch.full((len(examples), width), IGNORED_LABEL)
    mask = torch.zeros((len(examples), width), dtype=torch.int64)
    for row, example in enumerate(examples):
        length = len(example["input_ids"])
        ids[row, :length] = torch.tensor(example["input_ids"])
        labels[row, :length] = torch.tensor(example["labels"])
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _segments(
    bench: Workbench,
    examples: Sequence[Example],
    roles: set[LossRole],
    *,
    head: bool,
    cross_entropy: CrossEntropy = "logits",
) -> Tensor:
    batch = bench.collator(examples)
    input_ids, position_ids = join_masked_segments(batch)
    plan = forward_plan(batch, input_ids, position_ids, roles=frozenset(roles), head=head)
    forward = SegmentForward(bench.model, cross_entropy=cross_entropy)
    try:
        result = forward(bench.model, plan)
    finally:
        forward.close()
    counts = ObjectiveCounts(
        lm=sum(batch[f"{role}_targets"].shape[0] for role in ("sft", "prefix", "rto")),
        key=batch["key_targets"].shape[0],
        head=batch["head_labels"].shape[0],
    )
    return objective(result.sums, counts, ObjectiveWeights())


def _two_forward_masks(examples: Sequence[Example], width: int) -> dict[str, Tensor]:
    """Row masks of the published way, read from the examples' tags."""
    rows = len(examples)
    pools = {name: torch.zeros(rows, 1, width) for name in ("understanding", "context")}
    visible = torch.ones(rows, width, dtype=torch.int64)
    key_labels = torch.full((rows, width), IGNORED_LABEL)
    harmful = torch.zeros(rows)
    for row, example in enumerate(examples):
        ids, labels, tags = (torch.tensor(example[name]).numpy() for name in ("input_ids", "labels", TAGS_COLUMN))
        main, masked = split_segments(ids, labels, tags)
        assert main.head_label is not None and masked.query_masked and not tags[0] & QUERY_MASKED
        own = tags[: len(main)]
        for name, bit in (("understanding", UNDERSTANDING), ("context", CONTEXT)):
            inside = torch.from_numpy((own & bit) > 0)
            pools[name][row, 0, : len(main)] = inside.float() / inside.sum()
        start = int(main.understanding[0])
        visible[row, :start] = 0
        key = torch.from_numpy((masked.roles & ROLE_MASK) == LossRole.KEY)
        key_labels[row, start : start + len(masked)][key] = torch.from_numpy(masked.labels)[key]
        harmful[row] = main.head_label
    return {**pools, "visible": visible, "key_labels": key_labels, "harmful": harmful}


def _shifted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    flat = logits[:, :-1].reshape(-1, logits.shape[-1])
    return functional.cross_entropy(flat, labels[:, 1:].reshape(-1))


def tokens_of(bench: Workbench, batch: MicroBatch) -> dict[str, Any]:
    """Tokens that each variant pushes through the body: real ones and with the filling of rows."""
    padded = int(pad_rows(batch.plain)["input_ids"].numel())
    counted: dict[str, Any] = {"stock_sft": {"real": _real(batch.plain), "computed": padded}}
    counted["two_forward"] = {"real": _real(batch.plain), "computed": 2 * padded}
    groups = {
        "sft": batch.plain,
        "safekey": batch.safekey,
        "safekey_fused": batch.safekey,
        "all_losses": batch.all_losses,
    }
    for name, examples in groups.items():
        computed = int(join_masked_segments(bench.collator(examples))[0].numel())
        counted[name] = {"real": _real(examples), "computed": computed}
    return counted


def _real(examples: Sequence[Example]) -> int:
    return sum(len(example["input_ids"]) for example in examples)
