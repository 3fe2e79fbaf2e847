"""Sentence ends in the opening of a response: quote-aware, with abbreviations, lists and paragraph breaks.

A sentence ends at `.` `?` `!` (or their Chinese, Hindi and Arabic kin) with the quote that closes behind it,
at a paragraph break and before a list item. An ellipsis, an abbreviation, a list number and a mark inside a
quotation end none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

QUOTE_CHARS = 1_000
BRACKET_CHARS = 300

WIDE_MARKS = "。？！｡．।؟"
_EVENT = re.compile(
    r"(?P<open>[\"'“‘「『（(`《])"
    rf"|(?P<marks>[.?!{WIDE_MARKS}…]+[\"'”’」』）)\]*_»]*)"
    r"|(?P<break>\n[ \t\r]*\n)"
    r"|\n(?=[ \t]*(?:[-*•][ \t]|\d{1,2}[.)][ \t]|\#{1,6}[ \t]))"
)
_CLOSING = {
    '"': '"',
    "'": "'",
    "“": "”",
    "‘": "’",
    "「": "」",
    "『": "』",
    "（": "）",
    "(": ")",
    "`": "`",
    "《": "》",
}
_SENTENCE_MARK = re.compile(rf"[.?!{WIDE_MARKS}]")
_MANY_SENTENCES = re.compile(r"[.?!]\s")
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_WORD = re.compile(r"\w")
_LETTER = re.compile(r"[^\W\d_]")
_LAST_WORD = re.compile(r"[^\s\"'“‘(\[]*$")
_NEXT_WORD = re.compile(r"[^\W\d_]+")
_LIST_NUMBER = re.compile(r"(?:^|[\n:;])[ \t]*[(*]*(?:\d{1,2}|[A-Za-z])$")

TITLES = frozenset("mr mrs ms mx dr prof rev hon gen col maj capt lt sgt sen rep gov pres messrs".split())
ABBREVIATIONS = frozenset(
    "vs etc e.g i.e eg ie cf al viz approx est univ assn bros jr sr esq inc ltd co corp llc dept"
    " st mt ft ave blvd rd hwy apt ext tel a.m p.m u.s u.k u.n ph.d".split()
)
BEFORE_NUMBERS = frozenset(
    "no nos vol vols fig figs sec ch p pp".split()
    + "jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
"""Abbreviations only before a number: "No. 5", but not "no. Cursed …"."""
OPENERS = frozenset(
    "i hmm okay ok so well first let now the this that these those it they he she we you but and however also"
    " since what how why my their there wait maybe perhaps alright then next if".split()
)
"""Words that often open a sentence: behind an abbreviation that may also end one, they tell that it did."""


def sentence_ends(text: str, start: int, end: int) -> Iterator[int]:
    """Yield the offset behind each sentence of ``text[start:end]``, closing quotes included, white space not.

    The rest behind the last mark counts as a sentence where it holds a letter or a digit. Stretches without
    either (a rule, a lone mark) belong to the sentence that follows.
    """
    sentence_start, position = start, start
    word = _WORD.search(text, start, end)
    while position < end:
        event = _EVENT.search(text, position, end)
        if event is None:
            break
        position = event.end()
        if event["open"]:
            close = _closing(text, event.start(), end)
            if close is None:
                continue
            position = close + 1
            boundary = _quoted_end(text, sentence_start, event.start(), close, end)
        elif event["marks"]:
            mark_end = event.start() + len(event["marks"].rstrip("\"'”’」』）)]*_»"))
            ends = _ends_sentence(text, sentence_start, mark_end, event.end(), end)
            boundary = event.end() if ends else None
        else:
            boundary = event.start()
        if boundary is not None and word is not None and word.start() < boundary:
            yield _without_space(text, sentence_start, boundary)
            sentence_start = boundary
            word = _WORD.search(text, boundary, end)
    if word is not None:
        yield _without_space(text, sentence_start, end)


def _closing(text: str, opener: int, end: int) -> int | None:
    """Return where a quotation or bracket closes; None where the mark opens nothing (an apostrophe)."""
    mark = text[opener]
    before, after = text[opener - 1 : opener], text[opener + 1 : opener + 2]
    if not after or after.isspace() or (mark in "\"'‘`" and before.isalnum() and before.isascii()):
        return None
    limit = min(end, opener + (BRACKET_CHARS if mark in "'‘(（`《" else QUOTE_CHARS))
    blank_line = _BLANK_LINE.search(text, opener, limit)
    limit = blank_line.start() if blank_line else limit
    close = opener
    while (close := text.find(_CLOSING[mark], close + 1, limit)) >= 0:
        if mark not in "\"'‘":
            return close
        behind = text[close + 1 : close + 2]
        if text[close - 1].isspace() or (mark != '"' and behind.isalnum()):
            continue
        if mark == '"':
            return close
        loose = text[close - 1] not in ".?!," and _MANY_SENTENCES.search(text, opener, close) is not None
        return None if loose else close
    return None


def _quoted_end(text: str, sentence_start: int, opener: int, close: int, end: int) -> int | None:
    """Return the end of a sentence that ends with a quotation; brackets and code end none."""
    if text[opener] in "(（`《" or not _SENTENCE_MARK.match(text, close - 1):
        return None
    behind = close + 1
    if text[close - 1] in "？！" and text[behind : behind + 1].strip():
        announced = text[:opener].endswith(("：", ":"))  # 「“…？”的问题」 goes on, 「问：“…？”」 does not
        return behind if announced else None
    return behind if _ends_sentence(text, sentence_start, close, behind, end) else None


def _ends_sentence(text: str, sentence_start: int, mark_end: int, behind: int, end: int) -> bool:
    """Say whether marks that end at ``mark_end``, with closing quotes up to ``behind``, end the sentence."""
    mark = text[mark_end - 1]
    if (
        mark == "…"
        or text[max(mark_end - 2, sentence_start) : mark_end] == ".."
        or _spaced_ellipsis(text, mark_end)
    ):
        return False
    rest = text[behind : min(behind + 200, end)]
    following = rest.lstrip()
    if not following or mark in WIDE_MARKS:
        return True
    if _BLANK_LINE.match(rest.lstrip(" \t")):
        return True
    is_glued = not rest[0].isspace()
    next_word = _first_word(following)
    if mark == "." and behind == mark_end:
        if is_glued:
            return next_word[:1].isupper() and len(next_word) > 1 and next_word.lower() in OPENERS
        if following[0] == "." or _is_abbreviation(text, sentence_start, mark_end - 1, following):
            return False
    elif is_glued and not following[0].isupper():
        return False
    if next_word[:1].islower() and following[0] not in "-*•":
        return _is_lower_style(text, sentence_start, mark_end)
    return following[0] not in ",;:)"


def _is_abbreviation(text: str, sentence_start: int, dot: int, following: str) -> bool:
    """Say whether the full stop at ``dot`` belongs to an abbreviation, an initial or a list number."""
    before = text[max(dot - 30, sentence_start) : dot]
    if _LIST_NUMBER.search(before) or not before.strip():
        return True
    match = _LAST_WORD.search(before)
    word = match[0].lower() if match else ""
    if word in TITLES or (word in BEFORE_NUMBERS and following[0].isdigit()):
        return True
    next_word = _first_word(following)
    initials = bool(re.fullmatch(r"(?:[^\W\d_]\.)*[^\W\d_]", word)) and word != "i"
    return (initials or word in ABBREVIATIONS) and next_word.lower() not in OPENERS


def _first_word(following: str) -> str:
    word = _NEXT_WORD.match(following.lstrip("\"'“‘*_(["))
    return word[0] if word else ""


def _spaced_ellipsis(text: str, mark_end: int) -> bool:
    return text[max(mark_end - 3, 0) : mark_end] == ". ."


def _is_lower_style(text: str, sentence_start: int, mark_end: int) -> bool:
    """Say whether the text writes sentences in lower case, so that a small letter may open the next one."""
    first = _LETTER.search(text, sentence_start, mark_end)
    spaced = text[mark_end - 2 : mark_end - 1].isspace()
    return spaced or (first is not None and first[0].islower())


def _without_space(text: str, start: int, end: int) -> int:
    return start + len(text[start:end].rstrip())
