"""The objective in its slow form: two full forwards per example, nothing packed or padded.

Written from the equations, not from the package. For an SFT-like example, with X the prompt, P the harmful
prefix, U the understanding, K the key sentence and R the rest:

    Σ_sft | Σ_prefix = −Σ_{t ∈ U,K,R} log p(y_t | X, P, y_<t)    Σ_prefix where P is not empty; P has no loss
    Σ_key            = −Σ_{t ∈ K}     log p(y_t | U, y_<t)       second forward, X and P hidden
    Σ_head           = θ BCE(w_u · mean_{t ∈ U} h_t + b_u, y)
                     + (1−θ) BCE(w_c · mean_{t ∈ X,P,U} h_t + b_c, y)

and for an RTO example, with H the harmful response, its turn end E and r the refusal token:

    Σ_rto = −Σ_{t ∈ H,E, kept} log p(r | X, y_<t)      the first prediction is made at the last token of X

    L = (Σ_sft + Σ_prefix + w_rto Σ_rto) / N_lm + w_key Σ_key / N_key + w_head Σ_head / N_head

Worked example: a step has two micro-batches; the first holds 3 SFT targets with losses 1, 2, 3, the second 1
target with loss 6. Then Σ/N = 12 / 4 = 3. The mean of the micro-batches' means, (2 + 6) / 2 = 4, is not the
objective.

How X is hidden in the second forward, per family (`query_mask="auto"`):

- `attention_mask`: the whole sequence is run again under an explicit additive 4-D mask in which U and K do
  not see X and P; all tokens keep their positions. This is the definition, and it serves all attention models
  whose mask can be given: llama, qwen2, qwen3 (and MoE), mistral, mixtral, gemma2, gemma3, phi3, granite,
  deepseek_v3, gpt_oss, gpt2, opt. Sliding windows are part of the mask we build. gpt-oss and OPT leak when
  segments are *packed*, but obey a given mask. GPT-2 and OPT have learned positions, so the kept positions
  matter to them.
- `separate_row`: [U;K] alone, with the positions it has in the full sequence. State-space, convolution and
  linear-attention layers carry X in a state that no attention mask reaches (falcon_h1, lfm2, qwen3_next,
  mamba2), and ALiBi models build their bias from a 2-D mask (falcon_alibi): for them this is the definition
  of "X is hidden". Where both ways exist they agree; a test holds that.

A first token of K with nothing before it (U is empty) has no prediction that does not see X, so it has no
query-masked target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

SUMS = ("sft", "prefix", "rto", "key", "head_understanding", "head_context")
COUNTS = ("sft", "prefix", "rto", "key", "head")
ONLY_SEPARATE_ROWS = frozenset({"falcon", "falcon_h1", "lfm2", "qwen3_next", "mamba2"})
QueryMask = Literal["auto", "attention_mask", "separate_row"]


@dataclass(frozen=True)
class ReferenceExample:
    """One training example in tokens: SFT-like when `harmful_ids` is empty, else RTO.

    Attributes:
        prompt_ids: X with BOS, role marks and a trailing opening tag; an opening tag without loss before a
            prefix belongs here.
        prefix_ids: the harmful prefix, may be empty.
        understanding_ids: U.
        key_ids: K.
        rest_ids: the remaining response and the end-of-turn token. An example without marks has its whole
            response here.
        is_harmful: label of X, None if unknown.
        has_marks: whether U and K are marked (query mask and head apply).
        harmful_ids: H of an RTO example.
        end_ids: the turn end after H.
        refusal_token_id: the label of all RTO targets.
        kept: per token of H and end, whether it was drawn; empty: all.
        supervised: per token of H and end, False for tag tokens; empty: all True.
        repeats: whether this is a further draw of a row, whose [U;K] and head supervision were counted with
            the first.
    """

    prompt_ids: Sequence[int]
    prefix_ids: Sequence[int] = ()
    understanding_ids: Sequence[int] = ()
    key_ids: Sequence[int] = ()
    rest_ids: Sequence[int] = ()
    is_harmful: bool | None = None
    has_marks: bool = False
    harmful_ids: Sequence[int] = ()
    end_ids: Sequence[int] = ()
    refusal_token_id: int | None = None
    kept: Sequence[bool] = ()
    supervised: Sequence[bool] = ()
    repeats: bool = False

    @property
    def is_rto(self) -> bool:
        """Whether this is an RTO example."""
        return len(self.harmful_ids) > 0


@dataclass(frozen=True)
class ReferenceWeights:
    """The weights of the objective, with the defaults of the papers."""

    rto: float = 1.0
    key: float = 0.2
    head: float = 0.2
    theta: float = 0.5


class ReferenceTotals(NamedTuple):
    """Sums (differentiable scalars, nats), target counts and correct predictions, over all examples given."""

    sums: dict[str, Tensor]
    counts: dict[str, int]
    correct: dict[str, int]


@dataclass
class _Tally:
    sums: dict[str, Tensor]
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    correct: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SUMS, 0))

    def target(self, role: str, logits: Tensor, label: int) -> None:
        self.sums[role] = self.sums[role] + token_loss(logits, label)
        self.counts[role] += 1
        self.correct[role] += int(logits.argmax().item() == label)


def token_loss(logits: Tensor, label: int) -> Tensor:
    """−log softmax(logits)[label] of one position, at least in float32."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return torch.logsumexp(logits, dim=0) - logits[label]


