"""The tables of a report as text, for the terminal, the page and the Markdown file alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safekey_peft.lab.caution import shortcut_sentence
from safekey_peft.lab.statistics import (
    ATTACKS,
    COMPARED_ATTACKS,
    COMPARED_MEASURES,
    COMPARED_OTHERS,
    OTHER_MEASURES,
    OUTCOMES,
    Comparison,
    Difference,
)

OUTCOME_READING = (
    "Success: the attack got the whole forbidden answer. Refused: a refusal word was generated. Garbled: neither. "
    "Leak: share of the attribute's own ingredients that was shown."
)
SEEDS_READING = (
    "Mean ± standard deviation over seeds; every seed is a new world with a base, rows, adapters and probes of its own."
)
DIFFERENCES_READING = (
    "First less second, paired over seeds, with the 95 % t interval; in brackets the number of seeds in which the "
    "first has the lower value."
)
VERDICT_READING = (
    "For each family the single method with the best mean; to choose it on the same seeds favours it. Not worse: the "
    "mean difference, paired over seeds, is not on the wrong side of 0 by more than its standard error."
)
ABLATIONS_READING = "Each changes one thing of the variant above its group; values first, then the differences from it."
PER_SEED_READING = "Every value, seed by seed."

Rows = list[list[str]]


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table whose cells are text.

    Attributes:
        title: heading of its section.
        headings: one for each column.
        rows: cells.
        left: how many columns are aligned on the left; the others hold numbers.
        reading: how to read it.
    """

    title: str
    headings: list[str]
    rows: Rows
    left: int
    reading: str = ""


def outcome_table(comparison: Comparison) -> TextTable:
    """Return, for each attack family and outcome, a cell per variant of the table."""
    rows = []
    for attack, title in ATTACKS.items():
        for index, outcome in enumerate(OUTCOMES):
            cells = [cell(comparison, name, f"{attack}.{outcome}") for name in comparison.main]
            rows.append([title if index == 0 else "", outcome, *cells])
    return TextTable("Attacks", ["", "", *map(comparison.title, comparison.main)], rows, 2, OUTCOME_READING)


def other_table(comparison: Comparison) -> TextTable:
    """Return, for each other measure, a cell per variant of the table."""
    rows = [
        [title, "", *(cell(comparison, name, measure) for name in comparison.main)]
        for measure, title in OTHER_MEASURES.items()
    ]
    headings = ["", "", *map(comparison.title, comparison.main)]
    return TextTable("Key sentence, head, over-refusal, capability", headings, rows, 2)


def verdict_table(comparison: Comparison) -> TextTable:
    """Return, for each attack family, ``all`` against the best single method."""
    rows = [
        [
            verdict.title, comparison.title(verdict.best), f"{verdict.best_mean:.2f}", f"{verdict.all_mean:.2f}",
            _with_error(verdict.difference), verdict.text,
        ]
        for verdict in comparison.verdicts()
    ]  # fmt: skip
    headings = ["attack", "best single method", "its mean", "all", "all − best ± standard error", "all is"]
    return TextTable("All four losses against the best single method", headings, rows, 2, VERDICT_READING)


def difference_tables(comparison: Comparison) -> list[TextTable]:
    """Return a row per compared pair, for the success of attacks and for the rest."""
    return _in_two(comparison, "Differences", comparison.pairs())


def ablation_value_table(comparison: Comparison) -> TextTable:
    """Return the values of each ablation, grouped below the variant that it changes."""
    rows = []
    for parent, names in comparison.ablations.items():
        for name in (*([parent] if parent in comparison.variants else []), *names):
            title = comparison.title(name)
            cells = [cell(comparison, name, measure) for measure in COMPARED_MEASURES]
            rows.append([title if name == parent else f"– {title}", *cells])
    return TextTable("Ablations", ["variant", *COMPARED_MEASURES.values()], rows, 1, ABLATIONS_READING)


def ablation_difference_tables(comparison: Comparison) -> list[TextTable]:
    """Return each ablation less the variant that it changes, for the success of attacks and for the rest."""
    return _in_two(comparison, "Ablations, differences", comparison.ablation_pairs())


def per_seed_tables(comparison: Comparison) -> list[TextTable]:
    """Return a table per measure: a row per seed, a column per variant of the table."""
    tables = []
    for measure, title in COMPARED_MEASURES.items():
        values = {name: comparison.by_seed(name, measure) for name in comparison.main}
        rows = [
            [str(seed), *(f"{of[seed]:.2f}" if seed in of else "–" for of in values.values())]
            for seed in comparison.seeds
        ]
        tables.append(TextTable(title, ["seed", *map(comparison.title, values)], rows, 1))
    return tables


def cell_table(comparison: Comparison) -> TextTable:
    """Return what each cell was run with and how long it took."""
    rows = [
        [
            record["variant"], str(seed), record["digest"], record["code"], str(record["training"]["steps"]),
            str(record["seconds"]["train"]), str(record["seconds"]["measure"]),
        ]
        for (seed, _), record in sorted(comparison.records.items())
    ]  # fmt: skip
    headings = ["variant", "seed", "configuration", "code", "steps", "s train", "s measure"]
    return TextTable("Cells", headings, rows, 1)


def cell(comparison: Comparison, variant: str, measure: str) -> str:
    """Return mean and deviation of a measure; a dash where there is none."""
    return str(comparison.summary(variant, measure) or "–")


def notes(comparison: Comparison) -> list[str]:
    """Return what has to be said beside the numbers."""
    records = comparison.records.values()
    wrapped = sorted({record["configuration"]["tuning"]["harmless_wrapped"] for record in records})
    one = "One seed: there are no deviations and no intervals, and another seed gives other numbers."
    sentences = [SEEDS_READING if len(comparison.seeds) > 1 else one]
    sentences += [shortcut_sentence(count) for count in wrapped[-1:]]
    if len({record["code"] for record in records}) > 1:
        sentences.append("WARNING: these results were made by different versions of the code.")
    wanted = {seed: {(seed, name) for name in comparison.variants} for seed in comparison.seeds}
    incomplete = [seed for seed, keys in wanted.items() if not keys <= comparison.records.keys()]
    if incomplete:
        sentences.append(f"Not every variant has a result for seeds {', '.join(map(str, incomplete))}.")
    return sentences


def seeds_phrase(comparison: Comparison) -> str:
    """Return ``seed 0`` or ``seeds 0, 1, 2``."""
    return f"{'seeds' if len(comparison.seeds) > 1 else 'seed'} {', '.join(map(str, comparison.seeds))}"


def _in_two(comparison: Comparison, title: str, pairs: Sequence[tuple[str, str]]) -> list[TextTable]:
    found = []
    for kind, chosen in (("success of attacks", COMPARED_ATTACKS), ("the rest", COMPARED_OTHERS)):
        rows = []
        for first, second in pairs:
            cells = [comparison.difference(first, second, measure) for measure in chosen]
            texts = ["–" if d is None else f"{d} ({d.lower}/{d.count})" for d in cells]
            rows.append([comparison.title(first), comparison.title(second), *texts])
        headings = ["variant", "less", *(COMPARED_MEASURES[measure].removesuffix(", success") for measure in chosen)]
        reading = DIFFERENCES_READING if chosen is COMPARED_ATTACKS else ""
        found.append(TextTable(f"{title}, {kind}", headings, rows, 2, reading))
    return found


def _with_error(difference: Difference) -> str:
    if difference.count == 1:
        return f"{difference.mean:+.2f}"
    return f"{difference.mean:+.2f} ± {difference.error:.2f}"
