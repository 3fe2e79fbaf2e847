"""The combined objective and its normalisation.

    L = (Σ_sft + Σ_prefix + w_rto·Σ_rto) / N_lm  +  w_key·Σ_key / N_key  +  w_head·Σ_head / N_head
    Σ_head = θ·Σ_understanding + (1 − θ)·Σ_context

Every N is a count over the *whole optimizer step*, all accumulation micro-batches on all ranks together.

Worked example. One step of two micro-batches on each of two ranks, with 30, 10 | 50, 10 language-model targets:
N_lm = 100, known before the first forward. Rank 0 contributes Σ/100 from its first micro-batch and Σ/100 from
its second; gradients of micro-batches add up, and those of ranks are *averaged* by data parallelism. So the
trainer multiplies by the number of ranks (2) and by nothing else: each target ends up with weight 1/100. A mean
per micro-batch would have given the ten targets of a small micro-batch five times the weight of those in the
large one.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class ObjectiveWeights:
    """Weights of the objective. Source: design of the losses; defaults are the papers'.

    Attributes:
        rto: w_rto, weight of an RTO target beside an SFT target.
        key: w_key, weight of query-mask modelling; 0 when it is switched off.
        head: w_head, weight of the safety head; 0 when it is switched off.
        theta: θ, share of the understanding path.
    """

    rto: float = 1.0
    key: float = 0.2
    head: float = 0.2
    theta: float = 0.5


@dataclass(frozen=True, slots=True)
class ObjectiveCounts:
    """Targets of a whole optimizer step over all micro-batches and ranks.

    Attributes:
        lm: N_lm, targets with the roles SFT, PREFIX and RTO together.
        key: N_key, targets in key sentences.
        head: N_head, SFT-like examples with a label and a marked understanding.
    """

    lm: int
    key: int
    head: int

    def __add__(self, other: ObjectiveCounts) -> ObjectiveCounts:
        """Add the counts of two disjoint parts of a step."""
        return ObjectiveCounts(self.lm + other.lm, self.key + other.key, self.head + other.head)


@dataclass(frozen=True, slots=True)
class LossSums:
    """Sums of one forward, each a scalar in nats; a term without targets is an exact, differentiable 0."""

    sft: Tensor
    prefix: Tensor
    rto: Tensor
    key: Tensor
    head_understanding: Tensor
    head_context: Tensor


def objective(sums: LossSums, counts: ObjectiveCounts, weights: ObjectiveWeights) -> Tensor:
    """Combine the sums of one micro-batch into its share of the step's objective.

    Args:
        sums: what this micro-batch contributes.
        counts: of the whole step; a count of 0 belongs to a sum that is 0.
        weights: of the terms.

    Returns:
        Scalar. Added up over micro-batches and ranks it is L of this module's docstring.

    Source: SafeKey, arXiv 2505.16186 (head and query mask); DeRTa, arXiv 2407.09121 (prefix and RTO).
    """
    language = (sums.sft + sums.prefix + weights.rto * sums.rto) / max(counts.lm, 1)
    key = weights.key * sums.key / max(counts.key, 1)
    head = weights.theta * sums.head_understanding + (1.0 - weights.theta) * sums.head_context
    return language + key + weights.head * head / max(counts.head, 1)
