"""Running sums of the loss breakdown, reduced over accumulation and ranks only when they are logged."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from safekey_peft.core import LossSums, ObjectiveCounts, ObjectiveWeights, objective
from safekey_peft.model.forward import ForwardPlan, ForwardResult

METRIC_PREFIX = "safekey/"


class BreakdownSums:
    """Accumulates sums (on the device, without a host sync) and counts (known on the host).

    Args:
        device: of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        # Many small numbers add up between two log lines; MPS has no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.values = torch.zeros(11, device=device, dtype=dtype)
        self.counts = [0] * 5  # targets of SFT, PREFIX, RTO, KEY; examples of the head
        self.reduced: tuple[list[float], list[int]] | None = None

    def add(self, plan: ForwardPlan, result: ForwardResult, example_tokens: Tensor, with_masked: bool) -> None:
        """Add one forward."""
        sums = result.sums
        masked = example_tokens[1:] if with_masked else example_tokens[1:] * 0
        parts = [
            torch.stack([sums.sft, sums.prefix, sums.rto, sums.key, sums.head_understanding, sums.head_context]),
            result.correct_key.reshape(1),
            result.correct_head.reshape(2),
            example_tokens[:1],
            masked,
        ]
        self.values += torch.cat([part.detach().to(self.values.dtype) for part in parts])
        for place, size in enumerate((*plan.sizes, len(plan.head_labels))):
            self.counts[place] += size

    def reduce(self, across_ranks: Callable[[Tensor], Tensor]) -> None:
        """Bring the sums to the host, added up over ranks; every rank must call this together."""
        counts = torch.tensor(self.counts, device=self.values.device, dtype=self.values.dtype)
        numbers = across_ranks(torch.cat([self.values, counts])).tolist()
        self.reduced = numbers[:11], [round(number) for number in numbers[11:]]

    def metrics(self) -> dict[str, float]:
        """Return the logged metrics; those without a single target are left out.

        Losses are nats per target (per example for the head), accuracies shares.
        """
        if self.reduced is None:
            raise RuntimeError("reduce() has to come first")
        values, counts = self.reduced
        sft, prefix, rto, key, understanding, context, key_right, u_right, c_right, tokens, masked = values
        n_sft, n_prefix, n_rto, n_key, n_head = counts
        table = {
            "loss_sft": (sft, n_sft),
            "loss_prefix": (prefix, n_prefix),
            "loss_rto": (rto, n_rto),
            "loss_key": (key, n_key),
            "loss_head_understanding": (understanding, n_head),
            "loss_head_context": (context, n_head),
            "acc_key": (key_right, n_key),
            "acc_head_understanding": (u_right, n_head),
            "acc_head_context": (c_right, n_head),
            "tokens_extra_fraction": (masked, tokens),
        }
        return {METRIC_PREFIX + name: total / count for name, (total, count) in table.items() if count}

    def objective(self, weights: ObjectiveWeights) -> float:
        """Return the objective over everything added, e.g. a whole evaluation set."""
        if self.reduced is None:
            raise RuntimeError("reduce() has to come first")
        values, (n_sft, n_prefix, n_rto, n_key, n_head) = self.reduced
        sums = LossSums(*(torch.tensor(value, dtype=torch.float64) for value in values[:6]))
        return float(objective(sums, ObjectiveCounts(n_sft + n_prefix + n_rto, n_key, n_head), weights))

    def language_nats(self) -> float | None:
        """Return nats per token of the safe responses (SFT and prefix targets), whose exp is a perplexity."""
        if self.reduced is None:
            raise RuntimeError("reduce() has to come first")
        values, counts = self.reduced
        tokens = counts[0] + counts[1]
        return (values[0] + values[1]) / tokens if tokens else None
