"""A plain rule for the end of the understanding U and of the key sentence K.

U is the first sentence of the thought and every sentence right behind it that only says what the user asks,
has, wants or said. K is the next sentence, whatever it is. A sentence restates when its subject is the user
(or the request) and it neither judges, plans nor recalls a policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from safekey_peft.data.rows import SafetyRow
from safekey_peft.data.sentences import sentence_ends

OPENING_CHARS = 20_000
"""U and K are looked for in this much of a response; a thought that has restated for longer is not marked."""

_OPENING_TAG = re.compile(r"\s*<think>")
_CLOSING_TAG = "</think>"

_FILLER = (
    r"(?:(?:okay|ok|alright|all right|hmm+|so|well|wait|and|but|also|now|then|additionally|plus|oh|yeah|right"
    r"|specifically|in particular|apparently|basically|essentially|to clarify|in other words|i see|actually)"
    r"(?:[,.…—-]+\s*|\s+))*"
)
_GUESS = (
    r"(?:(?:it|that|this)(?:\s+(?:just|also|really))?\s+(?:sounds|seems|looks|appears)"
    r"(?:\s+(?:like|as if|as though|that))?|maybe|perhaps|probably|presumably|possibly)[,\s]+"
)
_HEDGE = (
    r"(?:from what i (?:can tell|understand|gather)|i (?:think|guess|believe|see|understand)(?: that)?"
    r"|i can see(?: that)?|it's clear that|this means(?: that)?|which means)[,\s]+"
)
_PERSON = (
    r"(?:user|the (?:user|person|individual|poster|asker|questioner|friend|neighbou?r|boss|coworker|colleague"
    r"|partner|husband|wife|son|daughter|child|kid|boy|girl|man|woman|mother|father|teacher|student)(?:['’]s)?"
    r"|they|he|she|their|his|her|someone)(?:['’](?:re|ve|d|s|ll))?"
)
_REQUEST = (
    r"(?:(?:the|this|their|his|her|the user['’]s) (?:exact |specific |full |original |main )?"
    r"(?:question|query|request|prompt|message|post|statement|ask|instruction|concern|wording)|this|it)"
    r"(?:\s+(?:is|was|seems to be|appears to be)|['’]s)\s+"
    r"(?:about|for|from|regarding|asking|whether|how|what|why|that they|part of|related to|[:\"“'‘])"
    r"|the (?:goal|aim|idea|purpose|intent|intention) is to"
)
_OPENING = re.compile(rf"\s*{_FILLER}(?:{_GUESS}|{_HEDGE})?", re.IGNORECASE)
_GUESSES = re.compile(rf"\s*{_FILLER}{_GUESS}", re.IGNORECASE)
_RESTATES = re.compile(rf"\s*{_FILLER}(?:{_GUESS}|{_HEDGE})?(?:{_PERSON}\b|{_REQUEST})", re.IGNORECASE)
_QUOTATION = re.compile(r"\s*(?:[>*\s]*[\"“‘'「『].*[\"”’'」』][.*\s]*|>.*)", re.DOTALL)
_RESTATES_CHINESE = re.compile(
    r"\s*(?:嗯|好的|好|那么|所以|这样|也就是说|另外|而且|并且|同时)?[，,。…、\s]*"
    r"(?:看起来|看来|听起来|似乎|可能|也许|估计|应该是)?[，,\s]*"
    r"(?:这个|该|这位)?(?:用户|提问者|对方|他们|她们|他|她|问题是|请求是|题目)"
)

_JUDGEMENT = (
    r"concerning|problematic|troubling|alarming|disturbing|worrying|worrisome|suspicious|shady|sketchy|tricky"
    r"|derogatory|red flags?|big no|not (?:okay|ok|right|good)|sensitive (?:topic|issue|subject|area)"
    r"|serious (?:\w+ )?(?:issue|matter|problem|topic|concern|situation|crime|offen[cs]e|request|question)"
    r"|against the (?:law|rules|guidelines)|violat(?:es?|ing|ion of)|falls? (?:under|into)"
    r"|raises? (?:\w+ )*(?:concerns?|flags?)"
)
_JUDGING_ASIDE = (
    r"(?:[,;—–-]|\band)\s*(?:and\s+)?(?:which|that|this|it)(?:['’]s|\s+(?:is|are|was|would|could|can|may|might"
    r"|seems?|sounds?|feels?|raises?))\b[^.?!]*\b(?:illegal|crimes?|criminal|harm(?:ful)?|danger(?:ous|s)?|risky?"
    r"|wrong|bad|serious|offensive|hateful|false|misleading|misinformation|unsafe|unethical|immoral|inappropriate"
    r"|invasi(?:ve|on)|discriminat\w+|sensitive|issues?|problems?|concerns?|hurtful|fraud\w*|deceptive|tough)\b"
)
_PLAN = (
    r"\bi (?:need|should|must|have to|can['’]?t|cannot|can not|want to (?:make sure|be)|will|would|could"
    r"|might|am going to|remember|recall|know)\b"
    r"|\bi['’](?:ll|d|m (?:supposed|not|going|here|thinking))\b|\blet me\b"
    r"|\blet['’]s\b|\bwe (?:need|should|must|have to|can['’]?t|cannot)\b"
    r"|\bmy (?:goal|job|task|role|guidelines|policies|first)\b"
    r"|\bmy (?:response|answer) (?:is|should|must|needs?|will)\b|\bhelpful (?:and \w+ )?(?:response|answer)\b"
)
_POLICY = (
    r"\bpolicies\b|\bthe (?:[\w/&,-]+ ){0,4}policy\b|\bpolicy (?:section|says)\b"
    r"|\bsafety (?:policy|guidelines?|rules|standards)\b"
)
_CUES = re.compile(rf"\b(?:{_JUDGEMENT})\b|{_JUDGING_ASIDE}|{_PLAN}|{_POLICY}", re.IGNORECASE)
_LIST_ITEM = re.compile(r"\s*(?:[-*•]|\d{1,2}[.)])\s")
_UNLAWFUL = re.compile(
    r"\b(?:illegal|unlawful|criminal|malicious|fraud|harmful|dangerous|unsafe)\b", re.IGNORECASE
)
"""In a guess about the user these judge; in a plain restatement they may be the user's own words."""
_CUES_CHINESE = re.compile(
    r"我(?:需要|应该|必须|要|得|会|不能|可以|记得|想)|我们(?:需要|应该|必须)|让我|首先|政策|敏感|违法|违反|非法|不当|不合适|不道德"
    r"|令人担忧|有害|很危险|有风险|有问题|红线|拒绝"
)


