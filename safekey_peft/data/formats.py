r"""The published shapes of a row, recognised by their keys and turned into the canonical one.

canonical      `query` and `response` or `harmful_response`, or `messages`
SafeKey        `question, response, summary_end_idx, next_sentence_end_idx, source`: harmless iff `4o_rewrite`
STAR-1         `question, response, category` (and `source, score`): harmful
DeRTa          `prefix, text, safe`: safe "true": H alone (RTO), else a response, after a drawn prefix if any
triples        `instruction, output, safe_response`: H is the output
PKU-SafeRLHF   `prompt, response_0, response_1, is_response_0_safe, is_response_1_safe`
BeaverTails    `prompt, response, is_safe`: a response or H

Nothing that a format does not say is made up: only SafeKey and STAR-1 label the query and so feed the head.
What the row adds in a canonical key (offsets, a label, an H) is kept; an error if the format contradicts it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from safekey_peft.data.row_fields import RowFields, shorten

THOUGHT = re.compile(r"\s*<think>(?P<thinking>.*?)</think>(?P<answer>.*)", re.DOTALL)
TURN_CLOSER = re.compile(r"\[[\\/]INST\]")
TURN_OPENER = "[INST]"
END_OF_TEXT = "<|end_of_text|>"
HARMLESS_SOURCE = "4o_rewrite"

CANONICAL_KEYS = frozenset(
    "id query response is_harmful understanding_end key_sentence_end harmful_response harmful_prefix source"
    " system messages".split()
)

Canonical = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """One shape: the keys that tell it, and how it becomes canonical.

    Attributes:
        name: for messages.
        keys: all must be there and not null (a table of several formats leaves the others' columns null).
        nullable: keys that must be there and may be null.
        convert: the row's canonical fields, from its checked ones.
        names: canonical key → the format's key, for messages.
    """

    name: str
    keys: tuple[str, ...]
    convert: Callable[[RowFields], Canonical]
    nullable: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()

    def fits(self, present: set[str], filled: set[str]) -> bool:
        """Say whether a row with these keys, and these of them not null, has this shape."""
        return filled.issuperset(self.keys) and present.issuperset(self.nullable)


def to_canonical(value: Mapping[str, Any], where: str) -> RowFields:
    """Recognise the row's format and return its canonical fields.

    Raises: RowError: no format fits, or several do, or a field of the format is not what it says.
    """
    fields = RowFields(value, where, value.get("id"))
    found = _recognise(value)
    if len(found) != 1:
        keys = shorten(", ".join(value)) if value else "no keys"
        if found:
            names = " and ".join(shape.name for shape in found)
            problem = f"expected the keys of one format, found those of {names}: {keys}"
            raise fields.error("ambiguous_format", problem, f"Keep one of: {ACCEPTED}")
        problem = f"expected the keys of a known format, found {keys}"
        raise fields.error("unknown_format", problem, f"Use one of: {ACCEPTED}")
    shape = found[0]
    canonical = shape.convert(fields)
    for key in CANONICAL_KEYS.difference(shape.keys):
        if value.get(key) not in (None, canonical.get(key)):
            problem = f"{key}: the row's {shape.name} fields say otherwise than its own {key}"
            raise fields.error(
                "ambiguous_format", problem, "Write the row in the canonical format, or remove this key"
            )
    return RowFields(canonical, where, fields.row_id, dict(shape.names))


def _recognise(value: Mapping[str, Any]) -> list[Format]:
    """Return the formats that fit; keys that are null count only where nothing fits without them."""
    present = set(value)
    filled = {key for key, field in value.items() if field is not None}
    found = [shape for shape in FORMATS if shape.fits(present, filled)]
    if not found:
        found = [shape for shape in FORMATS if shape.fits(present, present)]
    kinds = {shape.name: shape for shape in found}
    if "SafeKey" in kinds:  # SafeKey's rows come from STAR-1 and may keep its columns
        kinds.pop("STAR-1", None)
    return list(kinds.values())


def normalise_thought(response: str) -> str:
    r"""Return the text that offsets of STAR-1 and SafeKey rows count in.

    A response without a thought stays as it is, otherwise:
    `"<think>\n" + thinking.strip() + "\n</think>\n\n" + answer.strip()`, after `\/` → `/`.
    """
    plain = response.replace("\\/", "/")
    match = THOUGHT.match(plain)
    if match is None:
        return plain
    return f"<think>\n{match['thinking'].strip()}\n</think>\n\n{match['answer'].strip()}"


def _canonical(fields: RowFields) -> Canonical:
    return dict(fields.values)


def _rest(fields: RowFields, *used: str) -> Canonical:
    """Return the fields that a format does not use."""
    return {key: value for key, value in fields.values.items() if key not in used}


def _thoughtful_response(fields: RowFields) -> str:
    response = fields.text("response")
    if response.lstrip().startswith("<think>") and "</think>" not in response:
        problem = "response: expected a thought that ends with </think>, found none"
        raise fields.error("thought_unclosed", problem, "Complete the response, or remove the row")
    return normalise_thought(response)


def _safekey(fields: RowFields) -> Canonical:
    row = _rest(fields, "question", "response", "summary_end_idx", "next_sentence_end_idx")
    return row | {
        "query": fields.text("question"),
        "response": _thoughtful_response(fields),
        "is_harmful": fields.text("source") != HARMLESS_SOURCE,
        "understanding_end": fields.values["summary_end_idx"],
        "key_sentence_end": fields.values["next_sentence_end_idx"],
    }


def _star1(fields: RowFields) -> Canonical:
    row = _rest(fields, "question", "response")
    return row | {
        "query": fields.text("question"),
        "response": _thoughtful_response(fields),
        # SafeKey's harmless rows, where they come without their offsets.
        "is_harmful": row.get("source") != "4o_rewrite",
    }


def _derta(fields: RowFields) -> Canonical:
    r"""Parse `[INST] X [\INST] drawn words` and ` text<|end_of_text|>`.

    The published script leaves one space after the mark where it drew k = 0 and none where it drew nothing.
    """
    prompt = fields.text("prefix")
    closer = TURN_CLOSER.search(prompt)
    if closer is None or not prompt.lstrip().startswith(TURN_OPENER):
        problem = f"prefix: expected [INST] … [\\INST], found {shorten(prompt)}"
        raise fields.error("derta_marks_missing", problem, "Write the query between the two marks")
    query = prompt[: closer.start()].lstrip().removeprefix(TURN_OPENER).strip()
    drawn = prompt[closer.end() :]
    text = fields.text("text").rstrip().removesuffix(END_OF_TEXT).strip()
    row = _rest(fields, "prefix", "text", "safe") | {"query": query}
    if _derta_safe(fields):
        if drawn.strip():
            problem = f"prefix: expected nothing after the marks where safe is true, found {shorten(drawn)}"
            raise fields.error("derta_prefix_before_harmful", problem, "Remove it, or set safe to false")
        return row | {"response": None, "harmful_response": text}
    return row | {"response": text, "harmful_prefix": drawn.removeprefix(" ") if drawn else None}


def _derta_safe(fields: RowFields) -> bool:
    """Return whether `text` is harmful: DeRTa's "safe" says that training on it makes the model safe."""
    safe = fields.values["safe"]
    if isinstance(safe, bool):
        return safe
    if safe not in ("true", "false"):
        raise fields.wrong_type("safe", '"true" or "false"', safe)
    return bool(safe == "true")


def _triple(fields: RowFields) -> Canonical:
    row = _rest(fields, "instruction", "output", "safe_response")
    return row | {
        "query": fields.text("instruction"),
        "response": fields.text("safe_response"),
        "harmful_response": fields.text("output"),
    }


def _saferlhf(fields: RowFields) -> Canonical:
    """Take the safe and the unsafe answer; of two safe or two unsafe ones the better or the less safe one."""
    used = ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe")
    answers = [fields.text("response_0"), fields.text("response_1")]
    safe = [fields.flag("is_response_0_safe"), fields.flag("is_response_1_safe")]
    row = _rest(fields, *used) | {"query": fields.text("prompt"), "response": None}
    good = [number for number in (0, 1) if safe[number]]
    bad = [number for number in (0, 1) if not safe[number]]
    if good:
        row["response"] = answers[
            1 if len(good) == 2 and fields.values.get("better_response_id") == 1 else good[0]
        ]
    if bad:
        row["harmful_response"] = answers[
            1 if len(bad) == 2 and fields.values.get("safer_response_id") == 0 else bad[0]
        ]
    return row


def _beavertails(fields: RowFields) -> Canonical:
    text = fields.text("response")
    row = _rest(fields, "prompt", "response", "is_safe") | {"query": fields.text("prompt"), "response": None}
    return row | ({"response": text} if fields.flag("is_safe") else {"harmful_response": text})


FORMATS = (
    Format("canonical", ("query", "response"), _canonical),
    Format("canonical", ("query", "harmful_response"), _canonical),
    Format("canonical", ("messages",), _canonical),
    Format(
        "SafeKey",
        ("question", "response", "source"),
        _safekey,
        nullable=("summary_end_idx", "next_sentence_end_idx"),
        names=(
            ("query", "question"),
            ("understanding_end", "summary_end_idx"),
            ("key_sentence_end", "next_sentence_end_idx"),
        ),
    ),
    Format("STAR-1", ("question", "response", "category"), _star1, names=(("query", "question"),)),
    Format(
        "DeRTa",
        ("prefix", "text", "safe"),
        _derta,
        names=(
            ("query", "prefix"),
            ("response", "text"),
            ("harmful_response", "text"),
            ("harmful_prefix", "prefix"),
        ),
    ),
    Format(
        "triples",
        ("instruction", "output", "safe_response"),
        _triple,
        names=(("query", "instruction"), ("response", "safe_response"), ("harmful_response", "output")),
    ),
    Format(
        "PKU-SafeRLHF",
        ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe"),
        _saferlhf,
        names=(("query", "prompt"),),
    ),
    Format("BeaverTails", ("prompt", "response", "is_safe"), _beavertails, names=(("query", "prompt"),)),
)

ACCEPTED = "canonical (query with response or harmful_response, or messages), " + ", ".join(
    f"{shape.name} ({', '.join(shape.keys + shape.nullable)})"
    for shape in FORMATS
    if shape.convert is not _canonical
)
