"""Which positions of a harmful response RTO trains.

DeRTa (arXiv 2407.09121) takes every position. But a context that H shares with the safe response R, X and the opening
words that both begin with, has a target already: R's next token, by SFT. RTO asks for a refusal after the very same
tokens, so the two only average out. In the thought, U, K and the harmful prefix (whose continuation is a thought)
contradict RTO in the same way.
"""

from __future__ import annotations

from os.path import commonprefix
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safekey_peft.data.draft import Draft
from safekey_peft.data.layout import TextLayout
from safekey_peft.data.thoughts.format import ThoughtFormat

RtoFrom = Literal["response", "divergence", "answer"]


def rto_positions(draft: Draft, layout: TextLayout, rto_from: RtoFrom, diverged: int = 0) -> NDArray[np.bool_]:
    """Return which tokens of [X ; H] are RTO targets, [T].

    Args:
        draft: the tokens.
        layout: of [X ; H].
        rto_from: ``response``: all of H and its turn end, less the tags (the paper); ``divergence``: those whose
            context is none of R's; ``answer``: of these, the ones behind H's thought, if H has one.
        diverged: the first token behind which H has left R, see ``divergence``; 0 where there is no R.
    """
    target: NDArray[np.bool_] = draft.starts >= layout.supervised
    for start, end in layout.unsupervised:
        target &= ~((draft.ends > start) & (draft.starts < end))
    if rto_from != "response":
        target[:diverged] = False
    if rto_from == "answer" and layout.answer is not None:
        target &= draft.starts >= layout.answer
    return target


def divergence(draft: Draft, layout: TextLayout, safe_draft: Draft, safe: TextLayout, thought: ThoughtFormat) -> int:
    """Return the first token of [X ; H] whose context is none of [X ; R]'s, neither as text nor as tokens.

    As tokens too, because what the tokenizer normalises or does not know differs in the text alone.

    Args:
        draft: the tokens of [X ; H].
        layout: of [X ; H].
        safe_draft: the tokens of [X ; R].
        safe: of [X ; R], without a prefix, in the same template.
        thought: the template's format.
    """
    length = min(len(draft.input_ids), len(safe_draft.input_ids))
    differs = np.flatnonzero(draft.input_ids[:length] != safe_draft.input_ids[:length])
    same_tokens = int(differs[0]) if len(differs) else length
    same_text = int((draft.ends <= shared_end(layout, safe, thought)).sum())
    # The first token that differs has a shared context still.
    return max(same_tokens, same_text) + 1


def shared_end(layout: TextLayout, safe: TextLayout, thought: ThoughtFormat) -> int:
    """Return the character of [X ; H] at which H leaves R; 0 where one begins in a thought and the other does not.

    What opens thought or answer and the white space around it are not compared: either the template writes them or
    the response does.
    """
    texts = layout.text, safe.text
    starts = [_first_word(each, thought) for each in (layout, safe)]
    thinks = [text[:start].rstrip().endswith(thought.opening_tag) for text, start in zip(texts, starts, strict=True)]
    if thinks[0] != thinks[1]:
        return 0
    return starts[0] + len(commonprefix([text[start:] for text, start in zip(texts, starts, strict=True)]))


def _first_word(layout: TextLayout, thought: ThoughtFormat) -> int:
    body = layout.text[layout.supervised :]
    opening = thought.opening_length(body) or (len(thought.answer) if body.startswith(thought.answer) else 0)
    return layout.supervised + len(body) - len(body[opening:].lstrip())
