"""Layout: where prefix, understanding, key sentence and loss stand in the text of one example.

Everything here is text and character spans; tokens come in the encoder. The cases are those of the design:
whether the prompt already opens the thought, whether safe and harmful response have thoughts, and where in the
harmful response the prefix ends. Rows come with ``<think>`` tags and are laid out in the template's own thought format.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from safekey_peft.data.prefixes import join_continuation
from safekey_peft.data.thoughts.format import CLOSE_TAG, VERBATIM, ThoughtFormat, has_thought, split_thought

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
        answer: RTO: where H's answer begins, behind its thought; the text's end for a thought that never ends; None
            for an H without a thought.
    """

    text: str
    prompt_end: int
    supervised: int
    prefix: CharSpan | None = None
    understanding: CharSpan | None = None
    key_sentence: CharSpan | None = None
    unsupervised: tuple[CharSpan, ...] = ()
    answer: int | None = None

    def with_lead(self, lead: str) -> TextLayout:
        """Give the reply the white space between generation prompt and reply (``[/INST] reply``), if it starts there.

        The model writes that space itself, mostly as part of the reply's first token, which would be X's otherwise.
        """
        if not lead or self.supervised != self.prompt_end:
            return self
        start = self.prompt_end - len(lead)
        understanding = self.understanding
        if understanding is not None:
            understanding = (start, understanding[1])
        return replace(self, prompt_end=start, supervised=start, understanding=understanding)


class LayoutError(ValueError):
    """The row does not fit the template; ``args[0]`` says why."""


class NoAnswerError(ValueError):
    """The prefix ends in H's answer; the safe response's thought never ends, so there is no answer to go on with."""


def safe_response_layout(
    prompt: str,
    response: str,
    turn_end: str,
    marks: tuple[int, int] | None,
    prefix: str = "",
    harmful_response_has_thought: bool = False,
    thought: ThoughtFormat = VERBATIM,
) -> TextLayout:
    """Lay out [X ; prefix ; safe response].

    Args:
        prompt: rendered X with the generation prompt.
        response: R, as in the row.
        turn_end: supervised end of the turn.
        marks: (understanding_end, key_sentence_end) as character offsets in R, or None.
        prefix: opening of H, tag included where H starts with one; "" for none.
        harmful_response_has_thought: whether H, from which the prefix comes, has a thought.
        thought: the template's format.

    Raises:
        LayoutError: the thought would stand where the model does not read it as one.
        NoAnswerError: this prefix needs an answer, and the response has none.
    """
    opened, thinks = thought.opens(prompt), has_thought(response)
    if (thinks or (prefix and harmful_response_has_thought)) and thought.closes(prompt):
        raise LayoutError(_CLOSED)
    if prefix and harmful_response_has_thought and CLOSE_TAG in prefix:
        return _answer_continuation(prompt, response, turn_end, prefix, thought)
    response, marks = thought.translate(response, marks)
    prefix, _ = thought.translate(prefix)

    head = prompt
    stripped = 0
    if prefix:
        body = prefix[thought.opening_length(prefix, prompt) :] if harmful_response_has_thought else prefix
        if not (harmful_response_has_thought or thinks):
            head += thought.answer_after(prompt)
        elif not opened:
            head += thought.opening
        stripped = thought.opening_length(response)
        reply = join_continuation(body, response[stripped:])
        start = span_start = len(head) + len(body)
        if harmful_response_has_thought and not thinks:
            # A plain reply cannot follow inside a thought: the model is taught to close it first.
            reply = thought.closing + response
            span_start += len(reply) - len(response)
        lead = len(reply) - len(response[stripped:])
    else:
        body = ""
        if opened:
            stripped = thought.opening_length(response, prompt)
            if not thinks:
                head += thought.answer_after(prompt)
            reply, lead = response[stripped:], 0
        else:
            stripped = 0
            before = thought.answer_after(prompt) if not thinks else ""
            if thinks and thought.opening_length(response) == 0:
                # The data left the opening tag to a template that opens the thought; this one does not.
                before = thought.opening
            reply, lead = before + response, len(before)
        start = span_start = len(head)

    understanding = key_sentence = None
    if marks is not None:
        shift = start + lead - stripped
        understanding = (span_start, marks[0] + shift)
        key_sentence = (marks[0] + shift, marks[1] + shift)
        written = start + lead - stripped + (0 if thought.verbatim or not thinks else thought.opening_length(response))
        if understanding[1] <= max(understanding[0], written):
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
    prompt: str,
    harmful_response: str,
    turn_end: str,
    safe_response_has_thought: bool | None,
    thought: ThoughtFormat = VERBATIM,
) -> TextLayout:
    """Lay out [X ; H] for RTO; tags are there where the model expects them and are never targets.

    Args:
        prompt: rendered X with the generation prompt.
        harmful_response: H.
        turn_end: end of the turn, a target too.
        safe_response_has_thought: of the row's safe response; None: the row has none.
        thought: the template's format.

    Raises:
        LayoutError: the thought would stand where the model does not read it as one.
    """
    opened, thinks = thought.opens(prompt), has_thought(harmful_response)
    if thinks and thought.closes(prompt):
        raise LayoutError(_CLOSED)
    harmful_response, _ = thought.translate(harmful_response)
    head, body = prompt, harmful_response
    if thinks or safe_response_has_thought:
        body = harmful_response[thought.opening_length(harmful_response, prompt) :]
        if not opened and not thought.closes(prompt):
            body = harmful_response[thought.opening_length(harmful_response) :]
            head += thought.opening
    elif not opened or safe_response_has_thought is False:
        head += thought.answer_after(prompt)
    start = len(head)
    text = head + body + turn_end
    tags = []
    for tag in (thought.opening_tag, thought.closing_tag):
        at = text.find(tag, start)
        while at >= 0:
            tags.append((at, at + len(tag)))
            at = text.find(tag, at + len(tag))
    closed = text.find(thought.closing_tag, start)
    answer = None if not thinks else len(text) if closed < 0 else closed + len(thought.closing_tag)
    return TextLayout(
        text=text, prompt_end=len(prompt), supervised=start, unsupervised=tuple(sorted(tags)), answer=answer
    )


def _answer_continuation(prompt: str, response: str, turn_end: str, prefix: str, thought: ThoughtFormat) -> TextLayout:
    """H's whole thought and the start of its answer, then only the safe answer; no U, no K."""
    prefix, _ = thought.translate(prefix)
    head = prompt if thought.opens(prompt) else prompt + thought.opening
    body = prefix[thought.opening_length(prefix, prompt) :]
    if has_thought(response) and CLOSE_TAG not in response:
        raise NoAnswerError("the prefix ends in the harmful answer, but the response's thought never ends")
    # The first tag ends the thought; one that stands in the answer is text.
    answer = (split_thought(response)[1] if has_thought(response) else response).lstrip()
    # A foreign mark needs no space after it; behind a word of H the one space stands.
    reply = answer if not thought.verbatim and body.endswith(thought.closing) else join_continuation(body, answer)
    start = len(head) + len(body)
    return TextLayout(
        text=head + body + reply + turn_end,
        prompt_end=len(prompt),
        supervised=start,
        prefix=(len(head), start),
    )
