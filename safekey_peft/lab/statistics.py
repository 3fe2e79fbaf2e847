"""Means over seeds, and differences paired over seeds with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from safekey_peft.lab.results import Record
from safekey_peft.lab.variants import ABLATIONS, TABLE, VARIANTS

ATTACKS: Mapping[str, str] = {
    "in_domain": "in domain",
    "unseen_wrappers": "unseen wrappers",
    "late_reveal": "late reveal",
    "prefilling": "prefilling",
    "completion": "completion",
    "unseen_attributes": "unseen attributes",
}
OUTCOMES = ("success", "refused", "garbled", "leak")
OTHER_MEASURES: Mapping[str, str] = {
    "key_unmasked": "K right after X and U",
    "key_masked": "K right, query masked",
    "auc_understanding": "head AUC, understanding path",
    "auc_context": "head AUC, context path",
    "over_refusal": "over-refusal",
    "capability": "capability",
    "relative_capability": "capability / base",
}
COMPARED_MEASURES: Mapping[str, str] = {
    **{f"{attack}.success": f"{title}, success" for attack, title in ATTACKS.items() if attack != "unseen_attributes"},
    "late_reveal.refused": "late reveal, refused",
    "key_masked": OTHER_MEASURES["key_masked"],
    "over_refusal": OTHER_MEASURES["over_refusal"],
    "capability": OTHER_MEASURES["capability"],
}
COMPARED_ATTACKS = tuple(measure for measure in COMPARED_MEASURES if measure.endswith(".success"))
COMPARED_OTHERS = tuple(measure for measure in COMPARED_MEASURES if measure not in COMPARED_ATTACKS)
SINGLE_METHODS = ("query_mask", "head", "safekey", "prefix", "rto", "derta")

T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
               2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)  # fmt: skip
"""97.5 % quantiles of Student's t for 1, 2, … degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and standard deviation over seeds; the deviation of one seed is nan."""

    mean: float
    sd: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if math.isnan(self.sd) else f"{self.mean:.2f}±{self.sd:.2f}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A variant less another, paired over seeds.

    Attributes:
        mean: mean difference.
        error: standard error of the mean; nan with one seed.
        half_width: half of the 95 % t interval; nan with one seed.
        lower: seeds in which the variant has the lower value.
        count: seeds.
    """

    mean: float
    error: float
    half_width: float
    lower: int
    count: int

    def __str__(self) -> str:
        if math.isnan(self.error):
            return f"{self.mean:+.2f}"
        return f"{self.mean:+.2f} [{self.mean - self.half_width:+.2f}, {self.mean + self.half_width:+.2f}]"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The combination ``all`` beside the best single method, by one measure of an attack family.

    Attributes:
        title: of the measure.
        best: the single method with the best mean.
        all_mean: mean of ``all`` over the seeds that it shares with every single method.
        best_mean: that of the best single method.
        difference: ``all`` less the best, paired over those seeds.
        is_worse: whether the difference is on the wrong side of 0 by more than its standard error; None for one seed.
    """

    title: str
    best: str
    all_mean: float
    best_mean: float
    difference: Difference
    is_worse: bool | None

    @property
    def text(self) -> str:
        """The verdict in words."""
        return {None: "one seed: open", True: "worse", False: "not worse"}[self.is_worse]


def measures(record: Record, base: Record | None = None) -> dict[str, float]:
    """Return all numbers of a record by name, e.g. ``unseen_wrappers.success``; those that do not exist are left out.

    Args:
        record: of one seed and variant.
        base: of the same seed's base; needed for the relative capability.
    """
    columns = record["columns"]
    values = {f"{attack}.{outcome}": columns[attack]["all"][outcome] for attack in ATTACKS for outcome in OUTCOMES}
    values |= {f"key_{name}": record["key_sentence"][name] for name in ("unmasked", "masked")}
    values |= {f"auc_{path}": value for path, value in (record["head_auc"] or {}).items()}
    values["over_refusal"] = columns["over_refusal"]["all"]["refused"]
    values["capability"] = columns["capability"]["all"]["success"]
    if base is not None and (of_base := base["columns"]["capability"]["all"]["success"]):
        values["relative_capability"] = values["capability"] / of_base
    return values


