from __future__ import annotations

import math

import pytest

from safekey_peft.lab.statistics import ATTACKS, Comparison, paired_difference, parent_of
from safekey_peft.lab.variants import ABLATIONS, TABLE
from tests.lab.canned import canned, records, with_ablations


def test_mean_and_deviation_are_over_seeds() -> None:
    summary = Comparison(records()).summary("sft", "late_reveal.success")
    assert summary is not None and (summary.count, str(summary)) == (3, "0.74±0.01")
    single = Comparison(records(1)).summary("sft", "late_reveal.success")
    assert str(single) == "0.75" and math.isnan(single.sd)


def test_differences_are_paired_over_the_seeds_that_both_have() -> None:
    found = [*records(), canned(7, "sft", 0.0), canned(8, "all", 1.0)]
    difference = Comparison(found).difference("all", "sft", "prefilling.success")
    assert difference is not None and difference.count == difference.lower == 3
    assert difference.mean == pytest.approx(-0.7) and difference.error == pytest.approx(0.0, abs=1e-12)


def test_interval_is_students() -> None:
    difference = paired_difference([0.1, -0.1, 0.3])
    assert difference is not None and difference.mean == pytest.approx(0.1)
    assert difference.error == pytest.approx(0.2 / math.sqrt(3))
    assert difference.half_width == pytest.approx(4.303 * 0.2 / math.sqrt(3))
    assert difference.lower == 1
    assert paired_difference([]) is None and str(paired_difference([0.5])) == "+0.50"


def test_everything_is_compared_with_sft_and_all_with_each_single_method() -> None:
    assert Comparison(records()).pairs() == [("rto", "sft"), ("all", "sft"), ("all", "rto")]


def test_capability_is_relative_to_the_base_of_the_same_seed() -> None:
    found = [*records(2), canned(9, "sft", 0.5)]  # seed 9 has no base
    assert Comparison(found).by_seed("sft", "relative_capability") == pytest.approx({0: 0.75, 1: 0.75})


def seeds_of(**success: list[float]) -> Comparison:
    """Records of variants with a success in each seed; what is no success is a refusal."""
    return Comparison([canned(seed, name, of) for name, values in success.items() for seed, of in enumerate(values)])


def verdict(comparison: Comparison, title: str = "late reveal") -> tuple[str, str]:
    return next((found.best, found.text) for found in comparison.verdicts() if found.title == title)


def test_all_is_held_against_the_single_method_with_the_best_mean() -> None:
    found = seeds_of(all=[0.1, 0.2], head=[0.0, 0.9], rto=[0.3, 0.4], derta=[0.5, 0.5]).verdicts()
    assert [verdict.title for verdict in found] == [*ATTACKS.values(), "late reveal, refused"]
    assert {found_for.best for found_for in found} == {"rto"}  # least success, and so most refusals
    assert found[0].best_mean == pytest.approx(0.35) and found[0].all_mean == pytest.approx(0.15)
    assert found[0].difference.mean == pytest.approx(-0.2)


def test_worse_is_more_than_one_standard_error_on_the_wrong_side() -> None:
    # differences of mean 0.1: standard error 0.1 with (0, 0.2), 0.05 with (0.05, 0.15)
    assert verdict(seeds_of(all=[0.5, 0.75], rto=[0.5, 0.55])) == ("rto", "not worse")
    assert verdict(seeds_of(all=[0.55, 0.7], rto=[0.5, 0.55])) == ("rto", "worse")
    assert verdict(seeds_of(all=[0.1, 0.1], rto=[0.5, 0.55])) == ("rto", "not worse")


def test_fewer_refusals_are_worse() -> None:
    fewer = seeds_of(all=[0.55, 0.7], rto=[0.5, 0.55])
    more = seeds_of(all=[0.45, 0.4], rto=[0.5, 0.55])
    assert verdict(fewer, "late reveal, refused") == ("rto", "worse")
    assert verdict(more, "late reveal, refused") == ("rto", "not worse")


def test_equal_values_are_not_worse_and_one_seed_leaves_it_open() -> None:
    assert verdict(seeds_of(all=[0.1, 0.3], derta=[0.1, 0.3])) == ("derta", "not worse")
    assert verdict(seeds_of(all=[0.9], derta=[0.1])) == ("derta", "one seed: open")


def test_best_is_found_on_the_seeds_that_all_methods_share() -> None:
    # derta alone has the easy seed 2
    found = seeds_of(all=[0.4, 0.4, 0.0], rto=[0.3, 0.3], derta=[0.4, 0.4, 0.0])
    assert verdict(found)[0] == "rto" and found.verdicts()[0].all_mean == pytest.approx(0.4)
    assert seeds_of(all=[0.4]).verdicts() == [] and seeds_of(rto=[0.4]).verdicts() == []


@pytest.mark.parametrize(
    ("name", "parent"),
    [("head-theta-0", "head"), ("safekey-weights-0.2", "safekey"), ("all-last-2", "all"), ("all-no-head", "all"),
     ("dpo", "sft"),
     ("rto-keep-0.5", "rto"), ("prefix-empty-0", "prefix"), ("derta-harmful-25", "derta"), ("nowhere", None)],
)  # fmt: skip
def test_an_ablation_belongs_to_the_variant_that_it_changes(name: str, parent: str | None) -> None:
    assert parent_of(name) == parent


def test_every_ablation_has_a_parent_in_the_table() -> None:
    assert {parent_of(variant.name) for variant in ABLATIONS} <= {variant.name for variant in TABLE}


def test_ablations_are_kept_apart_from_the_table() -> None:
    comparison = Comparison(with_ablations())
    assert comparison.main == ["base", "sft", "rto", "all"]
    assert comparison.ablations == {
        "sft": ["dpo"], "rto": ["rto-keep-0.5"], "all": ["all-weights-0.2"], "": ["elsewhere"],
        "head": ["head-theta-0"],
    }  # fmt: skip
    # head itself was not run, and of elsewhere nobody knows what it changes
    assert comparison.ablation_pairs() == [("dpo", "sft"), ("rto-keep-0.5", "rto"), ("all-weights-0.2", "all")]
    assert not any("dpo" in pair for pair in comparison.pairs())
    assert Comparison([canned(0, "dpo", 0.5)]).main == ["dpo"]
