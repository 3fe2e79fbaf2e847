"""What the plots draw, read from matplotlib's objects."""

from __future__ import annotations

import pytest

from safekey_peft.lab.statistics import ATTACKS, COMPARED_MEASURES, Comparison
from tests.lab.canned import canned, records, with_ablations

pytest.importorskip("matplotlib")

from safekey_peft.lab import plots  # noqa: E402


def labels(panel) -> list[str]:
    return [text.get_text() for text in panel.get_yticklabels()]


def test_outcomes_are_stacked_to_one_for_each_variant_of_the_table() -> None:
    figure, legend = plots.outcomes_figure(Comparison(with_ablations()))
    assert [panel.get_title() for panel in figure.axes] == list(ATTACKS.values())
    assert labels(figure.axes[0]) == ["base", "SFT", "RTO", "all"]
    bars = [bar for container in figure.axes[2].containers for bar in container]
    ends = [max(bar.get_x() + bar.get_width() for bar in bars[index::4]) for index in range(4)]
    assert ends == pytest.approx([1.0] * 4) and bars[1].get_width() == pytest.approx(0.74)
    leaks = figure.axes[2].lines[0].get_xdata()
    assert leaks[1] == pytest.approx(0.74) and list(legend) == ["success", "refused", "garbled", "leak"]


def test_every_seed_has_a_dot_in_every_variant() -> None:
    figure, legend = plots.seeds_figure(Comparison(records()))
    dots = [line.get_ydata()[0] for line in figure.axes[0].lines]
    assert sorted(dots) == pytest.approx(sorted(s - 0.01 * n for s in (1.0, 0.75, 0.1, 0.05) for n in range(3)))
    assert list(legend) == ["seed 0", "seed 1", "seed 2"]
    many = Comparison([canned(seed, "sft", 0.5) for seed in range(12)])
    assert plots.seeds_figure(many)[1] == {}  # more seeds than colours


def test_differences_stand_under_what_they_are_taken_from() -> None:
    comparison = Comparison(records())
    figure, _ = plots.forest_figure(comparison, plots.pair_groups(comparison))
    assert [panel.get_title() for panel in figure.axes[: len(COMPARED_MEASURES)]] == list(COMPARED_MEASURES.values())
    assert labels(figure.axes[0]) == ["less SFT", "RTO", "all", "all, less", "RTO"]
    late = figure.axes[list(COMPARED_MEASURES).index("late_reveal.success")]
    points = [(line.get_ydata()[0], line.get_xdata()[0]) for line in late.lines if line.get_marker() == "o"]
    assert points == [(1, pytest.approx(-0.65)), (2, pytest.approx(-0.7)), (4, pytest.approx(-0.05))]


def test_an_interval_with_zero_has_an_open_dot() -> None:
    values = {"sft": [0.5, 0.5, 0.5], "rto": [0.1, 0.2, 0.15], "all": [0.3, 0.9, 0.45]}
    comparison = Comparison([canned(seed, name, of) for name, every in values.items() for seed, of in enumerate(every)])
    figure, _ = plots.forest_figure(comparison, plots.pair_groups(comparison))
    fills = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [fill == "white" for fill in fills] == [False, True, True]


def test_ablations_are_grouped_by_what_they_change() -> None:
    groups = plots.ablation_groups(Comparison(with_ablations()))
    assert [group.heading for group in groups] == ["less SFT", "less RTO", "less all"]


def test_refusals_are_shares_of_what_was_asked() -> None:
    comparison = Comparison(records(2))
    figure, legend = plots.refusals_figure(comparison, ["sft", "rto"])
    heights = [bar.get_height() for container in figure.axes[0].containers for bar in container]
    # two of four responses at token 3, one at 9
    assert sorted(height for height in heights if height) == pytest.approx([0.25, 0.5])
    assert list(legend) == ["before </think>", "after </think>"] and len(figure.axes) == 2 * len(ATTACKS)


def test_loss_of_plain_sft_is_drawn_as_its_own() -> None:
    record = canned(0, "sft", 0.5)
    record["training"]["losses"] = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}]
    figure, legend = plots.losses_figure(Comparison([record]), ["sft"])
    assert list(figure.axes[0].lines[0].get_ydata()) == [2.0, 1.0] and list(legend) == ["sft"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_title_legend_and_caution_lie_outside_the_panels(seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    original = plots._png
    monkeypatch.setattr(plots, "_png", lambda figure, *rest: (kept.append(figure), original(figure, *rest))[1])
    plots.draw_plots(Comparison(with_ablations(seeds)))
    assert len(kept) == (6 if seeds > 1 else 3)
    for figure in kept:
        renderer = figure.canvas.get_renderer()
        panels = [panel.get_tightbbox(renderer) for panel in figure.axes if panel.axison]
        outside = [text.get_window_extent(renderer) for text in figure.texts]
        outside += [legend.get_window_extent(renderer) for legend in figure.legends]
        assert len(outside) >= 2
        for box in outside:
            assert not any(box.overlaps(panel) for panel in panels)
            assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height
        for index, box in enumerate(outside):
            assert not any(box.overlaps(other) for other in outside[index + 1 :])