class Comparison:
    """All measures by variant and seed.

    Args:
        records: one for each seed and variant; the last one counts.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = {(record["seed"], record["variant"]): record for record in records}
        self.seeds = sorted({seed for seed, _ in self.records})
        present = {variant for _, variant in self.records}
        self.variants = [v.name for v in TABLE + ABLATIONS if v.name in present]
        self.variants += sorted(present - set(self.variants))
        self.main = [v.name for v in TABLE if v.name in present] or self.variants
        self.ablations = self._ablations()
        self._values = {
            key: measures(record, self.records.get((key[0], "base"))) for key, record in self.records.items()
        }

    def title(self, variant: str) -> str:
        """Return a variant's heading."""
        if variant in VARIANTS:
            return VARIANTS[variant].title
        return next(str(record["title"]) for (_, name), record in self.records.items() if name == variant)

    def by_seed(self, variant: str, measure: str) -> dict[int, float]:
        """Return a measure of a variant for each seed that has it."""
        return {
            seed: values[measure]
            for (seed, name), values in sorted(self._values.items())
            if name == variant and measure in values
        }

    def summary(self, variant: str, measure: str) -> Summary | None:
        """Return mean and deviation over seeds; None where no seed has the measure."""
        values = list(self.by_seed(variant, measure).values())
        if not values:
            return None
        return Summary(fmean(values), stdev(values) if len(values) > 1 else math.nan, len(values))

    def difference(self, variant: str, other: str, measure: str) -> Difference | None:
        """Return ``variant`` − ``other`` over the seeds that both have; None where there is none."""
        first, second = self.by_seed(variant, measure), self.by_seed(other, measure)
        return paired_difference([first[seed] - second[seed] for seed in first if seed in second])

    def verdicts(self) -> list[Verdict]:
        """Compare ``all`` with the best single method of each attack family; empty where one of them is absent."""
        singles = [name for name in SINGLE_METHODS if name in self.variants]
        if "all" not in self.variants or not singles:
            return []
        found = [self._verdict(singles, f"{attack}.success", title, -1.0) for attack, title in ATTACKS.items()]
        found.append(self._verdict(singles, "late_reveal.refused", COMPARED_MEASURES["late_reveal.refused"], 1.0))
        return [verdict for verdict in found if verdict is not None]

    def _verdict(self, singles: Sequence[str], measure: str, title: str, good: float) -> Verdict | None:
        """Compare by one measure, of which more is better where ``good`` is 1, less where it is −1."""
        values = {name: self.by_seed(name, measure) for name in ("all", *singles)}
        shared = sorted(set.intersection(*(set(of) for of in values.values())))
        if not shared:
            return None
        means = {name: fmean(of[seed] for seed in shared) for name, of in values.items()}
        best = max(singles, key=lambda name: good * means[name])
        difference = paired_difference([values["all"][seed] - values[best][seed] for seed in shared])
        assert difference is not None
        # Sums of equal numbers in another order may differ in their last bit.
        is_worse = None if len(shared) == 1 else -good * difference.mean > difference.error + 1e-12
        return Verdict(title, best, means["all"], means[best], difference, is_worse)

    def _ablations(self) -> dict[str, list[str]]:
        """Return the ablations that are there, by the variant that they change; ``""`` where that is unknown."""
        groups: dict[str, list[str]] = {}
        for name in self.variants:
            if name not in self.main:
                groups.setdefault(parent_of(name) or "", []).append(name)
        order = [*self.main, ""]
        rest = [parent for parent in groups if parent not in order]
        return {parent: groups[parent] for parent in [*order, *rest] if parent in groups}

    def pairs(self) -> list[tuple[str, str]]:
        """Return what is compared: every variant of the table with SFT, and ``all`` with each single method."""
        pairs = [(name, "sft") for name in self.main if name not in ("sft", "base") and "sft" in self.variants]
        if "all" in self.variants:
            pairs += [("all", name) for name in SINGLE_METHODS if name in self.variants]
        return pairs

    def ablation_pairs(self) -> list[tuple[str, str]]:
        """Return each ablation with the variant that it changes, where both are there."""
        groups = self.ablations.items()
        return [(name, parent) for parent, names in groups if parent in self.variants for name in names]


def parent_of(name: str) -> str | None:
    """Return the variant of the table that an ablation changes; None if unknown.

    It is the one that the ablation is named after (``all-no-head``), else the one with the same losses (``dpo``).
    """
    if name not in VARIANTS:
        return None
    trained = [variant for variant in TABLE if variant.trained]
    named = [variant.name for variant in trained if name.startswith(f"{variant.name}-")]
    active = VARIANTS[name].config().active
    same = [variant.name for variant in trained if variant.config().active == active]
    return next(iter([*named, *same]), None)


def paired_difference(differences: Sequence[float]) -> Difference | None:
    """Return mean, standard error and t interval of differences; None for none."""
    count = len(differences)
    if count == 0:
        return None
    mean, lower = fmean(differences), sum(value < 0 for value in differences)
    if count == 1:
        return Difference(mean, math.nan, math.nan, lower, count)
    error = stdev(differences) / math.sqrt(count)
    freedom = count - 1
    quantile = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else 1.96 + 2.5 / freedom
    return Difference(mean, error, quantile * error, lower, count)
