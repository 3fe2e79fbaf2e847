"""The schema accepts what the configuration accepts, and refuses what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from safekey_peft.cli import main as safekey
from safekey_peft.cli.schema import flags_schema
from safekey_peft.config import SafeKeyConfig, config_from_flags

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(ROOT.glob("examples/*/*.yaml"))


def errors(value: Any, schema: dict[str, Any] | None = None) -> list[str]:
    schema = schema or flags_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_validate(path: Path) -> None:
    assert errors(yaml.safe_load(path.read_text())) == []


def test_every_flag_has_a_default_a_description_and_may_be_null() -> None:
    for name, field in SafeKeyConfig.model_fields.items():
        flag = flags_schema()["properties"][f"safekey_{name}"]
        assert flag["description"] == field.description
        assert flag["default"] == field.default
        assert errors({f"safekey_{name}": None}) == []
        assert errors({f"safekey_{name}": field.default}) == []


@pytest.mark.parametrize(
    "flags",
    [
        {"safekey_rto": "yes"},
        {"safekey_rto": 1},
        {"safekey_dual_path_weight": -0.1},
        {"safekey_dual_path_theta": 1.5},
        {"safekey_last_epochs": 0},
        {"safekey_last_epochs": "never"},
        {"safekey_rto_keep": 0.0},
        {"safekey_harmful_prefix_draws": 0},
        {"safekey_annotation": "magic"},
        {"safekey_preset": "al"},
        {"safekey_preset": True},
        {"safekey_presets": "all"},
        {"safekey_isolation": "maybe"},
        {"safekey_rtoo": True},
        {"SafeKey_RTO": True},
        {"safe_key_rto": True},
        {"safekey-rto": True},
    ],
)
def test_what_the_configuration_refuses_the_schema_refuses(flags: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        config_from_flags(flags)
    assert errors(flags)


@pytest.mark.parametrize(
    "flags",
    [
        {"safekey_last_epochs": "all"},
        {"safekey_last_epochs": 0.5},
        {"safekey_preset": "all", "safekey_rto": None},
        {"safety_note": 1},
        {"base_model": "x"},
    ],
)
def test_what_it_accepts_the_schema_accepts(flags: dict[str, Any]) -> None:
    config_from_flags(flags)
    assert errors(flags) == []


def test_axolotls_keys_are_merged() -> None:
    pytest.importorskip("axolotl")
    result = CliRunner().invoke(safekey, ["schema", "--axolotl"])
    assert result.exit_code == 0, result.output
    schema = json.loads(result.stdout)
    assert {"micro_batch_size", "lora_r", "safekey_rto", "flash_attention"} <= schema["properties"].keys()
    for path in EXAMPLES:
        assert errors(yaml.safe_load(path.read_text()), schema) == [], path
    config = yaml.safe_load(EXAMPLES[0].read_text())
    assert errors({**config, "micro_batch_size": "many"}, schema)
    assert errors({**config, "safekey_rtoo": True}, schema)


def test_file_is_written_and_the_editors_line_shown(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    result = CliRunner().invoke(safekey, ["schema", "--output", str(path)])
    assert result.exit_code == 0 and result.stdout == ""
    assert json.loads(path.read_text()) == flags_schema()
    assert f"# yaml-language-server: $schema={path}" in result.stderr
    assert CliRunner().invoke(safekey, ["schema", "--output", str(tmp_path / "no" / "s.json")]).exit_code == 1
