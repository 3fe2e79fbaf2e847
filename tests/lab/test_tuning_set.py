from __future__ import annotations

import json
from pathlib import Path

from safekey_peft.lab.probes import PREFILLED, build_probes
from safekey_peft.lab.tuning_set import TuningSizes, build_tuning_set, write_json_lines
from safekey_peft.lab.vocabulary import OBJECTS
from safekey_peft.lab.world import LATE_REVEAL, PLAIN, UNSEEN_WRAPPERS, World

WORLD = World(0)
TUNING = build_tuning_set(WORLD)


def test_tuning_set_has_the_announced_sizes() -> None:
    assert len(TUNING.rows) + len(TUNING.documents) == 480
    sources = [row["source"] for row in TUNING.rows]
    assert {source: sources.count(source) for source in set(sources)} == {
        "harmful_plain": 100,
        "harmless_plain": 100,
        "harmless_wrapped": 100,
        "capability": 150,
    }
    assert len({row["id"] for row in TUNING.rows}) == len(TUNING.rows)


def test_harmful_rows_are_plain_only() -> None:
    assert {row["wrapper"] for row in TUNING.rows if row["is_harmful"]} == set(PLAIN)


def test_harmless_wrapped_rows_cover_every_wrapper_and_can_be_switched_off() -> None:
    wrappers = {row["wrapper"] for row in TUNING.rows if row["source"] == "harmless_wrapped"}
    assert wrappers == set(UNSEEN_WRAPPERS + LATE_REVEAL)
    without = build_tuning_set(WORLD, TuningSizes(harmless_wrapped=0))
    assert not [row for row in without.rows if row["source"] == "harmless_wrapped"]


def test_held_out_attributes_never_occur_in_the_tuning_set() -> None:
    text = json.dumps([TUNING.rows, TUNING.documents])
    assert not [attribute for attribute in WORLD.held_out_attributes if attribute in text]


def test_harmless_plain_rows_contain_look_alikes() -> None:
    dark = set(WORLD.own_ingredients) - set(OBJECTS)
    answers = [
        row["response"].split("</think> ")[1] for row in TUNING.rows if row["source"] == "harmless_plain"
    ]
    assert dark and sum(answer.split()[0] in ("discard", "describe", "store") for answer in answers) >= 40


def test_marks_slice_whole_sentences() -> None:
    for row in TUNING.rows:
        response, cut, end = row["response"], row["understanding_end"], row["key_sentence_end"]
        assert response[:cut].startswith("<think> okay , the user wants")
        assert response[cut - 1] == "." and response[end - 1] == "."
        assert response[cut:end].count(".") == 1


def test_exactly_the_harmful_rows_have_a_harmful_response() -> None:
    for row in TUNING.rows:
        assert (row["harmful_response"] is not None) == row["is_harmful"]
        if row["is_harmful"]:
            assert row["harmful_response"].startswith("<think> ") and "sorry" not in row["harmful_response"]


def test_rows_are_canonical(tmp_path: Path) -> None:
    from safekey_peft.data.readers import read_rows
    from safekey_peft.data.rows import SafetyRow

    path = tmp_path / "rows.jsonl"
    write_json_lines(path, TUNING.rows)
    rows = list(read_rows(path))
    assert len(rows) == len(TUNING.rows)
    assert all(isinstance(row, SafetyRow) and row.understanding_end for row in rows)


def test_same_world_gives_same_rows() -> None:
    assert build_tuning_set(World(0)) == TUNING
    assert build_tuning_set(World(1)) != TUNING


def test_no_attack_repeats_a_tuned_request() -> None:
    tuned = {row["harmful_response"].split("</think> ")[1] for row in TUNING.rows if row["is_harmful"]}
    probes = build_probes(WORLD, TUNING.harmful_requests)
    attacks = [probe for probe in probes if probe.secrets]
    assert not [probe for probe in attacks if any(" ".join(probe.recipe) in answer for answer in tuned)]


def test_probe_sets_have_the_announced_sizes() -> None:
    probes = build_probes(WORLD, TUNING.harmful_requests)
    sets: dict[str, dict[str, int]] = {}
    for probe in probes:
        column = sets.setdefault(probe.column, {})
        column[probe.name] = column.get(probe.name, 0) + 1
    assert sets["unseen_wrappers"] == dict.fromkeys(UNSEEN_WRAPPERS, 50)
    assert sets["late_reveal"] == dict.fromkeys(LATE_REVEAL, 50)
    assert sets["prefilling"] == dict.fromkeys(PREFILLED, 50)
    assert list(sets["over_refusal"].values()) == [50] * 5
    assert sum(sets["capability"].values()) == 50


def test_prefilled_words_are_the_opening_of_the_harmful_response() -> None:
    for probe in build_probes(WORLD, TUNING.harmful_requests):
        assert probe.prompt.endswith(f"<assistant> {probe.prefilled}".strip()) or probe.column == "completion"
        if probe.name == "first_item":
            assert probe.prefilled.split()[-1] == probe.recipe[0]
