"""A starter configuration passes the doctor and trains."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from safekey_peft.cli import main as safekey
from safekey_peft.config import PRESETS, SWITCHES, config_from_flags
from safekey_peft.doctor.examination import examine
from tests.axolotl.runs import potion_rows, run_axolotl, write_rows


def init(*arguments: str) -> Result:
    return CliRunner().invoke(safekey, ["init", *arguments])


def written(base: Path, folder: Path, *arguments: str, gpu: str = "cpu") -> dict[str, Any]:
    path = folder / "starter.yaml"
    result = init(str(base), "--gpu", gpu, "--output", str(path), *arguments)
    assert result.exit_code == 0, result.output
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("gpu", ["cpu", "24GB", "T4"])
def test_starter_passes_the_doctor(base: Path, data: Path, tmp_path: Path, monkeypatch: Any, gpu: str) -> None:
    monkeypatch.chdir(tmp_path)
    written(base, tmp_path, "--data", str(data), gpu=gpu)
    findings = examine(tmp_path / "starter.yaml")
    assert findings.verdict != "faults", [item for item in findings.items if item.level == "fault"]
    assert not [item for item in findings.items if item.level == "warning" and item.check != "schedule"]


def test_starter_trains(base: Path, data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = written(base, tmp_path, "--data", str(data))
    cfg |= {"max_steps": 2, "output_dir": str(tmp_path / "out"), "dataset_prepared_path": str(tmp_path / "prepared")}
    run = run_axolotl("train", cfg)
    assert run.exit_code == 0, run.output[-2000:]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter_model.safetensors", "safekey_head.safetensors", "safekey_manifest.json"} <= names


def switches(content: dict[str, Any]) -> set[str]:
    return set(config_from_flags(content).active)


def test_losses_are_those_that_the_rows_feed(base: Path, tmp_path: Path) -> None:
    rows = potion_rows(24)
    bare = [{key: row[key] for key in ("id", "query", "response", "is_harmful")} for row in rows]
    marked = [{key: value for key, value in row.items() if key != "harmful_response"} for row in rows]
    harmful = [row for row in marked if row["is_harmful"]]
    for number, (chosen, expected, rule) in enumerate(
        [
            (rows, {"dual_path", "query_mask", "harmful_prefix", "rto"}, None),
            (marked, {"dual_path", "query_mask"}, None),
            (bare, {"dual_path", "query_mask"}, "rule"),
            (harmful, {"query_mask"}, None),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        content = written(base, folder, "--data", str(write_rows(folder / "rows.jsonl", chosen)))
        assert switches(content) == expected
        assert content.get("safekey_annotation") == rule


@pytest.mark.parametrize(
    ("losses", "preset", "off"),
    [
        ("all", "all", set()),
        ("safekey", "safekey", set()),
        ("derta", "derta", set()),
        ("rto", "derta", {"safekey_harmful_prefix"}),
        ("rto,query_mask", "all", {"safekey_harmful_prefix", "safekey_dual_path"}),
        ("sft", None, {f"safekey_{name}" for name in SWITCHES}),
    ],
)
def test_smallest_preset_is_written_and_what_it_fills_can_be_uncommented(
    base: Path, tmp_path: Path, losses: str, preset: str | None, off: set[str]
) -> None:
    content = written(base, tmp_path, "--losses", losses)
    flags = {key: value for key, value in content.items() if key.startswith("safekey_")}
    assert flags == ({"safekey_preset": preset} if preset else {}) | dict.fromkeys(off, False)
    text = (tmp_path / "starter.yaml").read_text()
    filled = yaml.safe_load("\n".join(re.findall(r"^# (safekey_\w+: \S+)$", text, re.MULTILINE))) or {}
    assert bool(filled) == (preset is not None)
    assert config_from_flags({**content, **filled}) == config_from_flags(content)
    assert {key.removeprefix("safekey_") for key in filled} <= set(PRESETS[preset or "all"]) - set(SWITCHES)


def test_losses_may_be_chosen_and_need_rows(base: Path, data: Path, tmp_path: Path) -> None:
    assert switches(written(base, tmp_path, "--losses", "derta")) == {"harmful_prefix", "rto"}
    assert switches(written(base, tmp_path, "--force", "--data", str(data), "--losses", "rto,query_mask")) == {
        "rto", "query_mask",
    }  # fmt: skip
    assert switches(written(base, tmp_path, "--force", "--losses", "sft")) == set()
    bare = write_rows(tmp_path / "bare.jsonl", [{"query": "How?", "response": "So."}])
    refused = init(str(base), "--gpu", "cpu", "--data", str(bare), "--losses", "rto", "-o", str(tmp_path / "x.yaml"))
    assert refused.exit_code == 1 and "feeds rto" in refused.output
    assert not (tmp_path / "x.yaml").exists()


def test_existing_file_is_kept_unless_forced(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine: true\n")
    result = init(str(base), "--gpu", "cpu", "--output", str(path))
    assert result.exit_code == 1 and "--force" in result.output
    assert path.read_text() == "mine: true\n"
    assert init(str(base), "--gpu", "cpu", "--output", str(path), "--force").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--gpu", "huge"],
        ["--gpu", "cpu", "--losses", "magic"],
        ["--gpu", "cpu", "--data", "nowhere.jsonl"],
    ],
)
def test_wrong_argument_is_one_line(base: Path, tmp_path: Path, monkeypatch: Any, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    result = init(str(base), *arguments)
    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1, result.output
    assert list(tmp_path.iterdir()) == []


def test_hostile_names_stay_text(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    name = 'me/x-1B "\nrl: dpo\n# {{ 7 }} !!python'
    result = init(name, "--gpu", "24GB")
    assert result.exit_code == 0, result.output
    content = yaml.safe_load(Path("config.yaml").read_text())
    assert content["base_model"] == name and "rl" not in content


def test_next_commands_are_printed(base: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    output = init(str(base), "--gpu", "24GB", "--data", str(data), "--output", str(path)).output
    for command in ("safekey doctor", "safekey inspect", "axolotl train"):
        assert f"{command} {path}" in output
    assert "weights and schedule of safekey_preset: all" in output
    assert "(estimated)" in path.read_text()


def test_folder_of_the_output_is_made(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.yaml"
    assert init(str(base), "--gpu", "24", "--output", str(path)).exit_code == 0
    assert path.is_file()
    (tmp_path / "file").write_text("")
    result = init(str(base), "--gpu", "24", "--output", str(tmp_path / "file" / "x.yaml"))
    assert result.exit_code == 1 and "cannot be written" in result.output


def test_losses_that_no_row_feeds_are_named_to_be_left_out(base: Path, tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "harmful_response"} for row in potion_rows(24)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    out = str(tmp_path / "x.yaml")
    refused = init(str(base), "--gpu", "cpu", "--data", str(data), "--losses", "all", "-o", out)
    assert "Leave out harmful_prefix and rto (--losses dual_path,query_mask)" in refused.output