def label_loss(logit: Tensor, label: bool) -> Tensor:
    """−log σ(z) for a harmful query, −log(1 − σ(z)) = −log σ(−z) for a harmless one."""
    return -torch.nn.functional.logsigmoid(logit if label else -logit)


def two_forward_safekey(
    model: PreTrainedModel,
    head_params: Mapping[str, Tensor] | None,
    examples: Iterable[ReferenceExample],
    *,
    query_mask: QueryMask = "auto",
    detach_head: bool = False,
) -> ReferenceTotals:
    """Sums and counts of all losses over `examples`.

    Args:
        model: a causal language model of transformers, or PEFT around one.
        head_params: `understanding.weight` [1, H], `understanding.bias` [1], `context.weight` [1, H],
            `context.bias` [1]; None: no head loss.
        examples: all examples of the step.
        query_mask: how X is hidden in the second forward, see the module.
        detach_head: the ablation in which the head loss does not reach the model.

    Returns:
        `sums` by `SUMS`, `counts` by `COUNTS`, `correct` by `SUMS`; a loss without targets has the sum 0.
    """
    zero = next(model.parameters()).new_zeros(())
    tally = _Tally({name: zero for name in SUMS})
    for example in examples:
        if example.is_rto:
            _add_rto(tally, model, example)
            continue
        hidden = _add_sft(tally, model, example)
        if not example.has_marks or example.repeats:
            continue
        _add_key(tally, model, example, query_mask)
        if head_params is not None and example.is_harmful is not None and len(example.understanding_ids) > 0:
            _add_head(tally, head_params, example, hidden.detach() if detach_head else hidden)
    return ReferenceTotals(tally.sums, tally.counts, tally.correct)


def objective(sums: Mapping[str, Tensor], counts: Mapping[str, int], weights: ReferenceWeights) -> Tensor:
    """The loss of one optimizer step from its sums and counts; a term without targets is 0."""
    language = sums["sft"] + sums["prefix"] + weights.rto * sums["rto"]
    head = weights.theta * sums["head_understanding"] + (1 - weights.theta) * sums["head_context"]
    n_lm = counts["sft"] + counts["prefix"] + counts["rto"]
    return (
        language / max(n_lm, 1)
        + weights.key * sums["key"] / max(counts["key"], 1)
        + weights.head * head / max(counts["head"], 1)
    )


def reference_loss(
    model: PreTrainedModel,
    head_params: Mapping[str, Tensor] | None,
    examples: Iterable[ReferenceExample],
    weights: ReferenceWeights | None = None,
    **settings: Any,
) -> Tensor:
    """`objective` of `two_forward_safekey` in one call."""
    totals = two_forward_safekey(model, head_params, examples, **settings)
    return objective(totals.sums, totals.counts, weights or ReferenceWeights())


def _forward(
    model: PreTrainedModel, ids: Sequence[int], positions: Sequence[int], mask: Any = None
) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    output = model(
        input_ids=torch.tensor([list(ids)], device=device),
        position_ids=torch.tensor([list(positions)], device=device),
        attention_mask=mask,
        use_cache=False,
        output_hidden_states=True,
    )
    return output.logits[0], output.hidden_states[-1][0]


