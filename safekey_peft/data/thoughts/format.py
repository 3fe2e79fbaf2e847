r"""Thought formats: how a model marks where its thought begins, and where it ends and the answer begins.

Rows are always written with ``<think>`` and ``</think>``. Most reasoning models read exactly that; others have marks
of their own: channels (``<|channel|>analysis<|message|>…``), ``[THINK]…[/THINK]``, response marks. What a model reads
is a property of its chat template, so the format is found there, and rows are translated while they are laid out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OPEN_TAG = "<think>"
CLOSE_TAG = "</think>"
THOUGHT_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Keys of a turn under which published templates look for its thought."""
THOUGHT_BLOCKS = "content"
"""Instead of such a key: the content is a list of blocks, and the thought is one of them (Mistral)."""

_CANONICAL_OPENING = re.compile(r"\s*<think>\n?")
# The line break before the tag is markup (U and K end before it), white space after it is the joint.
_CANONICAL_CLOSING = re.compile(r"\n?</think>\s*")
_MARK = re.compile(r"<\|[^<>|\s]+\|?>|<[^<>|\s]+\|>|\[/?[A-Z_]+\]|</?[A-Za-z_:]+>|◁/?\w+▷")


@dataclass(frozen=True, slots=True)
class ThoughtFormat:
    r"""The marks around a thought, as the model writes them.

    Attributes:
        opening: what opens a thought, e.g. ``"<think>\n"`` or ``"<|channel|>analysis<|message|>"``.
        closing: what joins thought and answer, e.g. ``"\n</think>\n\n"`` or
            ``"<|end|><|start|>assistant<|channel|>final<|message|>"``.
        answer: what the model writes before an answer without a thought; mostly nothing.
        field: key of a turn under which the template takes a past thought, or ``THOUGHT_BLOCKS``; None: it is
            written into the content.
        verbatim: whether rows already are in this format and are not touched.
    """

    opening: str = "<think>\n"
    closing: str = "\n</think>\n\n"
    answer: str = ""
    field: str | None = None
    verbatim: bool = False

    @property
    def opening_tag(self) -> str:
        """Return the opening without white space around it."""
        return self.opening.strip()

    @property
    def closing_tag(self) -> str:
        """Return the closing without white space around it."""
        return self.closing.strip()

    @property
    def marks(self) -> set[str]:
        """Return the marks that a row's text must not hold; ``<think>`` and ``</think>`` are how rows are written."""
        found = _MARK.findall(self.opening + self.closing + self.answer)
        return set(found) - {OPEN_TAG, CLOSE_TAG}

    def opens(self, prompt: str) -> bool:
        """Whether a rendered prompt ends inside an opened thought."""
        return prompt.rstrip().endswith(self.opening_tag)

    def closes(self, prompt: str) -> bool:
        """Whether a rendered prompt ends where the answer begins, i.e. thinking is switched off."""
        return prompt.rstrip().endswith(self.closing_tag) or bool(self.answer.strip() and self.answers(prompt))

    def answers(self, prompt: str) -> bool:
        """Whether a rendered prompt already ends with what opens an answer."""
        return prompt.rstrip().endswith(self.answer.rstrip())

    def opening_length(self, text: str, prompt: str | None = None) -> int:
        """Return how many leading characters of a reply, in this format, are its opening (0: none).

        Where the prompt already wrote the tag without its line break, the break stays with the reply.
        """
        if self.verbatim:
            match = _CANONICAL_OPENING.match(text)
            length = 0 if match is None else match.end()
        else:
            length = len(self.opening) if text.startswith(self.opening) else 0
        if length and prompt is not None and self.opens(prompt) and not prompt.endswith("\n"):
            return text.index(self.opening_tag) + len(self.opening_tag)
        return length

    def closing_after(self, prompt: str) -> str:
        """Return what closes the thought that a prompt has just opened."""
        return self.closing if prompt.endswith(self.opening_tag) else self.closing.lstrip()

    def answer_after(self, prompt: str) -> str:
        """Return what stands between a prompt and an answer without a thought."""
        if self.opens(prompt):
            return self.closing_after(prompt)
        return "" if self.answers(prompt) or self.closes(prompt) else self.answer

    def translate(self, text: str, offsets: tuple[int, int] | None = None) -> tuple[str, tuple[int, int] | None]:
        """Write a row's text in this format.

        Args:
            text: with ``<think>`` and ``</think>``, or neither.
            offsets: character offsets into it (ends of U and K).

        Returns: the text and the same offsets into it. An offset inside markup moves to that markup's start, or,
            in the opening, to its end.
        """
        if self.verbatim:
            return text, offsets
        pieces: list[tuple[int, int, str]] = []
        opening = _CANONICAL_OPENING.match(text)
        if opening is not None:
            pieces.append((0, opening.end(), self.opening))
        closing = _CANONICAL_CLOSING.search(text, opening.end() if opening else 0)
        if closing is not None:
            pieces.append((closing.start(), closing.end(), self.closing))
        for start, end, mark in reversed(pieces):
            text = text[:start] + mark + text[end:]
        if offsets is None:
            return text, None
        return text, (_moved(offsets[0], pieces), _moved(offsets[1], pieces))

    def past_turn(self, turn: Mapping[str, Any]) -> dict[str, Any]:
        """Return an earlier turn so that the template finds its thought where it looks for thoughts.

        A turn that has its thought in a field, or none, or a format that is ``<think>`` itself: untouched.
        """
        content = turn.get("content")
        if self.verbatim or turn.get("role") != "assistant" or not isinstance(content, str):
            return dict(turn)
        if not has_thought(content) or any(turn.get(field) for field in THOUGHT_FIELDS):
            return dict(turn)
        if self.field is None:
            return {**turn, "content": self.translate(content)[0]}
        thought, answer = split_thought(content)
        if self.field == THOUGHT_BLOCKS:
            return {**turn, "content": thought_blocks(thought, answer)}
        return {**turn, "content": answer, self.field: thought}


VERBATIM = ThoughtFormat(verbatim=True)
"""``<think>`` and ``</think>`` as they stand in the row; also for models that know no thoughts."""


def thought_blocks(thought: str, answer: str) -> list[dict[str, str]]:
    """Return a content of two blocks, as Mistral's templates take thoughts."""
    return [{"type": "thinking", "thinking": thought}, {"type": "text", "text": answer}]


def strip_open_tag(text: str) -> int:
    """Return how many leading characters of a row's text are its opening tag (0: none)."""
    match = _CANONICAL_OPENING.match(text)
    return 0 if match is None else match.end()


def has_thought(text: str) -> bool:
    """Whether a row's text holds a thought: an opening tag at its start, or a closing one anywhere."""
    return strip_open_tag(text) > 0 or CLOSE_TAG in text


def ends_in_thought(text: str) -> bool:
    """Whether a row's text opens a thought that never ends."""
    return has_thought(text) and CLOSE_TAG not in text


def split_thought(text: str) -> tuple[str, str]:
    """Split a row's text into thought and answer, without the marks; without a closing tag it is all thought."""
    start = strip_open_tag(text)
    closing = _CANONICAL_CLOSING.search(text, start)
    if closing is None:
        return text[start:], ""
    return text[start : closing.start()], text[closing.end() :]


def _moved(offset: int, pieces: list[tuple[int, int, str]]) -> int:
    shift = 0
    for start, end, mark in pieces:
        if offset < end and start == 0:
            return len(mark)
        if offset < end:
            return min(offset, start) + shift
        shift += len(mark) - (end - start)
    return offset + shift
