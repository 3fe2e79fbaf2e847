"""Harmful prefixes: the first k words of a harmful response, drawn reproducibly.

Source: DeRTa, arXiv 2407.09121, MLE with harmful response prefix. Differs from the released script, which draws
1…n−2, skips short rows and sets k = 0 on every third row: here k is uniform in 1…n inclusive, and 0 with a given
probability.
"""

from __future__ import annotations

import random
import re
from os.path import commonprefix

from safekey_peft.data.thoughts.format import has_thought, strip_open_tag

# Tags are structure, not words: a cut never falls inside one, and a tag does not count towards k.
_TAG = re.compile(r"</?think>")
_WORD = re.compile(r"\S+")


def word_ends(harmful_response: str) -> list[int]:
    """Return the character offset after each word of H; after each character where H has no white space."""
    untagged = _TAG.sub(lambda tag: " " * len(tag.group()), harmful_response)
    words = list(_WORD.finditer(untagged))
    if len(words) == 1:
        return list(range(words[0].start() + 1, words[0].end() + 1))
    return [word.end() for word in words]


def shared_opening(harmful_response: str, safe_response: str) -> int:
    """Return the characters of H before it leaves R; opening tags and the white space around them are not compared.

    Up to there a context of H is one of R too, and whatever follows is trained by R. A thought shares nothing with an
    answer; an H without a thought stands where R's thought would.
    """
    if has_thought(harmful_response) and not has_thought(safe_response):
        return 0
    harmful, safe = (text[strip_open_tag(text) :].lstrip() for text in (harmful_response, safe_response))
    return len(harmful_response) - len(harmful) + len(commonprefix([harmful, safe]))


def draw_prefix(harmful_response: str, empty_share: float, rng: random.Random, after_chars: int = 0) -> str:
    """Draw a prefix of H; the empty string with probability ``empty_share``.

    Args:
        harmful_response: H, with at least one word.
        empty_share: probability of k = 0.
        rng: seeded by the caller from (seed, row).
        after_chars: a prefix is longer than that; if no word ends behind it, the prefix is empty.
    """
    if rng.random() < empty_share:
        return ""
    ends = [end for end in word_ends(harmful_response) if end > after_chars]
    if not ends:
        return ""
    return harmful_response[: ends[rng.randint(1, len(ends)) - 1]]


def join_continuation(prefix: str, continuation: str) -> str:
    """Return the continuation with the one space that joins it to a prefix (none after white space)."""
    if not prefix or prefix[-1].isspace() or not continuation or continuation[0].isspace():
        return continuation
    return " " + continuation
