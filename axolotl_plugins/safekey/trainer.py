"""Our mixin on Axolotl's trainer: packing that is reproducible, throughput and perplexity that mean something."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from axolotl.core.trainers.base import AxolotlTrainer
from axolotl.utils.samplers import MultipackBatchSampler
from torch.utils.data import RandomSampler, Sampler
from transformers import Trainer

from safekey_peft.data.collator import SafeKeyCollator
from safekey_peft.hosts.trainer import SafeKeyTrainerMixin

MAX_COUNTED_EPOCHS = 256


def build_collator(
    tokenizer: Any, *, pad_to_multiple_of: int | None = None, padding: Any = True, return_tensors: str = "pt"
) -> SafeKeyCollator:
    """Build our collator from what Axolotl passes to every collator."""
    del padding, return_tensors  # rows are always padded to the longest, as torch tensors
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return SafeKeyCollator(pad, pad_to_multiple_of=pad_to_multiple_of)


class EpochShuffle(Sampler[int]):
    """A permutation that depends on (seed, epoch) alone, so that a resumed run sees the order again."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's permutation."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        return iter(torch.randperm(self.size, generator=generator).tolist())


class _PerplexityOfResponses(Trainer):
    """Corrects Axolotl's ``ppl``, which it takes from the whole objective; stands after it in the bases."""

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Replace the perplexities by those of the safe responses, or leave them out."""
        if "ppl" in logs:
            nats = getattr(self, "_last_language_nats", None)
            del logs["ppl"]
            if nats is not None:
                logs["ppl"] = round(math.exp(min(nats, 80.0)), 5)
        if "eval_ppl" in logs:
            del logs["eval_ppl"]
            if "eval_safekey/loss_sft" in logs:
                logs["eval_ppl"] = round(math.exp(min(logs["eval_safekey/loss_sft"], 80.0)), 5)
        super().log(logs, *args, **kwargs)


class SafeKeyAxolotlTrainer(SafeKeyTrainerMixin, AxolotlTrainer, _PerplexityOfResponses):
    """Axolotl's trainer with the safety losses."""

    def _create_multipack_sampler(self, base_sampler: Any, dataset: Any) -> Any:
        shuffled = isinstance(base_sampler, RandomSampler)
        if shuffled:
            base_sampler = EpochShuffle(len(dataset), self.args.data_seed or self.args.seed)
        sampler = super()._create_multipack_sampler(base_sampler, dataset)
        if shuffled:
            self._packing_sampler = sampler
            self._fix_epoch_length(sampler)
        return sampler

    def _fix_epoch_length(self, sampler: MultipackBatchSampler) -> None:
        """Give all epochs the number of batches of the shortest one: steps and resume count by it."""
        shuffle = sampler.sampler
        assert isinstance(shuffle, EpochShuffle)
        epochs = math.ceil(self.args.num_train_epochs) + 1
        if self.args.max_steps > 0:
            ranks = self.args.gradient_accumulation_steps * self.accelerator.num_processes
            epochs = math.ceil(self.args.max_steps / max(len(sampler.generate_batches()) // ranks, 1)) + 1
        epochs = min(epochs, MAX_COUNTED_EPOCHS)
        lengths = []
        for epoch in range(epochs):
            shuffle.set_epoch(epoch)
            sampler.set_epoch(epoch)
            lengths.append(len(sampler.generate_batches()))
        shuffle.set_epoch(0)
        sampler.set_epoch(0)
        sampler._len_across_ranks = min(lengths)

    def _get_eval_sampler(self, eval_dataset: Any = None) -> Any:
        sampler = super()._get_eval_sampler(eval_dataset)
        if isinstance(sampler, MultipackBatchSampler):
            # Evaluation is over the whole set: an incomplete last batch counts.
            sampler.drop_last = False
            sampler.set_epoch(0)
            sampler._len_across_ranks = None
        return sampler

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        sampler = getattr(self, "_packing_sampler", None)
        if sampler is not None:
            epoch = kwargs["epoch"]
            sampler.sampler.set_epoch(epoch)
            sampler.set_epoch(epoch)
        return super()._run_epoch(*args, **kwargs)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Count tokens for Axolotl's throughput log from what is known on the host."""
        batches, counts = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.args.include_tkps:
            if not hasattr(self.state, "tokens"):
                self.state.tokens = {"trainable": torch.zeros(1), "total": torch.zeros(1)}
            slots = sum(batch["input_ids"].numel() for batch in batches) * self.accelerator.num_processes
            self.state.tokens["trainable"] += counts.lm + counts.key
            self.state.tokens["total"] += slots
        return batches, counts