def _add_sft(tally: _Tally, model: PreTrainedModel, example: ReferenceExample) -> Tensor:
    unsupervised = [*example.prompt_ids, *example.prefix_ids]
    ids = [*unsupervised, *example.understanding_ids, *example.key_ids, *example.rest_ids]
    logits, hidden = _forward(model, ids, range(len(ids)))
    role = "prefix" if len(example.prefix_ids) > 0 else "sft"
    for t in range(max(len(unsupervised), 1), len(ids)):
        tally.target(role, logits[t - 1], ids[t])
    return hidden


def _add_rto(tally: _Tally, model: PreTrainedModel, example: ReferenceExample) -> None:
    if example.refusal_token_id is None:
        raise ValueError("an RTO example needs refusal_token_id")
    answer = [*example.harmful_ids, *example.end_ids]
    ids = [*example.prompt_ids, *answer]
    logits, _ = _forward(model, ids, range(len(ids)))
    for i in range(len(answer)):
        t = len(example.prompt_ids) + i
        kept = len(example.kept) == 0 or example.kept[i]
        supervised = len(example.supervised) == 0 or example.supervised[i]
        if t > 0 and kept and supervised:
            tally.target("rto", logits[t - 1], example.refusal_token_id)


def _add_head(tally: _Tally, params: Mapping[str, Tensor], example: ReferenceExample, hidden: Tensor) -> None:
    start = len(example.prompt_ids) + len(example.prefix_ids)
    end = start + len(example.understanding_ids)
    for path, first in (("understanding", start), ("context", 0)):
        weight = params[f"{path}.weight"][0]
        total = torch.zeros_like(weight)
        for t in range(first, end):
            total = total + hidden[t].to(weight.dtype)
        logit = torch.dot(weight, total / (end - first)) + params[f"{path}.bias"][0]
        name = f"head_{path}"
        tally.sums[name] = tally.sums[name] + label_loss(logit, bool(example.is_harmful))
        tally.correct[name] += int((logit.item() > 0) == example.is_harmful)
    tally.counts["head"] += 1


def _add_key(tally: _Tally, model: PreTrainedModel, example: ReferenceExample, query_mask: QueryMask) -> None:
    visible = [*example.understanding_ids, *example.key_ids]
    n_hidden = len(example.prompt_ids) + len(example.prefix_ids)
    if query_mask == "auto":
        query_mask = "separate_row" if model.config.model_type in ONLY_SEPARATE_ROWS else "attention_mask"
    if query_mask == "separate_row":
        logits, _ = _forward(model, visible, range(n_hidden, n_hidden + len(visible)))
    else:
        ids = [*example.prompt_ids, *example.prefix_ids, *visible]
        mask = hiding_mask(model, n_hidden, len(ids))
        logits = _forward(model, ids, range(len(ids)), mask)[0][n_hidden:]
    for i in range(max(len(example.understanding_ids), 1), len(visible)):
        tally.target("key", logits[i - 1], visible[i])


def hiding_mask(model: PreTrainedModel, n_hidden: int, n_tokens: int) -> Tensor | dict[str, Tensor]:
    """Additive masks [1, 1, T, T] under which the tokens from `n_hidden` on do not see the first `n_hidden`.

    Returns:
        One mask, or one per kind of layer for models that alternate sliding and full attention.
    """
    parameter = next(model.parameters())

    def mask_with(window_tokens: int | None) -> Tensor:
        mask = torch.full((1, 1, n_tokens, n_tokens), torch.finfo(parameter.dtype).min, dtype=parameter.dtype)
        for query in range(n_tokens):
            for key in range(query + 1):
                same_side = (query < n_hidden) == (key < n_hidden)
                in_window = window_tokens is None or query - key < window_tokens
                if same_side and in_window:
                    mask[0, 0, query, key] = 0.0
        return mask.to(parameter.device)

    config = model.config
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if "sliding_attention" in kinds:
        return {"full_attention": mask_with(None), "sliding_attention": mask_with(window)}
    uses_window = config.model_type in {"mistral", "mixtral", "phi3"} and window is not None
    return mask_with(window if uses_window else None)
