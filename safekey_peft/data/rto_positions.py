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


def rto_positions(
    draft: Draft, layout: TextLayout, rto_from: RtoFrom, shared_end: int | None = None
) -> NDArray[np.bool_]:
    """Return which tokens of [X ; H] are RTO targets, [T].

    Args:
        draft: the tokens.
        layout: of [X ; H].
        rto_from: ``response``: all of H and its turn end, less the tags (the paper); ``divergence``: those whose
            context is none of R's; ``answer``: of these, the ones behind H's thought, if H has one.
        shared_end: where H leaves R, see ``shared_end``; None where there is no R.
    """
    target: NDArray[np.bool_] = draft.starts >= layout.supervised
    for start, end in layout.unsupervised:
        target &= ~((draft.ends > start) & (draft.starts < end))
    if rto_from != "response" and shared_end is not None:
        # The first token that differs has a shared context still.
        target &= draft.starts > shared_end
    if rto_from == "answer" and layout.answer is not None:
        target &= draft.starts >= layout.answer
    return target


def shared_end(layout: TextLayout, safe: TextLayout, thought: ThoughtFormat) -> int:
    """Return the character of [X ; H] at which H leaves R.

    Args:
        layout: of [X ; H].
        safe: of [X ; R], without a prefix, in the same template.
        thought: the template's format; opening tags and the white space around them are not compared.
    """
    bodies, leads = [], []
    for each in (layout, safe):
        body = each.text[each.supervised :]
        leads.append(len(body) - len(body[thought.opening_length(body) :].lstrip()))
        bodies.append(body[leads[-1] :])
    return layout.supervised + leads[0] + len(commonprefix(bodies))
