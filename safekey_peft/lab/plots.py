"""Plots of the report, with matplotlib: outcomes, seeds, differences, positions of refusals, loss curves."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from safekey_peft.lab.caution import CAUTION
from safekey_peft.lab.evaluation import LONGEST_RESPONSE_TOKENS
from safekey_peft.lab.statistics import ATTACKS, COMPARED_MEASURES, Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTCOME_COLOURS = {"success": "#b3541e", "refused": "#2f6f9f", "garbled": "#b9c0c8"}
PLACE_COLOURS = {"in_thought": "#2f6f9f", "after_thought": "#e0a030"}
PLACE_TITLES = {"in_thought": "before </think>", "after_thought": "after </think>"}
LOSS_COLOURS = {
    "loss_sft": "#333333", "loss_prefix": "#b3541e", "loss_rto": "#2f6f9f", "loss_key": "#3d8b51",
    "loss_head_understanding": "#8a5aa8", "loss_head_context": "#c69ad8",
}  # fmt: skip
SEED_COLOURS = ("#2f6f9f", "#b3541e", "#3d8b51", "#8a5aa8", "#e0a030", "#5f6b76", "#c2577e", "#46a0a8", "#7a5c3e",
                "#9bb13c")  # fmt: skip
INK, FAINT = "#1d232a", "#d8dde3"
STRIPS = ("unseen_wrappers.success", "late_reveal.success")
BIN_TOKENS = 2
TITLE_INCHES, LINE_INCHES, FOOT_INCHES, NARROWEST_INCHES, LEGEND_ENTRY_INCHES = 0.34, 0.22, 0.28, 7.0, 1.75

Legend = Mapping[str, tuple[str, str]]
"""Label → colour and kind of mark: ``patch``, ``line``, ``dot`` or ``ring``."""


class ForestGroup(NamedTuple):
    """Rows of a forest plot under a heading: label, variant, and what it is compared with."""

    heading: str
    rows: Sequence[tuple[str, str, str]]


def draw_plots(comparison: Comparison) -> list[tuple[str, bytes]]:
    """Return title and PNG of each plot; each carries the sentence on what it is no evidence of."""
    several = len(comparison.seeds) > 1  # one seed has no intervals; its differences are in the tables
    over = "mean over seeds" if several else "one seed"
    trained = [name for name in comparison.main if name != "base"]
    found: list[tuple[str, tuple[Figure, Legend]]] = [
        (f"Outcomes: {over}, by attack family", outcomes_figure(comparison)),
    ]
    if several:
        found.append(("Seeds: success of two attack families, a dot per seed", seeds_figure(comparison)))
    if several and (groups := pair_groups(comparison)):
        found.append(("Differences: paired over seeds, with 95 % intervals", forest_figure(comparison, groups)))
    if trained:
        found.append(("Refusals: generated tokens before the first refusal word", refusals_figure(comparison, trained)))
        found.append((f"Losses: {over}, by training step", losses_figure(comparison, trained)))
    if several and (groups := ablation_groups(comparison)):
        title = "Ablations: less the variant that each changes, with 95 % intervals"
        found.append((title, forest_figure(comparison, groups)))
    return [(title, _png(figure, title, legend)) for title, (figure, legend) in found]


def outcomes_figure(comparison: Comparison) -> tuple[Figure, Legend]:
    """Draw stacked shares, a panel per attack family and a bar per variant; a dot marks the leak."""
    names = comparison.main
    figure, panels = _grid(1, len(ATTACKS), width=2.1, height=0.5 + 0.24 * len(names), sharey=True)
    for panel, (attack, title) in zip(panels[0], ATTACKS.items(), strict=True):
        left = [0.0] * len(names)
        for outcome, colour in OUTCOME_COLOURS.items():
            means = _means(comparison, f"{attack}.{outcome}")
            panel.barh(range(len(names)), means, left=left, color=colour)
            left = [a + b for a, b in zip(left, means, strict=True)]
        leaks = _means(comparison, f"{attack}.leak")
        panel.plot(leaks, range(len(names)), "o", color=INK, markersize=3.5, clip_on=False)
        panel.set_title(title, fontsize=9)
        panel.set_xlim(0, 1)
        panel.set_xticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=7)
    panels[0][0].set_yticks(range(len(names)), [comparison.title(name) for name in names], fontsize=8)
    panels[0][0].invert_yaxis()
    return figure, {name: (colour, "patch") for name, colour in OUTCOME_COLOURS.items()} | {"leak": (INK, "dot")}


def seeds_figure(comparison: Comparison) -> tuple[Figure, Legend]:
    """Draw every seed's value: a panel per attack family, a column per variant; a bar marks the mean."""
    names, seeds = comparison.main, comparison.seeds
    figure, panels = _grid(len(STRIPS), 1, width=1.0 + 0.95 * len(names), height=1.9, sharex=True)
    few = len(seeds) <= len(SEED_COLOURS)
    colours = {seed: SEED_COLOURS[index] if few else INK for index, seed in enumerate(seeds)}
    for panel, measure in zip((row[0] for row in panels), STRIPS, strict=True):
        for place, name in enumerate(names):
            values = comparison.by_seed(name, measure)
            for index, seed in enumerate(seeds):
                if seed in values:
                    # The same seed stands at the same place in every column.
                    offset = 0.6 * ((index + 0.5) / len(seeds) - 0.5)
                    panel.plot(place + offset, values[seed], "o", color=colours[seed], markersize=5, clip_on=False)
            if values:
                panel.hlines(sum(values.values()) / len(values), place - 0.36, place + 0.36, color=INK, linewidth=1.4)
        panel.set_title(COMPARED_MEASURES[measure], fontsize=9)
        panel.set_ylim(0, 1)
        panel.set_xlim(-0.6, len(names) - 0.4)
        panel.tick_params(labelsize=8)
        panel.grid(axis="y", color=FAINT, linewidth=0.7)
        panel.set_axisbelow(True)
    panels[-1][0].set_xticks(range(len(names)), [comparison.title(name) for name in names], fontsize=8)
    return figure, {f"seed {seed}": (colours[seed], "dot") for seed in seeds} if few else {}


