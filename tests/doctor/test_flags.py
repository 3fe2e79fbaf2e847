"""Flags, plugin and dataset type: each fault by itself, with its key."""

from __future__ import annotations

from typing import Any

import pytest

from safekey_peft.config import PRESETS, yaml_text
from safekey_peft.doctor.findings import Findings
from safekey_peft.doctor.flags import DATASET_TYPE, PLUGIN_NAME, check_flags, check_plugin_and_types, with_plugin

GOOD: dict[str, Any] = {
    "plugins": [PLUGIN_NAME],
    "datasets": [{"path": "rows.jsonl", "type": DATASET_TYPE}],
    "safekey_rto": True,
    "adapter": "qlora",
}


def checked(**changes: Any) -> Findings:
    raw = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    findings = Findings()
    config, faulty = check_flags(raw, findings)
    assert faulty == {item.key for item in findings.items if item.check == "flags" and item.level == "fault"}
    check_plugin_and_types(raw, config, findings, faulty=faulty)
    return findings


def keys(findings: Findings, level: str) -> list[str | None]:
    return [item.key for item in findings.items if item.level == level]


def flag_texts(findings: Findings, level: str) -> list[str]:
    return [item.message for item in findings.items if item.check == "flags" and item.level == level]


def test_good_flags_have_no_fault() -> None:
    assert checked().verdict == "ok"


def test_each_faulty_flag_is_a_finding_of_its_own_and_the_sound_ones_stay() -> None:
    findings = checked(safekey_rto_keep=7, safekey_rtoo=True, safekey_dual_path_theta="x")
    assert sorted(map(str, keys(findings, "fault"))) == ["safekey_dual_path_theta", "safekey_rto_keep", "safekey_rtoo"]
    assert findings.facts["losses"] == ["rto"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"plugins": None}, "plugins"),
        ({"plugins": "axolotl_plugins.safekey.SafeKeyPlugin"}, "plugins"),
        ({"plugins": ["axolotl_plugins.safekey.SafekeyPlugin"]}, "plugins[0]"),
        ({"datasets": [{"path": "x", "type": "chat_template"}]}, "datasets"),
        ({"datasets": None}, "datasets"),
        ({"datasets": None, "test_datasets": GOOD["datasets"]}, "datasets"),
        ({"datasets": [*GOOD["datasets"], {"path": "x", "type": "safekey.dataset"}]}, "datasets[1].type"),
    ],
)
def test_what_would_train_plain_sft_is_a_fault(changes: dict[str, Any], key: str) -> None:
    assert keys(checked(**changes), "fault") == [key]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"safekey_rto_weight": 0}, "safekey_rto_weight"),
        ({"safekey_dual_path_theta": 0.3}, "safekey_dual_path_theta"),
        ({"safekey_head_learning_rate": 0.001}, "safekey_head_learning_rate"),
        ({"safekey_rto": False}, "datasets[0]"),
        ({"safekey_rto": False, "safekey_query_mask": True, "safekey_refusal_text": "No"}, "safekey_refusal_text"),
    ],
)
def test_what_does_nothing_is_a_warning(changes: dict[str, Any], key: str) -> None:
    findings = checked(**changes)
    assert keys(findings, "fault") == []
    assert keys(findings, "warning") == [key]


@pytest.mark.parametrize("change", [{"safekey_rto": None, "safekey_rtoo": True}, {"safekey_rto": "yes"}])
def test_switch_at_fault_is_no_second_finding_on_losses_that_are_off(change: dict[str, Any]) -> None:
    findings = checked(**change)
    assert (findings.count("fault"), findings.count("warning")) == (1, 0)
    (skipped,) = [item for item in findings.items if item.level == "skipped"]
    assert skipped.check == "losses" and "not known what is switched on" in skipped.message
    assert "Value error" not in findings.items[0].message


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, [PLUGIN_NAME]),
        ("text", [PLUGIN_NAME]),
        (["other.Plugin"], ["other.Plugin", PLUGIN_NAME]),
        ([PLUGIN_NAME.replace("KeyPlugin", "keyPlugin"), "other.Plugin"], [PLUGIN_NAME, "other.Plugin"]),
        ([PLUGIN_NAME], [PLUGIN_NAME]),
    ],
)
def test_other_checks_go_on_as_if_the_plugin_were_listed(listed: Any, expected: list[str]) -> None:
    assert with_plugin({"plugins": listed})["plugins"] == expected


