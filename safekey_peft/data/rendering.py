"""Rendering: a row's conversation as text, exactly as the model sees it at inference.

The query is rendered by the tokenizer's own chat template with its generation prompt; the trained turn is then
written behind it verbatim, followed by what the template puts at a turn's end. So a template that drops the
thoughts of past turns (DeepSeek-R1-Distill, Qwen3) cannot touch the trained one, and the template that is saved
with the adapter stays the model's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from safekey_peft.errors import ConfigError

OPEN_TAG = "<think>"
CLOSE_TAG = "</think>"
THOUGHT_OPENING = "<think>\n"
_LEADING_OPEN_TAG = re.compile(r"\s*<think>\n?")
_SENTINEL = "Qz7sentinelQz7"
_SAMPLE = ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": _SENTINEL})


class ChatTokenizer(Protocol):
    """What rendering and encoding need of a (fast) transformers tokenizer."""

    is_fast: bool
    chat_template: Any
    eos_token: Any
    unk_token_id: int | None
    all_special_tokens: list[str]

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Render a conversation."""

    def __call__(self, text: Any, **kwargs: Any) -> Any:
        """Encode text."""

    def decode(self, token_ids: Any, **kwargs: Any) -> Any:
        """Decode ids."""


class TemplateError(ConfigError):
    """The chat template cannot render a conversation as the losses need it."""


@dataclass(frozen=True, slots=True)
class TurnShape:
    """How a template frames an assistant turn.

    Attributes:
        lead: white space between generation prompt and reply, e.g. " " of ``[/INST] reply``.
        end: what ends the turn, up to and with its first special token; supervised as in SFT.
    """

    lead: str
    end: str


class ConversationRenderer:
    """Renders prompts with the tokenizer's chat template and knows how a turn ends.

    Args:
        tokenizer: with a chat template.
        template_kwargs: passed to the template, e.g. ``{"enable_thinking": True}``.

    Raises:
        TemplateError: no template, or one that does not write a reply's text verbatim.
    """

    def __init__(self, tokenizer: ChatTokenizer, template_kwargs: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self.template_kwargs = dict(template_kwargs or {})
        if not getattr(tokenizer, "chat_template", None):
            raise TemplateError(
                "the tokenizer has no chat template; set `chat_template:` in the configuration, "
                "or use a tokenizer that brings one"
            )
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        self.special_tokens = {*tokenizer.all_special_tokens, *(str(t) for t in added if getattr(t, "special", True))}
        self.turn = self._turn_shape()
        # Role marks need not be "special": those that the template writes count as control tokens as well.
        frame = self._render(_SAMPLE, add_generation_prompt=True)
        marks = {str(token) for token in added if str(token) in frame}
        # Short "special" tokens are ordinary text in some vocabularies.
        self.control_tokens = sorted(
            token for token in self.special_tokens | marks if token not in (OPEN_TAG, CLOSE_TAG) and len(token) > 2
        )

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Any = None) -> str:
        """Render everything before the trained turn, generation prompt included; ``tools`` go to the template.

        Raises:
            TemplateError: the template refuses these messages.
        """
        return self._render(messages, add_generation_prompt=True, tools=tools) + self.turn.lead

    def _render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool, tools: Any = None) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **({"tools": tools} if tools else {}),
                **self.template_kwargs,
            )
        # Templates are programs of other people: jinja's own errors, but also TypeError and the like.
        except Exception as error:
            raise TemplateError(f"the chat template cannot render this conversation: {error}") from error
        return str(text)

    def _turn_shape(self) -> TurnShape:
        prompt = self._render(_SAMPLE[:1], add_generation_prompt=True)
        full = self._render(_SAMPLE, add_generation_prompt=False)
        before, found, end = full.partition(_SENTINEL)
        if not found:
            raise TemplateError("the chat template does not write the text of an assistant turn; it would be lost")
        bare = _without_open_thought(prompt)
        gap = before[len(bare) :] if before.startswith(bare) else ""
        foreign = [token for token in self.special_tokens if token in gap.replace(OPEN_TAG, "").replace(CLOSE_TAG, "")]
        if "<|channel|>" in gap or foreign:
            raise TemplateError(
                f"the chat template writes {gap[:60]!r} before a reply (a channel format), where the losses "
                "expect thoughts between <think> and </think>; use a template with think tags"
            )
        return TurnShape(lead=gap if gap.isspace() else "", end=self._supervised_end(end))

    def _supervised_end(self, end: str) -> str:
        stops = [token for token in self.special_tokens if token and token in end]
        stops += re.findall(r"<\|[a-z_]+\|>|<end_of_turn>|</s>", end)
        if stops:
            first = min(stops, key=lambda token: (end.index(token), -len(token)))
            return end[: end.index(first) + len(first)]
        if not self.tokenizer.eos_token:
            raise TemplateError("neither the chat template nor the tokenizer ends a turn; set an eos_token")
        return str(self.tokenizer.eos_token)


def opens_thought(prompt: str) -> bool:
    """Whether a rendered prompt ends inside an opened thought."""
    return prompt.rstrip().endswith(OPEN_TAG)


def closes_thought(prompt: str) -> bool:
    """Whether a rendered prompt ends with a closed (empty) thought, i.e. thinking is switched off."""
    return prompt.rstrip().endswith(CLOSE_TAG)


def strip_open_tag(text: str, prompt: str | None = None) -> int:
    """Return how many leading characters of a reply are its opening tag (0: none).

    Where the prompt already wrote the tag without its line break, the break stays with the reply.
    """
    match = _LEADING_OPEN_TAG.match(text)
    if match is None:
        return 0
    if prompt is not None and opens_thought(prompt) and not prompt.endswith("\n"):
        return text.index(OPEN_TAG) + len(OPEN_TAG)
    return match.end()


def has_thought(text: str) -> bool:
    """Whether a response holds a thought: an opening tag at its start, or a closing one anywhere."""
    return strip_open_tag(text) > 0 or CLOSE_TAG in text


def _without_open_thought(prompt: str) -> str:
    if not opens_thought(prompt):
        return prompt
    return prompt[: prompt.rindex(OPEN_TAG)]
