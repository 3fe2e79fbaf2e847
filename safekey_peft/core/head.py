"""The dual-path safety head: two linear probes on mean-pooled hidden states."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class DualPathSafetyHead(nn.Module):
    """Two ``Linear(hidden, 1)`` with bias, one per path. Parameters are float32.

    logit_u = w_u · mean(h_t : t ∈ U) + b_u                  (understanding path)
    logit_c = w_c · mean(h_t : t ∈ first token … end of U) + b_c   (context path)

    ``h`` is the last hidden state after the final norm; the context holds a harmful prefix where there is one.

    Args:
        hidden_size: H, width of the model's last hidden state.

    Source: SafeKey, arXiv 2505.16186, dual-path safety head.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.understanding = nn.Linear(hidden_size, 1, dtype=torch.float32)
        self.context = nn.Linear(hidden_size, 1, dtype=torch.float32)

    def forward(self, pooled_understanding: Tensor, pooled_context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two logits of "harmful" per example.

        Args:
            pooled_understanding: [M, H], float.
            pooled_context: [M, H], float.

        Returns:
            Two tensors [M] in the dtype of the parameters; M may be 0.
        """
        # Mixed precision would round these few numbers to bfloat16 and gain nothing.
        with torch.autocast(pooled_context.device.type, enabled=False):
            understanding = self.understanding(pooled_understanding.to(self.understanding.weight.dtype))
            context = self.context(pooled_context.to(self.context.weight.dtype))
        return understanding.squeeze(-1), context.squeeze(-1)


def pool_spans(hidden: Tensor, index: Tensor, members: Tensor) -> Tensor:
    """Mean-pool spans of hidden states, in float32.

    Args:
        hidden: [P, H], all hidden states of a batch, flattened.
        index: [S], int64, distinct positions in ``hidden`` that any span uses.
        members: [..., M, S], 1.0 where the position belongs to the span, else 0.0; no span is empty.

    Returns:
        [..., M, H], float32 (float64 for float64 states).
    """
    states = hidden.index_select(0, index)
    wide = states if states.dtype == torch.float64 else states.float()
    with torch.autocast(hidden.device.type, enabled=False):
        members = members.to(wide.dtype)
        return (members @ wide) / members.sum(dim=-1, keepdim=True)


def safety_head_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum binary cross-entropy of one path over examples.

    Args:
        logits: [M], logit of "harmful".
        labels: [M], 1.0 harmful, 0.0 harmless.

    Returns:
        Scalar in nats; an exact, differentiable 0 for M = 0.

    Raises:
        ValueError: shapes disagree.
    """
    if logits.shape != labels.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} differ in shape")
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum")
