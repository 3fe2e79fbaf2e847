"""What the results say: tables in the terminal, and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from safekey_peft.lab import tables
from safekey_peft.lab.caution import CAUTION
from safekey_peft.lab.results import Record
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
from safekey_peft.lab.tables import TextTable

NO_PLOTS = "No plots: they need matplotlib, pip install 'safekey-peft[lab]'."
HARMLESS = ("over_refusal", "capability", "relative_capability")
KEY_AND_HEAD = tuple(measure for measure in OTHER_MEASURES if measure not in HARMLESS)

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem; color: #1d232a;
  background: #fff; }
h2 { margin-top: 2.2rem; } summary { cursor: pointer; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .2rem .55rem; border-bottom: 1px solid #d8dde3; text-align: right; white-space: nowrap; }
th { vertical-align: bottom; } th.wrap { white-space: normal; min-width: 5rem; }
th.left, td.left { text-align: left; }
tr.group td { border-top: 1px solid #8b96a2; }
.wide { overflow-x: auto; }
.caution { border-left: 4px solid #b3541e; background: #fdf4ee; padding: .6rem 1rem; font-weight: 600; }
img { max-width: 100%; }
@media (prefers-color-scheme: dark) {
  body { background: #14181d; color: #dfe5ec; } th, td { border-color: #333b45; } .caution { background: #2a1e16; }
  img { background: #fff; border-radius: 6px; }
}
"""


def print_report(records: Sequence[Record], console: Console) -> None:
    """Print the tables in a width that fits a terminal; intervals and ablations' values are left to the page."""
    comparison = Comparison(records)
    verdicts = tables.verdict_table(comparison)
    shown = [attack_table(comparison), *other_tables(comparison)]
    shown += [_terminal_table(verdicts)] if verdicts.rows else []
    shown += [*difference_tables(comparison), *ablation_tables(comparison)]
    for table in shown:
        console.print(table)
    for sentence in (tables.OUTCOME_READING, *tables.notes(comparison)):
        console.print(sentence)
    if verdicts.rows:
        console.print(tables.VERDICT_READING)
    console.print(f"[bold]{CAUTION}[/bold]")


def attack_table(comparison: Comparison) -> Table:
    """Return all outcomes: a section per attack family, a row per variant of the table."""
    table = _table(f"Attacks, {tables.seeds_phrase(comparison)}", ("attack", "variant"), OUTCOMES)
    for attack, title in ATTACKS.items():
        for index, name in enumerate(comparison.main):
            cells = [tables.cell(comparison, name, f"{attack}.{outcome}") for outcome in OUTCOMES]
            table.add_row(title if index == 0 else "", comparison.title(name), *cells)
        table.add_section()
    return table


def other_tables(comparison: Comparison) -> list[Table]:
    """Return what is no attack: a row per variant of the table."""
    found = []
    for title, chosen in (("Key sentence and head", KEY_AND_HEAD), ("Over-refusal and capability", HARMLESS)):
        table = _table(title, ("variant",), [OTHER_MEASURES[measure] for measure in chosen])
        for name in comparison.main:
            table.add_row(comparison.title(name), *(tables.cell(comparison, name, measure) for measure in chosen))
        found.append(table)
    return found


def difference_tables(comparison: Comparison) -> list[Table]:
    """Return the mean differences; none where nothing can be compared."""
    return _in_two(comparison, "Differences", comparison.pairs())


def ablation_tables(comparison: Comparison) -> list[Table]:
    """Return each ablation's mean difference from the variant that it changes."""
    return _in_two(comparison, "Ablations", comparison.ablation_pairs())


def _in_two(comparison: Comparison, heading: str, pairs: Sequence[tuple[str, str]]) -> list[Table]:
    found = []
    for kind, chosen in (("success of attacks", COMPARED_ATTACKS), ("the rest", COMPARED_OTHERS)):
        headings = [COMPARED_MEASURES[measure].removesuffix(", success") for measure in chosen]
        title = f"{heading}, {kind}: mean, and seeds in which the first is lower"
        table = _table(title, ("variant", "less"), headings)
        for first, second in pairs:
            differences = [comparison.difference(first, second, measure) for measure in chosen]
            table.add_row(comparison.title(first), comparison.title(second), *map(_short, differences))
        found.append(table)
    return found if pairs else []


