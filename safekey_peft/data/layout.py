"""Layout: where prefix, understanding, key sentence and loss stand in the text of one example.

Everything here is text and character spans; tokens come in the encoder. The cases are those of the design:
whether the prompt already opens the thought, whether safe and harmful response have thoughts, and where in the
harmful response the prefix ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from safekey_peft.data.prefixes import join_continuation
from safekey_peft.data.rendering import (
    CLOSE_TAG,
    OPEN_TAG,
    THOUGHT_OPENING,
    closes_thought,
    has_thought,
    opens_thought,
    strip_open_tag,
)

CharSpan = tuple[int, int]
_CLOSED = "the generation prompt already closes the thought, so a response's own thought and key sentence would be lost"


@dataclass(frozen=True, slots=True)
class TextLayout:
    """The text of one example and the character spans in it, all half-open.

    Attributes:
        text: prompt, prefix, reply and turn end.
        prompt_end: where X ends.
        supervised: where targets begin (after prompt, prefix and unsupervised tags).
        prefix: span of the harmful prefix, None without one.
        understanding: span of U, None where there is none.
        key_sentence: span of K, None where there is none.
        unsupervised: spans inside the supervised part that have no loss (tags in RTO).
    """

    text: str
    prompt_end: int
    supervised: int
    prefix: CharSpan | None = None
    understanding: CharSpan | None = None
    key_sentence: CharSpan | None = None
    unsupervised: tuple[CharSpan, ...] = ()


class LayoutError(ValueError):
    """The row does not fit the template; ``args[0]`` says why."""


def safe_response_layout(
    prompt: str,
    response: str,
    turn_end: str,
    marks: tuple[int, int] | None,
    prefix: str = "",
    harmful_response_has_thought: bool = False,
) -> TextLayout:
    """Lay out [X ; prefix ; safe response].

    Args:
        prompt: rendered X with the generation prompt.
        response: R, as in the row.
        turn_end: supervised end of the turn.
        marks: (understanding_end, key_sentence_end) as character offsets in R, or None.
        prefix: opening of H, tag included where H starts with one; "" for none.
        harmful_response_has_thought: whether H, from which the prefix comes, has a thought.

    Raises:
        LayoutError: the thought would stand where the model does not read it as one.
    """
    opened, thinks = opens_thought(prompt), has_thought(response)
    if (thinks or (prefix and harmful_response_has_thought)) and closes_thought(prompt):
        raise LayoutError(_CLOSED)
    if prefix and harmful_response_has_thought and CLOSE_TAG in prefix:
        return _answer_continuation(prompt, response, turn_end, prefix, opened)

    head = prompt
    stripped = 0
    if prefix:
        body = prefix[strip_open_tag(prefix, prompt) :] if harmful_response_has_thought else prefix
        if (harmful_response_has_thought or thinks) and not opened:
            head += THOUGHT_OPENING
        if opened and not (harmful_response_has_thought or thinks):
            head += _closing(prompt)
        stripped = strip_open_tag(response)
        reply = join_continuation(body, response[stripped:])
        start = span_start = len(head) + len(body)
        if harmful_response_has_thought and not thinks:
            # A plain reply cannot follow inside a thought: the model is taught to close it first.
            reply = f"\n{CLOSE_TAG}\n\n{response}"
            span_start += len(reply) - len(response)
        lead = len(reply) - len(response[stripped:])
    else:
        body = ""
        if opened:
            stripped = strip_open_tag(response, prompt)
            if not thinks:
                head += _closing(prompt)
            reply, lead = response[stripped:], 0
        elif thinks and strip_open_tag(response) == 0:
            # The data left the opening tag to a template that opens the thought; this one does not.
            reply, lead = THOUGHT_OPENING + response, len(THOUGHT_OPENING)
        else:
            reply, lead = response, 0
        start = span_start = len(head)

    understanding = key_sentence = None
    if marks is not None:
        shift = start + lead - stripped
        understanding = (span_start, marks[0] + shift)
        key_sentence = (marks[0] + shift, marks[1] + shift)
        if understanding[1] <= understanding[0]:
            raise LayoutError("understanding_end stands inside the opening tag, so the understanding is empty")
    return TextLayout(
        text=head + body + reply + turn_end,
        prompt_end=len(prompt),
        supervised=start,
        prefix=(len(head), len(head) + len(body)) if prefix else None,
        understanding=understanding,
        key_sentence=key_sentence,
    )


def harmful_response_layout(
    prompt: str, harmful_response: str, turn_end: str, safe_response_has_thought: bool | None
) -> TextLayout:
    """Lay out [X ; H] for RTO; tags are there where the model expects them and are never targets.

    Args:
        prompt: rendered X with the generation prompt.
        harmful_response: H.
        turn_end: end of the turn, a target too.
        safe_response_has_thought: of the row's safe response; None: the row has none.
    """
    opened, thinks = opens_thought(prompt), has_thought(harmful_response)
    if thinks and closes_thought(prompt):
        raise LayoutError(_CLOSED)
    head, body = prompt, harmful_response
    if opened and not thinks and safe_response_has_thought is False:
        head += _closing(prompt)
    if thinks or safe_response_has_thought:
        body = harmful_response[strip_open_tag(harmful_response, prompt) :]
        if not opened and not closes_thought(prompt):
            body = harmful_response[strip_open_tag(harmful_response) :]
            head += THOUGHT_OPENING
    start = len(head)
    text = head + body + turn_end
    tags = []
    for tag in (OPEN_TAG, CLOSE_TAG):
        at = text.find(tag, start)
        while at >= 0:
            tags.append((at, at + len(tag)))
            at = text.find(tag, at + len(tag))
    return TextLayout(text=text, prompt_end=len(prompt), supervised=start, unsupervised=tuple(sorted(tags)))


def _closing(prompt: str) -> str:
    """Close, as part of X, the thought that the prompt opened: neither response has one."""
    return f"\n{CLOSE_TAG}\n\n" if prompt.endswith(OPEN_TAG) else f"{CLOSE_TAG}\n\n"


def _answer_continuation(prompt: str, response: str, turn_end: str, prefix: str, opened: bool) -> TextLayout:
    """H's whole thought and the start of its answer, then only the safe answer; no U, no K."""
    head = prompt if opened else prompt + THOUGHT_OPENING
    body = prefix[strip_open_tag(prefix, prompt) :]
    answer = response.rpartition(CLOSE_TAG)[2].lstrip()
    reply = join_continuation(body, answer)
    start = len(head) + len(body)
    return TextLayout(
        text=head + body + reply + turn_end,
        prompt_end=len(prompt),
        supervised=start,
        prefix=(len(head), start),
    )