@dataclass(frozen=True, slots=True)
class KeySentenceMarks:
    """Ends of U and K, in characters of the response; U starts at 0, K where U ends."""

    understanding_end: int
    key_sentence_end: int


def mark_key_sentence(response: str) -> KeySentenceMarks | None:
    """Mark U and K of a response.

    The thought is what stands before `</think>`, with or without the opening tag (a chat template may have
    written it); a response without tags is read from its beginning.

    Args:
        response: the safe response; the time taken does not grow with what follows the thought's opening.
    Returns: the marks; None where there are fewer than two sentences before `</think>`.
    """
    tag = _OPENING_TAG.match(response)
    start = tag.end() if tag else 0
    limit = _thought_limit(response, start)
    end = min(limit, start + OPENING_CHARS)
    understanding_end, before, announced = 0, 0, False
    for number, sentence_end in enumerate(sentence_ends(response, start, end)):
        if sentence_end == end < limit:
            return None
        sentence = response[before or start : sentence_end]
        announced = response[max(before - 1, 0) : before] in (":", "：") or (
            announced and _LIST_ITEM.match(sentence) is not None
        )
        if number and not announced and not _restates(sentence):
            return KeySentenceMarks(before, sentence_end)
        understanding_end, before = before, sentence_end
    if not understanding_end or end < limit:
        return None
    return KeySentenceMarks(understanding_end, before)


def annotate(rows: Iterable[SafetyRow]) -> Iterator[SafetyRow]:
    """Yield the rows; those without offsets get them from the rule, where it finds any."""
    for row in rows:
        response = row.trained_response
        marks = None
        if row.understanding_end is None and response is not None:
            marks = mark_key_sentence(response)
        if marks is not None:
            row = replace(
                row, understanding_end=marks.understanding_end, key_sentence_end=marks.key_sentence_end
            )
        yield row


def _thought_limit(response: str, start: int) -> int:
    """Return the end of the thought without its trailing white space."""
    tag = response.find(_CLOSING_TAG, start)
    return start + len(response[start : len(response) if tag < 0 else tag].rstrip())


def _restates(sentence: str) -> bool:
    """Say whether a sentence behind the first only restates: a user's fact or wish, or a quotation."""
    opening = _OPENING.match(sentence)
    said = sentence[opening.end() :] if opening else sentence
    if _CUES.search(said) or _CUES_CHINESE.search(said):
        return False
    if _GUESSES.match(sentence) and _UNLAWFUL.search(said):
        return False
    return bool(
        _RESTATES.match(sentence) or _RESTATES_CHINESE.match(sentence) or _QUOTATION.fullmatch(sentence)
    )