def _short(difference: Difference | None) -> str:
    return "–" if difference is None else f"{difference.mean:+.2f} {difference.lower}/{difference.count}"


def _table(title: str, left: Iterable[str], right: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in left:
        table.add_column(heading)
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def _terminal_table(content: TextTable) -> Table:
    table = _table(content.title, content.headings[: content.left], content.headings[content.left :])
    for row in content.rows:
        table.add_row(*row)
    return table


def write_report(records: Sequence[Record], path: Path, notes: Sequence[str] = ()) -> Path:
    """Write the page, which loads nothing, and each plot as a PNG beside it.

    Args:
        records: one for each seed and variant.
        path: the page; plots are named after it.
        notes: further sentences to stand above the tables.

    Returns: the page's path.
    """
    comparison = Comparison(records)
    parts = [
        f"<h1>Potion world, {tables.seeds_phrase(comparison)}</h1>",
        _paragraph(CAUTION, "caution"),
        *(_paragraph(sentence) for sentence in (*notes, *tables.notes(comparison))),
        *_sections(tables.outcome_table(comparison), tables.other_table(comparison), tables.verdict_table(comparison)),
        *_sections(*tables.difference_tables(comparison)),
        *_pictures(comparison, path),
        *_sections(tables.ablation_value_table(comparison), *tables.ablation_difference_tables(comparison)),
        *_folded("Every seed", [tables.PER_SEED_READING], tables.per_seed_tables(comparison)),
        *_folded("Cells", [], [tables.cell_table(comparison)]),
        _paragraph(CAUTION, "caution"),
    ]
    body = "\n".join(parts)
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Potion world</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path


def _pictures(comparison: Comparison, path: Path) -> list[str]:
    """Draw the plots, write them beside the page, and return the page's parts."""
    if find_spec("matplotlib") is None:
        return [_paragraph(NO_PLOTS)]
    from safekey_peft.lab.plots import draw_plots

    parts = []
    for title, png in draw_plots(comparison):
        name = f"{path.stem}-{title.split(':')[0].lower().replace(' ', '-')}.png"
        path.with_name(name).write_bytes(png)
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        parts.append(f'<h2>{html.escape(title)}</h2>\n<img alt="{html.escape(title)}" src="{source}">')
    return parts


def _sections(*contents: TextTable) -> list[str]:
    parts = []
    for content in contents:
        if content.rows:
            parts.append(f"<h2>{html.escape(content.title)}</h2>")
            parts += [_paragraph(content.reading)] if content.reading else []
            parts.append(_html_table(content))
    return parts


def _folded(title: str, sentences: Iterable[str], contents: Sequence[TextTable]) -> list[str]:
    parts = [f"<h2>{html.escape(title)}</h2>", *map(_paragraph, sentences), "<details><summary>Show</summary>"]
    for content in contents:
        parts += [f"<h3>{html.escape(content.title)}</h3>"] if len(contents) > 1 else []
        parts.append(_html_table(content))
    return [*parts, "</details>"]


def _html_table(content: TextTable) -> str:
    grouped = any(not cells[0] for cells in content.rows)

    def row(cells: Sequence[str], tag: str) -> str:
        found = []
        for index, text in enumerate(cells):
            classes = [*(["left"] if index < content.left else []), *(["wrap"] if tag == "th" else [])]
            style = f' class="{" ".join(classes)}"' if classes else ""
            found.append(f"<{tag}{style}>{html.escape(text)}</{tag}>")
        style = ' class="group"' if grouped and cells[0] else ""
        return f"<tr{style}>{''.join(found)}</tr>"

    body = "\n".join(row(cells, "td") for cells in content.rows)
    head = row(content.headings, "th")
    return f'<div class="wide"><table><thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _paragraph(text: str, style: str = "") -> str:
    return f'<p class="{style}">{html.escape(text)}</p>' if style else f"<p>{html.escape(text)}</p>"
