"""From a row to encoded examples: text → spans → tokens with roles.

Each text is encoded once, whole; spans are mapped to tokens by the tokenizer's offsets. A token belongs to the
span that holds its first character.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from safekey_peft.config import SafeKeyConfig
from safekey_peft.core.roles import LossRole
from safekey_peft.data import tags as tag_bits
from safekey_peft.data.draft import Draft, Unfit
from safekey_peft.data.key_sentence.rule import judge_row
from safekey_peft.data.layout import (
    LayoutError,
    NoAnswerError,
    TextLayout,
    harmful_response_layout,
    safe_response_layout,
)
from safekey_peft.data.prefixes import draw_prefix, shared_opening
from safekey_peft.data.rendering import ConversationRenderer, TemplateError
from safekey_peft.data.rows import RowError, SafetyRow
from safekey_peft.data.rto_positions import divergence, rto_positions
from safekey_peft.data.tags import IGNORED_LABEL
from safekey_peft.data.tekken import with_offsets
from safekey_peft.data.thoughts.format import THOUGHT_FIELDS, has_thought
from safekey_peft.errors import ConfigError, DataError

ENCODER_VERSION = 5
"""Part of the cache key of prepared data: raise it when the same row encodes differently."""

Excess = Literal["drop", "truncate", "raise"]
FEED_BITS = {"dual_path": 1, "query_mask": 2, "harmful_prefix": 4, "rto": 8}
"""Which losses an example feeds, as one integer column."""


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """One training example, ready for a dataset column each.

    Attributes:
        input_ids: [T] token ids, all segments of the example one after another.
        labels: [T] target ids or −100 (a token's own target, as in transformers: not shifted).
        tags: [T], see ``safekey_peft.data.tags``.
        kind: ``sft``, ``prefix`` (a harmful prefix stands before the response) or ``rto``.
        feeds: bit set over ``FEED_BITS``.
        truncated: whether it was cut on the right to fit.
    """

    input_ids: list[int]
    labels: list[int]
    tags: list[int]
    kind: Literal["sft", "prefix", "rto"]
    feeds: int
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class _Rto:
    """What an RTO example depends on beside its layout: the key of its draws, and R where H is compared with it."""

    key: str
    safe: TextLayout | None


class SafeKeyExampleEncoder:
    """Encodes rows for the losses that a configuration switches on.

    Args:
        tokenizer: a fast tokenizer with a chat template, or mistral-common's Tekken.
        config: which losses; default: none, i.e. plain SFT.
        sequence_len: longest example in tokens, [U;K] included; None: no limit.
        excess_length: what happens to longer ones: drop the example, truncate on the right (dropped where U, K
            or the prefix would be cut), or raise.
        min_tokens: shorter examples are dropped.
        seed: of the draws (prefixes, kept RTO positions), together with the row.
        template_kwargs: passed to the chat template.

    Raises:
        ConfigError: a tokenizer without offsets, no usable template, or a refusal text without a token of its own.
    """

    def __init__(
        self,
        tokenizer: Any,
        config: SafeKeyConfig | None = None,
        *,
        sequence_len: int | None = None,
        excess_length: Excess = "drop",
        min_tokens: int = 2,
        seed: int = 42,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.config = config or SafeKeyConfig()
        self.tokenizer = tokenizer = with_offsets(tokenizer)
        self.sequence_len = sequence_len
        self.excess_length = excess_length
        self.min_tokens = max(min_tokens, 2)
        self.seed = seed
        self.renderer = ConversationRenderer(tokenizer, template_kwargs)
        self.refusal_token_id = self._refusal_token_id() if self.config.rto else None

    def encode(self, row: SafetyRow, where: str = "row", draw_key: str | None = None) -> list[EncodedExample]:
        """Encode one row into its examples, as ``encode_counted`` without the faults of single examples."""
        return self.encode_counted(row, where, draw_key)[0]

    def encode_counted(
        self, row: SafetyRow, where: str = "row", draw_key: str | None = None
    ) -> tuple[list[EncodedExample], list[RowError]]:
        """Encode one row into its examples.

        Args:
            row: validated.
            where: "file:line" for messages.
            draw_key: what seeds the draws beside the seed; default: the row's id and content.

        Returns:
            Examples, SFT-like ones first, then the RTO example, never empty; and why others of the row were
            dropped.

        Raises:
            RowError: the row yields no example; ``reason`` is a slug for the counts.
            DataError: an over-long example with ``excess_length="raise"``.
        """
        key = draw_key or row.key()
        messages = _prompt_messages(row)
        self._refuse_control_tokens(row, messages, where)
        try:
            prompt = self.renderer.prompt(messages, tools=row.extra.get("tools"))
        except TemplateError as error:
            raise RowError(_at(where, row, f"{error}. Mend the row's messages or the template"), "template") from error
        lost = [turn["role"] for turn in messages if not _is_rendered(turn, prompt)]
        if lost:
            raise RowError(
                _at(where, row, f"the chat template leaves out the {lost[0]} turn. Use roles that it renders"),
                "turn_lost",
            )
        examples: list[EncodedExample] = []
        faults: list[RowError] = []
        if row.trained_response is not None:
            for layout in self._safe_layouts(row, prompt, key, where, faults):
                self._append(examples, faults, layout, row, where, marks_used=_marks_used(examples))
        if self.config.rto and row.harmful_response is not None:
            layout = self._harmful_layout(row, row.harmful_response, prompt, where)
            rto = _Rto(key, self._compared(row.trained_response, prompt))
            self._append(examples, faults, layout, row, where, rto=rto)
        if not examples:
            if faults:
                raise faults[0]
            raise RowError(
                _at(where, row, "has only a harmful response, which only RTO can use. Set safekey_rto: true"),
                "nothing_to_train",
            )
        return examples, faults

    def _refuse_control_tokens(self, row: SafetyRow, messages: list[dict[str, Any]], where: str) -> None:
        """Drop rows whose text holds control tokens: the tokenizer would take them for real role marks and ends."""
        texts = [str(turn.get(key) or "") for turn in messages for key in ("content", *THOUGHT_FIELDS)]
        texts += [text for text in (row.trained_response, row.harmful_response, row.harmful_prefix) if text]
        found = next((token for token in self.renderer.control_tokens for text in texts if token in text), None)
        if found is not None:
            raise RowError(
                _at(where, row, f"its text holds the control token {found!r}. Remove it from the text"), "control_token"
            )

    def _safe_layouts(
        self, row: SafetyRow, prompt: str, key: str, where: str, faults: list[RowError]
    ) -> Iterator[TextLayout]:
        response = row.trained_response
        assert response is not None
        marks = self._marks(row)
        source = row.harmful_response if row.harmful_response is not None else row.harmful_prefix
        for prefix in self._prefixes(row, key):
            try:
                layout = safe_response_layout(
                    prompt,
                    response,
                    self.renderer.turn.end,
                    marks,
                    prefix=prefix,
                    harmful_response_has_thought=source is not None and has_thought(source),
                    thought=self.renderer.thought,
                )
            except NoAnswerError as error:
                faults.append(RowError(_at(where, row, f"{error}. Finish the response"), "no_answer"))
            except LayoutError as error:
                raise RowError(
                    _at(where, row, f"{error}. Check the chat template's thinking switch"), "key_sentence_lost"
                ) from error
            else:
                yield layout.with_lead(self.renderer.turn.lead)

    def _harmful_layout(self, row: SafetyRow, harmful_response: str, prompt: str, where: str) -> TextLayout:
        response = row.trained_response
        thinks = None if response is None else has_thought(response)
        try:
            layout = harmful_response_layout(
                prompt, harmful_response, self.renderer.turn.end, thinks, self.renderer.thought
            )
            return layout.with_lead(self.renderer.turn.lead)
        except LayoutError as error:
            raise RowError(
                _at(where, row, f"{error}. Check the chat template's thinking switch"), "key_sentence_lost"
            ) from error

    def _marks(self, row: SafetyRow) -> tuple[int, int] | None:
        if not (self.config.query_mask or self.config.dual_path):
            return None
        if row.understanding_end is not None and row.key_sentence_end is not None:
            return row.understanding_end, row.key_sentence_end
        judgement = judge_row(row) if self.config.annotation == "rule" else None
        if judgement is None or judgement.marks is None:
            return None
        return judgement.marks.understanding_end, judgement.marks.key_sentence_end

    def _prefixes(self, row: SafetyRow, key: str) -> list[str]:
        if not self.config.harmful_prefix:
            return [""]
        if row.harmful_prefix is not None:
            return [row.harmful_prefix]
        if row.harmful_response is None:
            return [""]
        shared = 0
        if self.config.harmful_prefix_from == "divergence":
            shared = shared_opening(row.harmful_response, row.trained_response or "")
        return [
            draw_prefix(
                row.harmful_response,
                self.config.harmful_prefix_empty,
                random.Random(f"{self.seed}:{key}:prefix:{draw}"),  # noqa: S311
                after_chars=shared,
            )
            for draw in range(self.config.harmful_prefix_draws)
        ]

    def _append(
        self,
        examples: list[EncodedExample],
        faults: list[RowError],
        layout: TextLayout,
        row: SafetyRow,
        where: str,
        *,
        marks_used: bool = False,
        rto: _Rto | None = None,
    ) -> None:
        try:
            if rto is not None:
                draft = self._encode_rto(layout, rto)
            else:
                draft = self._encode_safe(layout, row, marks_used)
            examples.append(self._fit(draft))
        except Unfit as unfit:
            fault = RowError(_at(where, row, str(unfit)), unfit.reason)
            if unfit.reason == "too_long" and self.excess_length == "raise":
                raise DataError(str(fault)) from unfit
            faults.append(fault)

    def _encode_safe(self, layout: TextLayout, row: SafetyRow, marks_used: bool) -> Draft:
        draft = self._tokenise(layout)
        role = LossRole.PREFIX if layout.prefix else LossRole.SFT
        target = draft.starts >= layout.supervised
        draft.set_targets(target, draft.input_ids, role)
        draft.tags[0] |= tag_bits.SFT_LIKE
        draft.kind = "prefix" if layout.prefix else "sft"
        draft.feeds = FEED_BITS["harmful_prefix"] if layout.prefix else 0
        if layout.prefix:
            draft.untouchable = int(target.argmax())
        if layout.understanding is None or layout.key_sentence is None or marks_used:
            return draft
        understanding = draft.between(layout.understanding)
        key_sentence = draft.between(layout.key_sentence)
        if not understanding.any() or not key_sentence.any():
            raise Unfit(
                "no_token_of_marks",
                "no token starts inside the understanding or the key sentence. Check its offsets, and that the "
                "tokenizer knows its characters",
            )
        last_understanding = int(np.flatnonzero(understanding)[-1])
        if self.config.dual_path and row.is_harmful is not None:
            draft.tags[understanding] |= tag_bits.UNDERSTANDING
            draft.tags[: last_understanding + 1] |= tag_bits.CONTEXT
            draft.tags[0] |= tag_bits.head_label_bits(row.is_harmful)
            draft.feeds |= FEED_BITS["dual_path"]
            draft.untouchable = last_understanding + 1
        if self.config.query_mask:
            draft.tags[understanding] |= tag_bits.UNDERSTANDING
            draft.append_masked_segment(understanding, key_sentence)
            draft.feeds |= FEED_BITS["query_mask"]
            draft.untouchable = int(np.flatnonzero(key_sentence)[-1]) + 1
        return draft

    def _compared(self, safe_response: str | None, prompt: str) -> TextLayout | None:
        """Return the layout of [X ; R] with which H is compared, or None if nobody asks or there is no R."""
        if self.config.rto_from == "response" or safe_response is None:
            return None
        turn, thought = self.renderer.turn, self.renderer.thought
        return safe_response_layout(prompt, safe_response, turn.end, None, thought=thought).with_lead(turn.lead)

    def _encode_rto(self, layout: TextLayout, rto: _Rto) -> Draft:
        draft = self._tokenise(layout)
        diverged = 0
        if rto.safe is not None:
            diverged = divergence(draft, layout, self._tokenise(rto.safe), rto.safe, self.renderer.thought)
        target = rto_positions(draft, layout, self.config.rto_from, diverged)
        positions = int(target.sum())
        if self.config.rto_keep < 1.0:
            rng = np.random.default_rng(list(f"{self.seed}:{rto.key}:rto".encode()))
            target &= rng.random(len(target)) < self.config.rto_keep
        if not target.any():
            raise Unfit("no_rto_position", self._why_no_position(layout, positions))
        assert self.refusal_token_id is not None
        draft.set_targets(target, np.full_like(draft.input_ids, self.refusal_token_id), LossRole.RTO)
        draft.kind, draft.feeds = "rto", FEED_BITS["rto"]
        return draft

    def _why_no_position(self, layout: TextLayout, positions: int) -> str:
        message = "no position of the harmful response is an RTO target"
        if positions:
            return f"{message}: safekey_rto_keep {self.config.rto_keep:g} keeps none of its {positions}. Raise it"
        if self.config.rto_from == "answer" and layout.answer == len(layout.text):
            return f"{message}: its thought never ends. Finish it, or set safekey_rto_from: divergence"
        return f"{message}: it never leaves the safe response. Mend it, or set safekey_rto_from: response"

    def _tokenise(self, layout: TextLayout) -> Draft:
        encoded = self.tokenizer(layout.text, add_special_tokens=False, return_offsets_mapping=True)
        ids = np.asarray(encoded["input_ids"], dtype=np.int64)
        offsets = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        if len(ids) < 2:
            raise Unfit("empty_text", "the rendered conversation has fewer than two tokens")
        # Some tokenizers give tokens without text the offsets (0, 0); they stand where the last one ended.
        starts = np.maximum.accumulate(offsets[:, 0])
        return Draft(ids, starts, np.maximum(offsets[:, 1], starts))

    def _fit(self, draft: Draft) -> EncodedExample:
        extra = len(draft.masked_ids)
        total = len(draft.input_ids) + extra
        if total < self.min_tokens:
            raise Unfit("too_short", f"{total} tokens, at least {self.min_tokens} are asked for")
        truncated = False
        if self.sequence_len is not None and total > self.sequence_len:
            if self.excess_length != "truncate":
                raise Unfit(
                    "too_long",
                    f"{total} tokens, at most {self.sequence_len} fit. Raise sequence_len or shorten the row",
                )
            keep = self.sequence_len - extra
            if keep < max(draft.untouchable, 2):
                raise Unfit(
                    "marks_truncated",
                    f"{total} tokens; cut to {self.sequence_len} it would lose its understanding, key sentence or "
                    "prefix. Raise sequence_len",
                )
            draft.truncate(keep)
            truncated = True
            if not (draft.labels != IGNORED_LABEL).any():
                raise Unfit("no_target_left", f"cut to {self.sequence_len} tokens it has no target left. Raise it")
        return EncodedExample(
            input_ids=[*draft.input_ids.tolist(), *draft.masked_ids],
            labels=[*draft.labels.tolist(), *draft.masked_labels],
            tags=[*draft.tags.tolist(), *draft.masked_tags],
            kind=draft.kind,
            feeds=draft.feeds,
            truncated=truncated,
        )

    def _refusal_token_id(self) -> int:
        """Return the first token of the refusal text as it is written at the start of a response."""
        prompt = self.renderer.prompt([{"role": "user", "content": "Hello"}])
        if not self.renderer.thought.opens(prompt):
            prompt += self.renderer.thought.answer_after(prompt)
        refusal = self.config.refusal_text
        encoded = self.tokenizer(prompt + refusal, add_special_tokens=False, return_offsets_mapping=True)
        first = len(prompt) + len(refusal) - len(refusal.lstrip())
        for token_id, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if start <= first < end:
                if token_id == self.tokenizer.unk_token_id:
                    raise ConfigError(
                        f"refusal_text {refusal!r} is unknown to the tokenizer (its token is "
                        f"{self.tokenizer.unk_token_id}); choose a text it knows"
                    )
                if self.tokenizer.decode([token_id]).strip() and end > len(prompt):
                    return int(token_id)
        raise ConfigError(f"refusal_text {refusal!r} has no token of its own after the prompt; choose another text")


def _marks_used(examples: Sequence[EncodedExample]) -> bool:
    return any(example.feeds & (FEED_BITS["dual_path"] | FEED_BITS["query_mask"]) for example in examples)


def _is_rendered(turn: Mapping[str, Any], prompt: str) -> bool:
    """Whether a turn's text stands in the prompt; past assistant turns may lose their thoughts, as at inference."""
    content = turn.get("content")
    if turn["role"] == "assistant" or not isinstance(content, str):
        return True
    return content.strip() in prompt


def _prompt_messages(row: SafetyRow) -> list[dict[str, Any]]:
    if row.messages is not None:
        return [dict(message) for message in row.messages[:-1]]
    messages = [] if row.system is None else [{"role": "system", "content": row.system}]
    return [*messages, {"role": "user", "content": row.query}]


def _at(where: str, row: SafetyRow, message: str) -> str:
    return f"{where}{f' (id={row.id})' if row.id is not None else ''}: {message}"
