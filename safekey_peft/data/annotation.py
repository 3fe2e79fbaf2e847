"""A plain rule for the end of the understanding U and of the key sentence K.

U is the first sentence of the thought and every sentence right behind it that only says what the user asks, has,
wants or said. K is the next sentence, whatever it is. A sentence restates when its subject is the user (or the
request, or "it sounds like they …") and it neither judges, plans nor recalls a policy.
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
_HEDGE = (
    r"(?:(?:(?:it|that|this)(?:\s+(?:just|also|really))?\s+(?:sounds|seems|looks|appears)(?:\s+(?:like|as if|as though|that))?"
    r"|from what i (?:can tell|understand|gather)|i (?:think|guess|believe|see|understand)(?: that)?|it's clear that"
    r"|maybe|perhaps|probably|presumably|possibly|i can see(?: that)?|this means(?: that)?|which means)[,\s]+)?"
)
_PERSON = (
    r"(?:the (?:user|person|individual|poster|asker|questioner)(?:['’]s)?|they|he|she|their|his|her|someone)(?:['’](?:re|ve|d|s|ll))?"
)
_REQUEST = (
    r"(?:(?:the|this|their|his|her|user['’]s|the user['’]s) (?:exact |specific |full |original |main )?"
    r"(?:question|query|request|prompt|message|post|statement|ask|instruction|concern|wording|goal)"
    r"|(?:this|it))(?:\s+(?:is|was|seems to be|appears to be|here is)|['’]s)\s+"
    r"(?:about|for|from|regarding|asking|whether|how|what|why|that they|part of|related to|[:\"“'‘])"
)
_RESTATES = re.compile(rf"\s*{_FILLER}{_HEDGE}(?:{_PERSON}\b|{_REQUEST})", re.IGNORECASE)
_QUOTATION = re.compile(r"\s*(?:[>*\s]*[\"“‘'「『].*[\"”’'」』][.*\s]*|>.*)", re.DOTALL)
_RESTATES_CHINESE = re.compile(
    r"\s*(?:嗯|好的|好|那么|所以|这样|也就是说|另外|而且|并且|同时)?[，,。…、\s]*(?:看起来|看来|听起来|似乎|可能|也许|估计|应该是)?[，,\s]*"
    r"(?:这个|该|这位)?(?:用户|提问者|对方|他们|她们|他|她|问题是|请求是|题目)"
)

_JUDGEMENT = (
    r"concerning|problematic|troubling|alarming|disturbing|worrying|worrisome|suspicious|shady|sketchy|tricky"
    r"|inappropriate|unethical|immoral|red flags?|big no|not okay|not ok|not right|not good|sensitive (?:topic|issue|subject|area)"
    r"|serious (?:\w+ )?(?:issue|matter|problem|topic|concern|situation|crime|offen[cs]e|request|question)|derogatory|dangerous because"
    r"|against the (?:law|rules|polic\w+|guidelines)|violat(?:es?|ing|ion of)|falls? (?:under|into)|raises? (?:\w+ )*(?:concerns?|flags?)"
)
_ASIDE_JUDGEMENT = (
    r"(?:which|that|this|and (?:that|this|it)(?:['’]s)?)\s*(?:is|['’]s|are|was|would be|could be|could|can|may|might|seems?|sounds?|feels?|raises?)\b"
    r"[^.?!]*\b(?:illegal|crimes?|criminal|harm(?:ful)?|danger(?:ous|s)?|risky?|wrong|bad|serious|offensive|hateful|false"
    r"|misleading|misinformation|unsafe|invasi(?:ve|on)|discriminat\w+|sensitive|issues?|problems?|concerns?|hurtful|fraud\w*|deceptive|tough)\b"
)
_PLAN = (
    r"\bi (?:need|should|must|have to|can['’]?t|cannot|can not|want to make sure|want to be|will|would|could|might|am going to|remember|recall|know)\b"
    r"|\bi['’](?:ll|d|m (?:supposed|not|going|here|thinking))\b|\bmy (?:response|answer|goal|job|task|role|guidelines|policies|first)\b|\blet me\b|\blet['’]s\b"
    r"|\bwe (?:need|should|must|have to|can['’]?t|cannot)\b|\bpolic(?:y|ies)\b|\bsafety (?:guidelines?|rules|standards)\b"
)
_CUES = re.compile(rf"\b(?:{_JUDGEMENT})\b|\b{_ASIDE_JUDGEMENT}|{_PLAN}", re.IGNORECASE)
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

    The thought is what stands before `</think>`, with or without the opening tag (a chat template may have written
    it); a response without tags is read from its beginning.

    Args:
        response: the safe response; the time taken does not grow with what follows the thought's opening.
    Returns: the marks; None where there are fewer than two sentences before `</think>`.
    """
    tag = _OPENING_TAG.match(response)
    start = tag.end() if tag else 0
    limit = _thought_limit(response, start)
    end = min(limit, start + OPENING_CHARS)
    understanding_end, before = 0, 0
    for number, sentence_end in enumerate(sentence_ends(response, start, end)):
        if sentence_end == end < limit:
            break
        sentence = response[before or start : sentence_end]
        announced = response[:before].rstrip().endswith((":", "：")) if before else False
        if number and not announced and not _restates(sentence):
            return KeySentenceMarks(before, sentence_end)
        understanding_end, before = before, sentence_end
    return KeySentenceMarks(understanding_end, before) if understanding_end else None


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
    limit = len(response) if tag < 0 else tag
    while limit > start and response[limit - 1].isspace():
        limit -= 1
    return limit


def _restates(sentence: str) -> bool:
    """Say whether a sentence behind the first only restates: a user's fact or wish, or a quotation."""
    if _CUES.search(sentence) or _CUES_CHINESE.search(sentence):
        return False
    return bool(_RESTATES.match(sentence) or _RESTATES_CHINESE.match(sentence) or _QUOTATION.fullmatch(sentence))
