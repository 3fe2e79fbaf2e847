"""Rows: every published format is read, every fault is told in one line."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from safekey_peft.data.readers import read_rows
from safekey_peft.data.row_fields import SHOWN_CHARS, shorten
from safekey_peft.data.rows import RowError, SafetyRow, parse_row

RESPONSE = "<think>\nThey want a brew. It is forbidden. I refuse.\n</think>\n\nSorry."
CANONICAL = {"id": "b3", "query": "Brew it", "response": RESPONSE, "is_harmful": True}
TURNS = [{"role": "user", "content": "Brew it"}, {"role": "assistant", "content": RESPONSE}]


def canonical(**changes: Any) -> dict[str, Any]:
    """Return a good canonical row with some fields changed; the value ``...`` removes one."""
    return {key: value for key, value in (CANONICAL | changes).items() if value is not ...}


def marked(understanding_end: object, key_sentence_end: object, **changes: Any) -> dict[str, Any]:
    """Return a canonical row with these offsets."""
    return canonical(understanding_end=understanding_end, key_sentence_end=key_sentence_end, **changes)


def conversation(*turns: object, **changes: Any) -> dict[str, Any]:
    """Return a row with messages."""
    return {"id": "b3", "messages": list(turns)} | changes


DERTA = {"id": "b3", "prefix": "[INST] Brew it [\\INST]", "text": " Sorry.<|end_of_text|>", "safe": "false"}
STAR1 = {
    "id": "b3",
    "question": "Brew it",
    "response": RESPONSE,
    "category": ["x"],
    "source": "s",
    "score": {},
}
SAFEKEY = {
    "id": "b3",
    "question": "Brew it",
    "response": RESPONSE,
    "summary_end_idx": 25,
    "next_sentence_end_idx": 42,
    "source": "x",
}
BEYOND = RESPONSE.index("\n</think>") + 1

BROKEN = [
    (17, "not_an_object"),
    ([1], "not_an_object"),
    (None, "not_an_object"),
    ({}, "unknown_format"),
    ({"id": "b3", "text": "x"}, "unknown_format"),
    ({"id": "b3", "question": "x", "response": "y"}, "unknown_format"),
    ({"id": "b3", "query": "x"}, "unknown_format"),
    (STAR1 | {"query": "x"}, "ambiguous_format"),
    (DERTA | STAR1, "ambiguous_format"),
    (STAR1 | {"is_harmful": False}, "ambiguous_format"),
    (canonical(response=None), "no_response"),
    (canonical(query=5), "wrong_type"),
    (canonical(query=["Brew it"]), "wrong_type"),
    (canonical(response={"text": "x"}), "wrong_type"),
    (canonical(query=""), "blank_text"),
    (canonical(response=" \n"), "blank_text"),
    (canonical(harmful_response=""), "blank_text"),
    (canonical(is_harmful="true"), "wrong_type"),
    (canonical(is_harmful=1), "wrong_type"),
    (canonical(id=1.5), "wrong_type"),
    (canonical(id=True), "wrong_type"),
    (canonical(source=7), "wrong_type"),
    (canonical(harmful_prefix=["a"]), "wrong_type"),
    (canonical(response=..., harmful_response="Stir.", harmful_prefix="St"), "prefix_without_response"),
    (canonical(query="a\x00b"), "nul_character"),
    (canonical(response="a \ud83d b"), "lone_surrogate"),
    (canonical(id="\udc00"), "lone_surrogate"),
    (marked(25, None), "offsets_incomplete"),
    (marked(None, 42), "offsets_incomplete"),
    (marked(True, 42), "wrong_type"),
    (marked(25.0, 42), "wrong_type"),
    (marked("25", 42), "wrong_type"),
    (marked(42, 25), "offsets_reversed"),
    (marked(25, 25), "offsets_reversed"),
    (marked(0, 25), "offset_out_of_range"),
    (marked(-5, 25), "offset_out_of_range"),
    (marked(25, 10**300), "offset_out_of_range"),
    (marked(25, len(RESPONSE) + 1), "offset_out_of_range"),
    (marked(25, BEYOND), "offset_beyond_thought"),
    (marked(25, len(RESPONSE)), "offset_beyond_thought"),
    (marked(8, 25), "blank_understanding"),
    (marked(25, 26), "blank_key_sentence"),
    (marked(2, 5, response=..., harmful_response="Stir it."), "offsets_without_response"),
    (conversation(*TURNS, query="Brew it"), "messages_and_query"),
    (conversation(*TURNS, system="Be kind"), "messages_and_query"),
    (conversation(), "wrong_type"),
    ({"id": "b3", "messages": "Brew it"}, "wrong_type"),
    (conversation("Brew it"), "wrong_type"),
    (conversation(TURNS[0]), "last_turn_not_assistant"),
    (conversation(TURNS[1]), "no_user_turn"),
    (conversation({"role": "human", "content": "x"}, TURNS[1]), "unknown_role"),
    (conversation({"role": "user", "content": None}, TURNS[1]), "wrong_type"),
    (conversation({"role": "user", "content": [{"text": "x"}]}, TURNS[1]), "wrong_type"),
    (conversation({"role": "user", "content": ""}, TURNS[1]), "blank_text"),
    (DERTA | {"prefix": "Brew it"}, "derta_marks_missing"),
    (DERTA | {"prefix": "[INST]  [\\INST]"}, "blank_text"),
    (DERTA | {"text": " <|end_of_text|>"}, "blank_text"),
    (DERTA | {"text": None}, "wrong_type"),
    (DERTA | {"safe": "yes"}, "wrong_type"),
    (DERTA | {"safe": 1}, "wrong_type"),
    (DERTA | {"safe": "true", "prefix": "[INST] q [\\INST] Stir"}, "derta_prefix_before_harmful"),
    (STAR1 | {"response": "<think>\nThey want"}, "thought_unclosed"),
    (SAFEKEY | {"summary_end_idx": 42, "next_sentence_end_idx": 25}, "offsets_reversed"),
    ({"prompt": "p", "response": "r", "is_safe": "yes"}, "wrong_type"),
]


@pytest.mark.parametrize(
    ("value", "reason"), BROKEN, ids=[f"{n}-{reason}" for n, (_, reason) in enumerate(BROKEN)]
)
def test_broken_row_is_told_in_one_line_and_its_neighbours_survive(
    value: object, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    good = [json.dumps(CANONICAL | {"id": name}) for name in ("before", "after")]
    path.write_text("\n".join([good[0], json.dumps(value), good[1]]) + "\n", encoding="utf-8")
    before, error, after = list(read_rows(path))
    assert isinstance(before, SafetyRow) and before.id == "before"
    assert isinstance(after, SafetyRow) and after.id == "after"
    assert isinstance(error, RowError) and error.reason == reason
    message = str(error)
    place, problem = message.split(": ", 1)
    assert place.startswith(f"{path}:2")
    assert "\n" not in message and problem.count(". ") >= 1, "expected, found. remedy."
    assert message.endswith(".") and message.split(". ")[-1][0].isupper(), "the remedy is the last sentence"
    if isinstance(value, dict) and value.get("id") == "b3":
        assert "(id=b3)" in place


def test_messages_never_show_more_than_a_little_of_a_row() -> None:
    secret = "brew " * 1_000
    for value in (
        canonical(is_harmful=secret),
        DERTA | {"prefix": secret},
        {secret: 1},
        canonical(id={"a": secret}),
    ):
        with pytest.raises(RowError) as caught:
            parse_row(value, "train.jsonl:1")
        assert str(caught.value).count("brew") <= SHOWN_CHARS / 5 + 1
    assert len(shorten(secret)) <= SHOWN_CHARS + 4
    assert "\n" not in shorten("a\nb") and "\ud800" not in shorten("\ud800")


def test_row_error_survives_a_process_boundary() -> None:
    with pytest.raises(RowError) as caught:
        parse_row(3, "a.jsonl:9")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.reason) == (str(caught.value), caught.value.reason)


def test_canonical_row_keeps_its_text_and_its_unknown_keys() -> None:
    row = parse_row(marked(25, 42, note={"a": 1}, system="", source="s"), "a:1")
    assert row.response == row.trained_response == RESPONSE
    assert RESPONSE[25:42] == " It is forbidden." and (row.understanding_end, row.key_sentence_end) == (
        25,
        42,
    )
    assert (row.extra, row.system, row.source) == ({"note": {"a": 1}}, None, "s")
    assert pickle.loads(pickle.dumps(row)) == row


def test_offsets_may_end_with_the_thought_or_the_response() -> None:
    assert parse_row(marked(25, BEYOND - 1), "a:1").key_sentence_end == BEYOND - 1
    assert (
        parse_row(
            canonical(response="A b. C.", understanding_end=4, key_sentence_end=7), "a:1"
        ).key_sentence_end
        == 7
    )


def test_integer_ids_become_text() -> None:
    assert parse_row(canonical(id=17), "a:1").id == "17"


def test_messages_row_trains_its_last_turn() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}
    row = parse_row(conversation(TURNS[0], call, {"role": "tool", "content": "5"}, TURNS[1]), "a:1")
    assert row.query is None and row.response is None and row.trained_response == RESPONSE
    assert row.messages is not None and len(row.messages) == 4


def test_null_columns_of_other_formats_do_not_hide_the_format() -> None:
    empty = dict.fromkeys(
        ["query", "messages", "instruction", "output", "prefix", "text", "safe", "is_harmful"]
    )
    assert parse_row(empty | SAFEKEY, "a:1").understanding_end == 25


def test_star1_is_harmful_and_its_response_is_normalised() -> None:
    row = parse_row(STAR1 | {"response": "<think> They want a\\/b. </think> Sorry. "}, "a:1")
    assert row.response == "<think>\nThey want a/b.\n</think>\n\nSorry."
    assert (row.query, row.is_harmful, row.source) == ("Brew it", True, "s")
    assert set(row.extra) == {"category", "score"} and row.understanding_end is None


def test_safekey_is_harmless_exactly_when_it_was_rewritten() -> None:
    assert parse_row(SAFEKEY, "a:1").is_harmful is True
    row = parse_row(SAFEKEY | {"source": "4o_rewrite", "category": "kept"}, "a:1")
    assert row.is_harmful is False and row.extra == {"category": "kept"}
    assert (row.understanding_end, row.key_sentence_end) == (25, 42)
    assert (
        parse_row(SAFEKEY | {"summary_end_idx": None, "next_sentence_end_idx": None}, "a:1").key_sentence_end
        is None
    )


def test_safekey_offsets_count_in_the_normalised_response() -> None:
    loose = RESPONSE.replace("<think>\n", "<think>  ")
    assert parse_row(SAFEKEY | {"response": loose}, "a:1").response == RESPONSE


def test_errors_name_the_keys_of_the_format_that_was_written() -> None:
    with pytest.raises(RowError, match="next_sentence_end_idx 25 is before summary_end_idx 42"):
        parse_row(SAFEKEY | {"summary_end_idx": 42, "next_sentence_end_idx": 25}, "a:1")


@pytest.mark.parametrize(
    ("behind", "drawn"),
    [("", None), (" ", ""), (" Stir the", "Stir the"), (" Stir [\\INST] it ", "Stir [\\INST] it ")],
)
def test_derta_keeps_the_prefix_that_was_drawn(behind: str, drawn: str | None) -> None:
    row = parse_row(DERTA | {"prefix": f"[INST] Brew it [\\INST]{behind}"}, "a:1")
    assert (row.query, row.response, row.harmful_prefix) == ("Brew it", "Sorry.", drawn)
    assert (row.harmful_response, row.is_harmful) == (None, None)


def test_derta_safe_true_marks_a_harmful_text() -> None:
    row = parse_row(DERTA | {"safe": "true", "text": " Stir it.<|end_of_text|>"}, "a:1")
    assert (row.response, row.harmful_response, row.harmful_prefix) == (None, "Stir it.", None)


def test_triples_and_labelled_preferences_give_response_and_harmful_response() -> None:
    row = parse_row({"instruction": "q", "output": "Stir.", "safe_response": "Sorry."}, "a:1")
    assert (row.query, row.response, row.harmful_response, row.is_harmful) == ("q", "Sorry.", "Stir.", None)
    pair = {"prompt": "q", "response_0": "Stir.", "response_1": "Sorry.", "is_response_0_safe": False}
    row = parse_row(pair | {"is_response_1_safe": True}, "a:1")
    assert (row.response, row.harmful_response) == ("Sorry.", "Stir.")
    row = parse_row(pair | {"is_response_1_safe": False, "safer_response_id": 0}, "a:1")
    assert (row.response, row.harmful_response) == (None, "Sorry.")
    assert (
        parse_row({"prompt": "q", "response": "Stir.", "is_safe": False}, "a:1").harmful_response == "Stir."
    )
    assert parse_row({"prompt": "q", "response": "Sorry.", "is_safe": True}, "a:1").response == "Sorry."


def test_key_is_stable_and_tells_apart_different_content_under_one_id() -> None:
    rows = [canonical(), canonical(response="Other. Text."), canonical(id=...), canonical(is_harmful=False)]
    rows += [canonical(harmful_response="Stir."), canonical(harmful_prefix=""), conversation(*TURNS)]
    keys = [parse_row(row, "a:1").key() for row in rows]
    assert len(set(keys)) == len(keys) and keys[0].startswith("b3:")
    assert parse_row(canonical(), "elsewhere:5").key() == keys[0]
    assert parse_row(marked(25, 42), "a:1").key() == keys[0], "annotating must not change what is drawn"


def test_no_length_is_too_long() -> None:
    row = parse_row(marked(25, 42, response=RESPONSE + "é" * 10_000_000), "a:1")
    assert len(str(row.response)) > 10_000_000
