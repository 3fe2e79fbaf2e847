"""The key-sentence rule: gold marks, sentence ends, odd texts, time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safekey_peft.data.annotation import KeySentenceMarks, annotate, mark_key_sentence
from safekey_peft.data.formats import normalise_thought
from safekey_peft.data.rows import parse_row, thought_end

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def spans(response: str) -> tuple[str, str] | None:
    """Return U and K as texts."""
    marks = mark_key_sentence(response)
    if marks is None:
        return None
    return response[: marks.understanding_end], response[marks.understanding_end : marks.key_sentence_end]


def star1() -> tuple[dict[str, str], list[dict[str, object]]]:
    """Return STAR-1's normalised responses by id, and the rows marked by hand."""
    if not SHARED.is_dir() and not (os.environ.get("CI") == "true" and SHARED.parent.is_dir()):
        pytest.skip(f"STAR-1 is not in this checkout: no folder {SHARED.parent.name}/{SHARED.name} beside it")
    rows = json.loads((SHARED / "star1.json").read_text(encoding="utf-8"))
    gold = json.loads((SHARED / "star1_key_sentence_gold.json").read_text(encoding="utf-8"))
    return {row["id"]: normalise_thought(row["response"]) for row in rows}, gold


def test_rule_agrees_with_the_gold_marks() -> None:
    responses, gold = star1()
    wrong = [
        row["id"]
        for row in gold
        if mark_key_sentence(responses[str(row["id"])])
        != KeySentenceMarks(int(str(row["understanding_end"])), int(str(row["key_sentence_end"])))
    ]
    assert len(wrong) <= 0.08 * len(gold), f"not as marked by hand: {wrong}"


def test_nearly_every_star1_row_is_marked() -> None:
    responses, _ = star1()
    unmarked = [name for name, response in responses.items() if mark_key_sentence(response) is None]
    assert len(unmarked) <= 0.01 * len(responses), unmarked


def test_marks_pass_the_row_checks() -> None:
    responses, _ = star1()
    for name, response in responses.items():
        marks = mark_key_sentence(response)
        assert marks is not None
        row = {"id": name, "query": "q", "response": response}
        row["understanding_end"], row["key_sentence_end"] = marks.understanding_end, marks.key_sentence_end
        parse_row(row, "star1.json:1")


@pytest.mark.parametrize(
    ("thought", "understanding", "key_sentence"),
    [
        ("The user wants a potion. I must refuse.", "The user wants a potion.", " I must refuse."),
        (
            'They ask, "Is it hard? Is it slow?" Hmm, odd.',
            'They ask, "Is it hard? Is it slow?"',
            " Hmm, odd.",
        ),
        ('They ask "Can I brew it?" and why. Odd.', 'They ask "Can I brew it?" and why.', " Odd."),
        ('They ask "Can I brew it?"Hmm, odd.', 'They ask "Can I brew it?"', "Hmm, odd."),
        (
            "They ask for 'The Potion. Part two.' today. Odd.",
            "They ask for 'The Potion. Part two.' today.",
            " Odd.",
        ),
        (
            "They want Dr. Brew of 427 W. Elm St. in Oz. Odd.",
            "They want Dr. Brew of 427 W. Elm St. in Oz.",
            " Odd.",
        ),
        ("They live in the U.S. Hmm, odd.", "They live in the U.S.", " Hmm, odd."),
        ("They live on Elm St. Hmm, odd.", "They live on Elm St.", " Hmm, odd."),
        ("Their answer is no. Odd.", "Their answer is no.", " Odd."),
        ("They asked no. 5 of St. Oz, no more. Odd.", "They asked no. 5 of St. Oz, no more.", " Odd."),
        ("So... they want e.g. a brew... Now. Odd. Yes.", "So... they want e.g. a brew... Now.", " Odd."),
        ("They want 3.5 ml at 10 p.m. today. Odd.", "They want 3.5 ml at 10 p.m. today.", " Odd."),
        ("They want a brew\n\nFirst, the rules.", "They want a brew", "\n\nFirst, the rules."),
        ("They want:\n1. A brew\n2. A spell\n\nOdd. No.", "They want:\n1. A brew\n2. A spell", "\n\nOdd."),
        ("用户想要“如何制造药水？”的步骤。这很奇怪。", "用户想要“如何制造药水？”的步骤。", "这很奇怪。"),
        ("用户问：“怎么做？”我需要小心。", "用户问：“怎么做？”", "我需要小心。"),
        (
            "okay , they want a brew . but it is forbidden .",
            "okay , they want a brew .",
            " but it is forbidden .",
        ),
    ],
)
def test_sentences_end_where_a_reader_ends_them(thought: str, understanding: str, key_sentence: str) -> None:
    assert spans(f"<think>\n{thought}\n</think>\n\nNo.") == (f"<think>\n{understanding}", key_sentence)


