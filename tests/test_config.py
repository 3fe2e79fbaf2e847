"""Presets fill what is not set, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from safekey_peft.config import (
    PRESETS,
    SWITCHES,
    SafeKeyConfig,
    build_config,
    config_from_flags,
    preset_losses,
    yaml_text,
)
from safekey_peft.doctor.flags import loss_of
from safekey_peft.errors import ConfigError

every_preset = pytest.mark.parametrize("name", PRESETS)


def values_of(config: SafeKeyConfig) -> dict[str, Any]:
    """Every option but the preset's name."""
    return config.model_dump(exclude={"preset"})


def spelled_out(name: str) -> dict[str, Any]:
    return {f"safekey_{key}": value for key, value in PRESETS[name].items()}


def another(key: str, value: Any) -> Any:
    """Another value that the field takes."""
    choices = SafeKeyConfig.model_json_schema()["properties"][key].get("enum")
    if choices:
        return next(choice for choice in choices if choice != value)
    if isinstance(value, bool):
        return not value
    return {"last_epochs": 3.5, "refusal_text": "No"}.get(key) or (value + 1 if isinstance(value, int) else value / 2)


def test_papers_presets_are_the_papers_settings() -> None:
    """Quoted in safekey_peft/core/README.md."""
    safekey, derta = SafeKeyConfig(preset="safekey"), SafeKeyConfig(preset="derta")
    assert safekey.active == ("dual_path", "query_mask")
    assert (safekey.dual_path_weight, safekey.query_mask_weight, safekey.dual_path_theta) == (0.2, 0.2, 0.5)
    assert (safekey.dual_path_detach, safekey.last_epochs) == (False, 2)
    assert derta.active == ("harmful_prefix", "rto")
    assert (derta.rto_weight, derta.rto_keep, derta.refusal_text) == (1.0, 1.0, "Sorry")
    assert (derta.harmful_prefix_empty, derta.harmful_prefix_draws) == (0.3333, 1)
    assert (derta.harmful_prefix_from, derta.rto_from) == ("response", "response")


def test_all_switches_all_four_on() -> None:
    assert SafeKeyConfig(preset="all").active == SWITCHES


def test_presets_are_the_choices_of_the_flag() -> None:
    choices = SafeKeyConfig.model_json_schema()["properties"]["preset"]["anyOf"][0]["enum"]
    assert choices == list(PRESETS)


@every_preset
def test_preset_is_the_same_as_its_flags_written_out(name: str) -> None:
    by_name = config_from_flags({"safekey_preset": name})
    assert by_name.preset == name and by_name.departures == ()
    assert values_of(by_name) == values_of(config_from_flags(spelled_out(name)))
    assert by_name.data_fields() == config_from_flags(spelled_out(name)).data_fields()


def test_options_that_shape_the_prepared_data_are_all_but_weights_schedule_and_model() -> None:
    """Prepared data is found again by these; an option that is missing here would train stale rows."""
    others = {
        *(field for field in SafeKeyConfig.model_fields if field.endswith("_weight")),
        *("preset", "dual_path_theta", "dual_path_detach", "last_epochs"),
        *("head_learning_rate", "cross_entropy", "isolation"),
    }
    assert set(SafeKeyConfig().data_fields()) == set(SafeKeyConfig.model_fields) - others
    assert SafeKeyConfig(rto_from="answer").data_fields() != SafeKeyConfig(rto_from="divergence").data_fields()


@every_preset
def test_preset_depends_on_no_default(name: str) -> None:
    """It names every option of its losses; the head's learning rate is the run's, which no paper's value replaces."""
    losses = preset_losses(name)
    options = {field for field in SafeKeyConfig.model_fields if loss_of(field) in losses} | set(losses)
    if {"dual_path", "query_mask"} & set(losses):
        options.add("last_epochs")
    assert set(PRESETS[name]) == options - {"head_learning_rate"}


@every_preset
def test_every_flag_that_is_set_goes_before_the_preset(name: str) -> None:
    for key, value in PRESETS[name].items():
        own = another(key, value)
        config = config_from_flags({"safekey_preset": name, f"safekey_{key}": own})
        assert values_of(config) == values_of(SafeKeyConfig(preset=name)) | {key: own}
        assert config.departures == (key,) and config.preset_note == f" (preset {name} but for {key})"


def test_order_of_the_keys_does_not_matter() -> None:
    assert not config_from_flags({"safekey_rto": False, "safekey_preset": "all"}).rto
    assert not SafeKeyConfig(rto=False, preset="all").rto


@every_preset
def test_null_is_not_set(name: str) -> None:
    nulls = dict.fromkeys(spelled_out(name))
    assert config_from_flags({"safekey_preset": name, **nulls}) == SafeKeyConfig(preset=name)
    assert SafeKeyConfig(preset=name, **dict.fromkeys(PRESETS[name])) == SafeKeyConfig(preset=name)
    assert config_from_flags({"safekey_preset": None}) == SafeKeyConfig()


def test_without_a_preset_null_is_no_switch() -> None:
    with pytest.raises(ValidationError):
        SafeKeyConfig(rto=None)
    assert not SafeKeyConfig().any_active and SafeKeyConfig().preset_note == ""


def test_other_losses_stay_as_they_are() -> None:
    config = config_from_flags({"safekey_preset": "safekey", "safekey_rto": True, "safekey_rto_weight": 0.5})
    assert config.active == ("dual_path", "query_mask", "rto") and config.rto_weight == 0.5
    assert config.preset_note == " (preset safekey)"


@pytest.mark.parametrize("own", [{}, {"rto": False}, {"last_epochs": 1.5, "annotation": "rule"}], ids=str)
@every_preset
def test_dumped_configuration_is_the_same_again(name: str, own: dict[str, Any]) -> None:
    config = SafeKeyConfig(preset=name, **own)
    assert SafeKeyConfig(**config.model_dump()) == config
    assert SafeKeyConfig.model_validate_json(config.model_dump_json()) == config
    assert config.model_dump()["preset"] == name


@pytest.mark.parametrize(
    ("value", "near"),
    [("al", "all"), ("SafeKey", "safekey"), ("DERTA ", "derta"), ("sft", None), (True, None), ({}, None)],
)
def test_unknown_preset_names_the_choices_and_the_nearest(value: Any, near: str | None) -> None:
    with pytest.raises(ConfigError) as stop:
        config_from_flags({"safekey_preset": value, "safekey_rto_keep": 7})
    text = str(stop.value)
    assert "safekey_preset: expected one of safekey, derta, all" in text and f"found {value!r}" in text
    assert ("did you mean" in text) == (near is not None) and (near is None or f"did you mean {near!r}" in text)
    assert "safekey_rto_keep" in text and "\n" not in text and "Value error" not in text


@pytest.mark.parametrize("flag", ["safekey_presets", "safekey_preset_", "safekey-preset", "SafeKey_Preset"])
def test_misspelt_flag_is_named(flag: str) -> None:
    with pytest.raises(ConfigError, match="did you mean 'safekey_preset'"):
        config_from_flags({flag: "all"})


def test_wrong_value_beside_a_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="safekey_rto_weight"):
        config_from_flags({"safekey_preset": "all", "safekey_rto_weight": -1})
    with pytest.raises(ConfigError, match="rtoo"):
        build_config({"preset": "all", "rtoo": True})


def test_values_are_written_as_yaml_reads_them() -> None:
    import yaml

    for value in (True, False, None, 0.2, 2, "all", "Sorry"):
        assert yaml.safe_load(yaml_text(value)) == value
