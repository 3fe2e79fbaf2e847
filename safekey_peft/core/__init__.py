"""Losses, head and objective in pure torch. Knows no configuration, tokenizer or trainer."""

from __future__ import annotations

from safekey_peft.core.cross_entropy import cross_entropy_sums, fused_cross_entropy_sums, fused_kernel
from safekey_peft.core.head import DualPathSafetyHead, pool_spans, safety_head_sums
from safekey_peft.core.objective import LossSums, ObjectiveCounts, ObjectiveWeights, objective
from safekey_peft.core.roles import TARGET_ROLES, LossRole

__all__ = [
    "TARGET_ROLES",
    "DualPathSafetyHead",
    "LossRole",
    "LossSums",
    "ObjectiveCounts",
    "ObjectiveWeights",
    "cross_entropy_sums",
    "fused_cross_entropy_sums",
    "fused_kernel",
    "objective",
    "pool_spans",
    "safety_head_sums",
]
