"""The leak probe: does this model keep packed segments apart?

Several segments can share a row when attention does not cross from one to the next, and [U;K] can restart its
positions when those are relative. Most rotary transformers guarantee both; ALiBi, learned positions, some eager
attention paths and every recurrent or convolutional mixer do not, and leak silently. So each loaded model is asked
once, before training.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from safekey_peft.model.forward import causal_lm_of

_A_TOKENS, _B_TOKENS = 23, 17
# Leak compares equal shapes, so it is 0 up to the order of sums in a mixture of experts. The others compare different
# shapes and positions: rounding of 16 bits through many layers is some percent, a real difference is of order 1.
_LIMITS_32 = (1e-4, 1e-4)
_LIMITS_16 = (2e-2, 1e-1)


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """Outcome of the probe; numbers are relative to the spread of the logits.

    Attributes:
        isolated: packed segments do not see one another, and may restart their positions.
        leak: largest change of segment B's logits when segment A changes.
        drift: root mean square difference between B packed and B alone.
        shift: root mean square difference between B alone at position 0 and further on.
        reason: one line for the log.
    """

    isolated: bool
    leak: float
    drift: float
    shift: float
    reason: str


def _not_isolated(reason: str) -> IsolationReport:
    return IsolationReport(False, float("inf"), float("inf"), float("inf"), reason)


@torch.no_grad()
def probe_isolation(model: nn.Module) -> IsolationReport:
    """Forward a pair of segments packed, with another first segment, and the second one alone, here and further on.

    Args:
        model: causal LM, possibly PEFT-wrapped, on its device; its mode is restored.

    Returns:
        A report. A model whose forward takes no ``position_ids`` is never isolated.
    """
    causal_lm = causal_lm_of(model)
    if "position_ids" not in inspect.signature(type(causal_lm).forward).parameters:
        return _not_isolated("its forward takes no position_ids")
    if any(p.is_meta for p in causal_lm.parameters()):
        return _not_isolated("its weights are not on this process to be probed")
    device = next(causal_lm.parameters()).device
    config = getattr(causal_lm, "config", None)
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    first, other, second = _segments(int(text_config.vocab_size), device)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        packed = _logits(causal_lm, (first, second))[_A_TOKENS:]
        changed = _logits(causal_lm, (other, second))[_A_TOKENS:]
        alone = _logits(causal_lm, (second,))
        further = _logits(causal_lm, (second,), start=_A_TOKENS)
    finally:
        for module, training in modes.items():
            module.training = training
    spread = float(alone.std().clamp_min(1e-12))
    leak = float((packed - changed).abs().max()) / spread
    drift = float((packed - alone).square().mean().sqrt()) / spread
    shift = float((further - alone).square().mean().sqrt()) / spread
    dtypes = {p.dtype for p in causal_lm.parameters() if p.is_floating_point()}
    limit, rounding = _LIMITS_16 if dtypes & {torch.bfloat16, torch.float16} else _LIMITS_32
    numbers = f"leak {leak:.1e}, drift {drift:.1e}, shift {shift:.1e}"
    if not leak <= limit:
        return IsolationReport(False, leak, drift, shift, f"a change in one segment moves the next: {numbers}")
    if not drift <= rounding:
        return IsolationReport(False, leak, drift, shift, f"a packed segment differs from it alone: {numbers}")
    if not shift <= rounding:
        return IsolationReport(False, leak, drift, shift, f"its positions are not relative: {numbers}")
    return IsolationReport(True, leak, drift, shift, numbers)


def _segments(vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    low = min(8, vocabulary // 2)  # the first ids are often special
    lengths = (_A_TOKENS, _A_TOKENS, _B_TOKENS)
    first, other, second = (torch.randint(low, vocabulary, (n,), generator=generator).to(device) for n in lengths)
    return first, other, second


def _logits(causal_lm: nn.Module, segments: tuple[Tensor, ...], start: int = 0) -> Tensor:
    ids = torch.cat(segments)
    positions = torch.cat([torch.arange(start, start + len(segment)) for segment in segments]).to(ids.device)
    # The losses' own call: no attention mask, no cache.
    outputs = causal_lm(input_ids=ids[None], position_ids=positions[None], attention_mask=None, use_cache=False)
    logits: Tensor = outputs["logits"][0]
    return logits.double() if logits.dtype == torch.float64 else logits.float()