def test_what_a_preset_fills_and_what_goes_before_it_is_told() -> None:
    findings = checked(safekey_rto=None, safekey_preset="derta", safekey_rto_weight=0.5, safekey_rto_keep=1.0)
    assert findings.verdict == "ok" and findings.facts["losses"] == ["harmful_prefix", "rto"]
    (text,) = flag_texts(findings, "info")
    filled, _, own = text.partition("; set beside it: ")
    set_here = ("rto_weight", "rto_keep")
    rest = [f"{name} {yaml_text(value)}" for name, value in PRESETS["derta"].items() if name not in set_here]
    assert filled == f"safekey_preset: derta sets {', '.join(rest)}" and "rto true" in rest
    assert own == "safekey_rto_weight: 0.5 (preset: 1.0)"


def test_flags_that_a_preset_fills_stand_at_its_line() -> None:
    findings = Findings(lines={"safekey_preset": 4, "safekey_rto": 9})
    check_flags({"safekey_preset": "all", "safekey_rto": True}, findings)
    for key in ("safekey_query_mask", "safekey_rto", "safekey_isolation"):
        findings.fault("x", key, key=key)
    assert [item.line for item in findings.items if item.check == "x"] == [4, 9, None]


@pytest.mark.parametrize(
    ("others", "warned"),
    [
        ({}, {"safekey_preset", "datasets[0]"}),
        ({"safekey_rto": True}, {"safekey_preset"}),
        ({"safekey_query_mask": True}, set()),
    ],
)
def test_preset_whose_losses_are_all_switched_off_is_a_warning(others: dict[str, Any], warned: set[str]) -> None:
    off = {"safekey_rto": None, "safekey_dual_path": False, "safekey_query_mask": False}
    findings = checked(safekey_preset="safekey", **{**off, **others})
    assert set(keys(findings, "warning")) == warned and not keys(findings, "fault")


def test_values_that_a_preset_fills_are_no_idle_options() -> None:
    findings = checked(safekey_rto=False, safekey_preset="all")
    assert findings.verdict == "ok", findings.items
    (text,) = flag_texts(findings, "info")
    assert "rto_from" not in text and "refusal_text" not in text and "harmful_prefix_from divergence" in text
    findings = checked(safekey_rto=False, safekey_preset="all", safekey_rto_keep=0.5)
    assert keys(findings, "warning") == ["safekey_rto_keep"]


def test_unknown_preset_is_one_fault_and_what_is_on_is_not_known() -> None:
    findings = checked(safekey_rto=None, safekey_preset="al")
    (fault,) = [item for item in findings.items if item.level == "fault"]
    assert fault.key == "safekey_preset" and "did you mean 'all'" in fault.message
    assert [item.check for item in findings.items if item.level == "skipped"] == ["losses"]


@pytest.mark.parametrize("on", [{"safekey_rto": True}, {"safekey_rto": None, "safekey_preset": "all"}], ids=str)
@pytest.mark.parametrize(
    ("own", "warned"), [({}, True), ({"safekey_rto_keep": 1.0}, False), ({"adapter": "lora"}, False)], ids=str
)
def test_full_tuning_with_every_rto_position_is_a_warning_unless_meant(
    on: dict[str, Any], own: dict[str, Any], warned: bool
) -> None:
    findings = checked(**{"adapter": None, **on, **own})
    found = [item for item in findings.items if item.level == "warning"]
    assert [item.key for item in found] == ["safekey_rto"] * warned
    assert not warned or found[0].remedy.startswith("Set safekey_rto_keep: 0.05")  # type: ignore[union-attr]


def test_full_tuning_without_rto_needs_no_keep() -> None:
    assert checked(adapter=None, safekey_rto=None, safekey_preset="safekey").verdict == "ok"
