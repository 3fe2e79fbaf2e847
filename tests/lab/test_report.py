from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from safekey_peft.lab import report
from safekey_peft.lab.caution import CAUTION, shortcut_sentence
from safekey_peft.lab.report import print_report, write_report
from tests.lab.canned import canned, records, with_ablations

PLOTTED = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")


def text_of(found: list[dict], width: int = 400) -> str:
    console = Console(width=width, file=io.StringIO())
    print_report(found, console)
    return console.file.getvalue()


def test_terminal_shows_all_outcomes_and_says_what_it_is_no_evidence_of() -> None:
    text = text_of(records())
    assert CAUTION in text and "shortcut" in text
    assert re.search(r"SFT +│ +0.74±0.01 │ +0.26±0.01 │ +0.00±0.00 │ +0.74±0.01", text)
    assert "-0.70 3/3" in text
    assert "0.90±0.00" in text  # the head's area


def test_terminal_holds_all_against_the_best_single_method() -> None:
    assert re.search(r"late reveal +│ RTO +│ +0.09 │ +0.04 │ +-0.05 ± 0.00 │ +not worse", text_of(records()))
    without = [record for record in records() if record["variant"] != "rto"]
    assert "best single method" not in text_of(without)


def test_terminal_fits_a_hundred_columns() -> None:
    text = text_of(with_ablations(), width=100)
    assert "…" not in text and max(map(len, text.splitlines())) <= 100


def test_ablations_have_tables_of_their_own() -> None:
    text = text_of(with_ablations())
    attacks, _, ablations = text.partition("Ablations, success of attacks")
    assert "RTO, keep 0.5" not in attacks
    assert re.search(r"RTO, keep 0.5 +│ RTO +│ +\+0.09 0/3", ablations)


def test_mixed_code_and_missing_cells_are_told() -> None:
    found = [*records(), canned(3, "sft", 0.7, code="other")]
    text = text_of(found)
    assert "different versions of the code" in text and "Not every variant has a result for seeds 3." in text
    assert "WARNING" not in text_of(records())


def test_one_seed_is_said_to_be_one() -> None:
    assert "One seed: there are no deviations and no intervals" in text_of(records(1))
    assert "One seed" not in text_of(records()) and "one seed: open" in text_of(records(1))


def test_number_of_harmless_wrapped_rows_is_said() -> None:
    assert "37 harmless rows" in shortcut_sentence(37)
    assert "no harmless rows" in shortcut_sentence(0)


def test_page_is_self_contained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "find_spec", lambda _name: None)
    found = [canned(0, "<script>alert(1)</script>", 0.5), *records()]
    page = write_report(found, tmp_path / "report.html", ("A <note>.",)).read_text()
    assert page.count(CAUTION) == 2 and "0.74±0.01" in page and "pip install" in page
    assert "-0.70 [-0.70, -0.70] (3/3)" in page and "not worse" in page and "A &lt;note&gt;." in page
    assert "&lt;script&gt;" in page and not re.search(r"https?://|<script|<link|src=", page)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_page_has_every_seed_and_the_ablations_with_what_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda _name: None)
    page = write_report(with_ablations(), tmp_path / "report.html").read_text()
    assert "<td" in page and '<td class="left">2</td><td>0.98</td><td>0.73</td><td>0.08</td><td>0.03</td>' in page
    rto, keep = page.index('<td class="left">RTO</td><td>'), page.index('<td class="left">– RTO, keep 0.5</td>')
    assert rto < keep
    # 0.2, 0.18, 0.16 less 0.1, 0.09, 0.08: 0.09 ± 4.303 · 0.01/√3
    assert "+0.09 [+0.07, +0.11] (0/3)" in page


@PLOTTED
def test_page_holds_its_plots_and_they_stand_beside_it(tmp_path: Path) -> None:
    page = write_report(with_ablations(), tmp_path / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 6 and not re.search(r"https?://|<script|<link", page)
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    names = ("ablations", "differences", "losses", "outcomes", "refusals", "seeds")
    assert pictures == [f"report-{name}.png" for name in names]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))


@PLOTTED
def test_one_seed_has_no_plots_of_seeds_and_intervals(tmp_path: Path) -> None:
    write_report(with_ablations(1), tmp_path / "report.html")
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == [
        "report-losses", "report-outcomes", "report-refusals",
    ]  # fmt: skip