def pair_groups(comparison: Comparison) -> list[ForestGroup]:
    """Return the compared pairs of the table: variants less SFT, and ``all`` less each single method."""
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for first, second in comparison.pairs():
        against_sft = second == "sft"
        heading = f"less {comparison.title(second)}" if against_sft else f"{comparison.title(first)}, less"
        label = comparison.title(first if against_sft else second)
        groups.setdefault(heading, []).append((label, first, second))
    return [ForestGroup(heading, rows) for heading, rows in groups.items()]


def ablation_groups(comparison: Comparison) -> list[ForestGroup]:
    """Return each ablation less the variant that it changes, where both are there."""
    return [
        ForestGroup(f"less {comparison.title(parent)}", [(comparison.title(name), name, parent) for name in names])
        for parent, names in comparison.ablations.items()
        if parent in comparison.variants
    ]


def forest_figure(comparison: Comparison, groups: Sequence[ForestGroup]) -> tuple[Figure, Legend]:
    """Draw differences with their intervals: a panel per measure, a row per pair; open dots have an interval with 0."""
    lines: list[tuple[str, tuple[str, str] | None]] = []
    for group in groups:
        lines.append((group.heading, None))
        lines += [(label, (first, second)) for label, first, second in group.rows]
    columns = 5
    rows = -(-len(COMPARED_MEASURES) // columns)
    figure, panels = _grid(rows, columns, width=2.0, height=0.5 + 0.19 * len(lines), sharey=True)
    flat = [panel for row in panels for panel in row]
    for panel in flat[len(COMPARED_MEASURES) :]:
        panel.set_axis_off()
    for panel, (measure, title) in zip(flat, COMPARED_MEASURES.items(), strict=False):
        _draw_forest(panel, comparison, measure, lines)
        panel.set_title(title, fontsize=9)
    for row in panels:
        row[0].set_yticks(range(len(lines)), [label for label, _ in lines], fontsize=8)
        for text, (_, pair) in zip(row[0].get_yticklabels(), lines, strict=True):
            text.set_fontweight("normal" if pair else "bold")
    flat[0].set_ylim(len(lines) - 0.4, -0.6)
    colour = OUTCOME_COLOURS["refused"]
    return figure, {"interval without 0": (colour, "dot"), "interval with 0": (colour, "ring")}


def _draw_forest(
    panel: Any, comparison: Comparison, measure: str, lines: Sequence[tuple[str, tuple[str, str] | None]]
) -> None:
    reach = 0.05
    for place, (_, pair) in enumerate(lines):
        difference = comparison.difference(*pair, measure) if pair else None
        if difference is None:
            continue
        width = 0.0 if math.isnan(difference.half_width) else difference.half_width
        low, high = max(difference.mean - width, -1.0), min(difference.mean + width, 1.0)
        reach = max(reach, abs(low), abs(high))
        colour = OUTCOME_COLOURS["refused"]
        panel.hlines(place, low, high, color=colour, linewidth=1.4)
        with_zero = abs(difference.mean) <= width
        panel.plot(difference.mean, place, "o", color=colour, mfc="white" if with_zero else colour, markersize=4.5)
    panel.axvline(0, color=INK, linewidth=0.8, zorder=1)
    panel.set_xlim(-1.08 * reach, 1.08 * reach)
    panel.tick_params(axis="x", labelsize=7)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color=FAINT, linewidth=0.7)
    panel.set_axisbelow(True)
    panel.locator_params(axis="x", nbins=5)