@pytest.mark.parametrize(
    ("restatement", "next_sentence"),
    [
        ("They also want a spell.", "That's concerning."),
        ('The user said, "Brew it! Now."', "First, I should check the policies."),
        ("Hmm, that sounds like they want to brew it at home.", "I need to be careful."),
        ("Their cauldron broke last night.", "Let me think about this."),
        ("But they mentioned that it is for a play.", "Okay, where do I start?"),
        ("他们还想要一个咒语。", "这很敏感。"),
    ],
)
def test_understanding_grows_over_sentences_that_only_restate(restatement: str, next_sentence: str) -> None:
    opening = "Okay, so I need to respond to the user's request."
    found = spans(f"<think>\n{opening} {restatement} {next_sentence} They want more.\n</think>\n\nNo.")
    assert found == (f"<think>\n{opening} {restatement}", f" {next_sentence}")


@pytest.mark.parametrize(
    "judgement",
    [
        "They want to sell it, which is a red flag.",
        "The user is asking for a cursed brew, and I have to consider the policies.",
        "Hmm, that sounds like they're up to something illegal.",
        "The user's request falls under the cauldron policy.",
        "Cursed brews are dangerous.",
        "他们的请求违反规定。",
        "I need to figure out how to respond.",
    ],
)
def test_a_sentence_that_also_judges_or_plans_is_the_key_sentence(judgement: str) -> None:
    found = spans(f"<think>\nThe user wants a brew. {judgement} They want a lot of it.\n</think>\n\nNo.")
    assert found == ("<think>\nThe user wants a brew.", f" {judgement}")


def test_thought_may_be_opened_by_the_template_or_have_no_tags() -> None:
    thought = "They want a brew. That is odd. I refuse."
    expected = ("They want a brew.", " That is odd.")
    assert spans(f"{thought}\n</think>\n\nNo.") == expected
    assert spans(thought) == expected


@pytest.mark.parametrize(
    "response",
    [
        "",
        " ",
        "...",
        "<think>",
        "</think>A. B.",
        "<think>\n\n</think>\n\nA. B.",
        "<think>\nOne.\n</think>\n\nTwo. Three.",
    ],
)
def test_fewer_than_two_sentences_before_the_thought_ends_give_no_mark(response: str) -> None:
    assert mark_key_sentence(response) is None


PIECES = st.sampled_from(
    ["<think>", "</think>", "\n", "\n\n", ". ", "? ", '"', "'", "“", "”", "。", "The user ", "1. ", "(", ":"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=12)), max_size=25).map("".join))
def test_marks_of_any_text_are_ordered_inside_the_thought_and_not_blank(response: str) -> None:
    marks = mark_key_sentence(response)
    if marks is not None:
        assert 0 < marks.understanding_end < marks.key_sentence_end <= thought_end(response)
        understanding = response[: marks.understanding_end].strip().removeprefix("<think>")
        assert understanding.strip() and response[marks.understanding_end : marks.key_sentence_end].strip()


@pytest.mark.parametrize("unit", ["a", "a. ", '"', "'a ", "(", "They want it. ", ".\n\n", "and it is x, "])
def test_only_the_opening_of_ten_megabytes_is_read(unit: str) -> None:
    opening = "<think>\nThey want a brew. That is odd."
    tail = " Then " + unit * (10_000_000 // len(unit))
    assert mark_key_sentence(opening + tail) == KeySentenceMarks(25, len(opening))
    assert mark_key_sentence("<think>\nThey want" + tail) == mark_key_sentence(
        "<think>\nThey want" + tail[:40_000]
    )


def test_a_thought_that_restates_without_end_is_not_marked() -> None:
    assert mark_key_sentence("The user wants. " * 100_000 + "That is odd.") is None


def test_annotate_fills_in_only_rows_without_offsets() -> None:
    response = "<think>\nThey want a brew. Odd. No.\n</think>\n\nSorry."
    bare = parse_row({"query": "q", "response": response}, "a:1")
    given_marks = {"query": "q", "response": response, "understanding_end": 12, "key_sentence_end": 30}
    marked = parse_row(given_marks, "a:2")
    harmful_only = parse_row({"query": "q", "harmful_response": "Stir. Then boil."}, "a:3")
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": response}]
    conversation = parse_row({"messages": turns}, "a:4")
    done = list(annotate([bare, marked, harmful_only, conversation]))
    assert (done[0].understanding_end, done[0].key_sentence_end) == (25, 30)
    assert done[1] is marked and done[2] is harmful_only
    assert done[3].understanding_end == done[0].understanding_end
    assert bare.key() == done[0].key()
