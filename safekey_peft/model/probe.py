"""The leak probe: does this model keep packed segments apart?

Several segments can share a row when attention does not cross from one to the next. Most rotary transformers
guarantee that when positions restart; ALiBi, learned positions, some eager attention paths and every recurrent or
convolutional mixer do not, and leak silently. So each loaded model is asked once, before training.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from safekey_peft.model.forward import causal_lm_of

_A_TOKENS, _B_TOKENS = 23, 17


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """Outcome of the probe.

    Attributes:
        isolated: packed segments do not see one another.
        leak: largest change of segment B's logits when segment A changes, relative to their spread.
        drift: largest difference between B packed and B alone, relative likewise.
        reason: one line for the log.
    """

    isolated: bool
    leak: float
    drift: float
    reason: str


@torch.no_grad()
def probe_isolation(model: nn.Module, tolerance: float | None = None) -> IsolationReport:
    """Forward a pair of segments packed, with another first segment, and alone.

    Args:
        model: causal LM, possibly PEFT-wrapped, on its device; its mode is restored.
        tolerance: relative; default by the dtype of the parameters (1e-4, or 2e-2 in 16 bits).

    Returns:
        A report. A model whose forward takes no ``position_ids`` is never isolated.
    """
    causal_lm = causal_lm_of(model)
    if "position_ids" not in inspect.signature(type(causal_lm).forward).parameters:
        return IsolationReport(False, float("inf"), float("inf"), "its forward takes no position_ids")
    parameter = next(causal_lm.parameters())
    if any(p.is_meta for p in causal_lm.parameters()):
        return IsolationReport(False, float("inf"), float("inf"), "its weights are not on this process to be probed")
    config = getattr(causal_lm, "config", None)
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    vocabulary = int(text_config.vocab_size)
    first, other, second = _segments(vocabulary, parameter.device)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        packed = _logits(causal_lm, torch.cat([first, second]), (_A_TOKENS, _B_TOKENS))[_A_TOKENS:]
        changed = _logits(causal_lm, torch.cat([other, second]), (_A_TOKENS, _B_TOKENS))[_A_TOKENS:]
        alone = _logits(causal_lm, second, (_B_TOKENS,))
    finally:
        for module, training in modes.items():
            module.training = training
    spread = float(alone.float().std().clamp_min(1e-12))
    leak = float((packed.float() - changed.float()).abs().max()) / spread
    drift = float((packed.float() - alone.float()).abs().max()) / spread
    dtypes = {p.dtype for p in causal_lm.parameters() if p.is_floating_point()}
    limit = tolerance or (2e-2 if dtypes & {torch.bfloat16, torch.float16} else 1e-4)
    if leak <= limit and drift <= limit:
        return IsolationReport(True, leak, drift, f"leak {leak:.1e}, drift {drift:.1e} (limit {limit:.0e})")
    what = "a change in one segment moves the next" if leak > limit else "a packed segment differs from it alone"
    return IsolationReport(False, leak, drift, f"{what}: leak {leak:.1e}, drift {drift:.1e} (limit {limit:.0e})")


def _segments(vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    low = min(8, vocabulary // 2)  # the first ids are often special
    lengths = (_A_TOKENS, _A_TOKENS, _B_TOKENS)
    first, other, second = (torch.randint(low, vocabulary, (n,), generator=generator).to(device) for n in lengths)
    return first, other, second


def _logits(causal_lm: nn.Module, ids: Tensor, lengths: tuple[int, ...]) -> Tensor:
    positions = torch.cat([torch.arange(length) for length in lengths]).to(ids.device)
    # The losses' own call: no attention mask, no cache.
    outputs = causal_lm(input_ids=ids[None], position_ids=positions[None], attention_mask=None, use_cache=False)
    logits: Tensor = outputs["logits"][0]
    return logits