def refusals_figure(comparison: Comparison, names: Sequence[str]) -> tuple[Figure, Legend]:
    """Draw histograms of where refusals start, a row per variant and a column per attack family."""
    figure, panels = _grid(len(names), len(ATTACKS), width=2.1, height=0.8, sharex=True, sharey=True)
    bins = range(0, LONGEST_RESPONSE_TOKENS + BIN_TOKENS, BIN_TOKENS)
    for panel, title in zip(panels[0], ATTACKS.values(), strict=True):
        panel.set_title(title, fontsize=9)
    for row, name in zip(panels, names, strict=True):
        records = [record for (_, variant), record in comparison.records.items() if variant == name]
        for panel, attack in zip(row, ATTACKS, strict=True):
            asked = sum(record["columns"][attack]["all"]["count"] for record in records)
            found = [
                [position for record in records for position in record["refusal_positions"][attack][place]]
                for place in PLACE_COLOURS
            ]
            weights = [[1 / asked] * len(positions) for positions in found]
            panel.hist(found, bins=bins, weights=weights, stacked=True, color=list(PLACE_COLOURS.values()))
            panel.set_ylim(0, 1)
            panel.set_yticks([0, 1])
            panel.tick_params(labelsize=7)
        row[0].set_ylabel(comparison.title(name), fontsize=8, rotation=0, ha="right", va="center")
    return figure, {PLACE_TITLES[place]: (colour, "patch") for place, colour in PLACE_COLOURS.items()}


def losses_figure(comparison: Comparison, names: Sequence[str]) -> tuple[Figure, Legend]:
    """Draw each part of the objective over the steps, a panel per variant, all on one logarithmic scale."""
    columns = min(4, len(names))
    figure, panels = _grid(-(-len(names) // columns), columns, width=3.0, height=1.8, sharey=True)
    flat = [panel for row in panels for panel in row]
    shown: set[str] = set()
    for panel in flat[len(names) :]:
        panel.set_axis_off()
    for panel, name in zip(flat, names, strict=False):
        for part, points in _curves(comparison, name).items():
            steps = sorted(points)
            means = [sum(points[step]) / len(points[step]) for step in steps]
            panel.plot(steps, means, color=LOSS_COLOURS[part], linewidth=1.2)
            shown.add(part)
        panel.set_title(comparison.title(name), fontsize=9)
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.tick_params(which="both", labelsize=7)
        panel.grid(color=FAINT, linewidth=0.7)
    legend = {
        part.removeprefix("loss_").replace("_", " "): (colour, "line")
        for part, colour in LOSS_COLOURS.items()
        if part in shown
    }
    return figure, legend


def _curves(comparison: Comparison, name: str) -> dict[str, dict[int, list[float]]]:
    """Return, for each part of the objective, its values at each step; plain SFT logs one loss, its own."""
    curves: dict[str, dict[int, list[float]]] = {}
    for (_, variant), record in comparison.records.items():
        for entry in record["training"]["losses"] if variant == name else ():
            parts = {part: entry[part] for part in LOSS_COLOURS if part in entry} or {"loss_sft": entry["loss"]}
            for part, value in parts.items():
                curves.setdefault(part, {}).setdefault(entry["step"], []).append(value)
    return curves


def _means(comparison: Comparison, measure: str) -> list[float]:
    found = [comparison.summary(name, measure) for name in comparison.main]
    return [summary.mean if summary else 0.0 for summary in found]


def _grid(rows: int, columns: int, *, width: float, height: float, **kwargs: Any) -> tuple[Figure, Any]:
    """Return a figure with panels of about the given size in inches, and the panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    inches = (max(width * columns + 1.2, NARROWEST_INCHES), height * rows + 0.4)
    figure = Figure(figsize=inches, layout="constrained", dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def _png(figure: Figure, title: str, legend: Legend) -> bytes:
    """Add room for title and legend above, and for the caution below; nothing of it overlaps the panels."""
    width, panels_height = figure.get_size_inches()
    per_line = max(1, int(width // LEGEND_ENTRY_INCHES))
    head = TITLE_INCHES + LINE_INCHES * -(-len(legend) // per_line)
    height = panels_height + head + FOOT_INCHES
    figure.set_size_inches(width, height)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, FOOT_INCHES / height, 1, panels_height / height), w_pad=0.06, h_pad=0.06)
    figure.text(0.1 / width, 1 - 0.08 / height, title, fontsize=11, va="top", color=INK)
    figure.text(0.1 / width, 0.07 / height, CAUTION, fontsize=7, va="bottom", color="#555555")
    if legend:
        figure.legend(
            [_mark(colour, kind) for colour, kind in legend.values()], list(legend), ncols=min(per_line, len(legend)),
            loc="upper left", bbox_to_anchor=(0, 1 - (TITLE_INCHES - 0.08) / height), fontsize=8, frameon=False,
            borderpad=0.2,
        )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _mark(colour: str, kind: str) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if kind == "patch":
        return Patch(color=colour)
    if kind == "line":
        return Line2D([], [], color=colour)
    return Line2D([], [], color=colour, linestyle="", marker="o", mfc="white" if kind == "ring" else colour)
