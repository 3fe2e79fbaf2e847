from __future__ import annotations

import pytest

from safekey_peft.config import PRESETS, SWITCHES
from safekey_peft.errors import ConfigError
from safekey_peft.lab.experiment import Cell
from safekey_peft.lab.variants import ABLATIONS, GROUPS, REFUSAL_FLAG, TABLE, VARIANTS, Variant, choose_variants


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_flags_and_sizes_validate(variant: Variant) -> None:
    expected = set(variant.losses) if variant.preset is None else switches_of(variant)
    assert set(variant.config().active) == expected
    sizes = variant.sizes()
    for name, count in variant.tuning.items():
        assert getattr(sizes, name) == count


def test_names_are_distinct_and_no_two_variants_are_the_same_run() -> None:
    assert len(VARIANTS) == len(TABLE) + len(ABLATIONS)
    assert len({Cell(0, variant).digest() for variant in VARIANTS.values()}) == len(VARIANTS)


def test_a_wrong_flag_is_named() -> None:
    with pytest.raises(ConfigError, match="dual_path_theta"):
        Variant("x", "x", flags={"dual_path_theta": 2.0}).config()


def test_every_loss_is_tried_alone_and_all_together() -> None:
    losses = {variant.config().active for variant in TABLE}
    assert {(switch,) for switch in SWITCHES} <= losses and SWITCHES in losses


def test_all_is_the_preset_that_users_get() -> None:
    config = VARIANTS["all"].config()
    assert {name: getattr(config, name) for name in PRESETS["all"]} == {**PRESETS["all"], **REFUSAL_FLAG}


def test_the_papers_settings_of_all_are_those_of_derta() -> None:
    papers, derta = VARIANTS["all-papers"].config(), VARIANTS["derta"].config()
    names = [name for name in PRESETS["derta"] if name != "refusal_text"]
    assert {n: getattr(papers, n) for n in names} == {n: getattr(derta, n) for n in names}
    assert {n: getattr(derta, n) for n in names} == {n: PRESETS["derta"][n] for n in names}


def switches_of(variant: Variant) -> set[str]:
    preset = PRESETS[variant.preset or ""]
    return {switch for switch in SWITCHES if {**preset, **variant.flags}.get(switch)}


def test_names_and_groups_are_chosen_once_in_the_order_of_the_table() -> None:
    chosen = choose_variants(["rto-keep-0.5", "all", "table", "sft"])
    assert [variant.name for variant in chosen] == [*GROUPS["table"], "rto-keep-0.5"]


def test_unknown_names_are_all_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'safkey'.*'safekey'.*'rtoo'.*'rto'"):
        choose_variants(["safkey", "sft", "rtoo"])
    with pytest.raises(ConfigError, match="no variant was named"):
        choose_variants([])
