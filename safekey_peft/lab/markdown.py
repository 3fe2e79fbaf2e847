"""The results as a Markdown file that can be committed: how to get them again, then every table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safekey_peft.lab import tables
from safekey_peft.lab.caution import CAUTION
from safekey_peft.lab.results import Record
from safekey_peft.lab.statistics import Comparison
from safekey_peft.lab.tables import TextTable


def write_markdown(records: Sequence[Record], path: Path, command: str) -> Path:
    """Write the file; its folder is made where it is missing.

    Args:
        records: one for each seed and variant.
        path: the file.
        command: what runs these cells.

    Returns: the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(markdown(records, command), encoding="utf-8")
    partial.replace(path)
    return path


def markdown(records: Sequence[Record], command: str) -> str:
    """Return the whole text; it names neither a path nor a machine."""
    comparison = Comparison(records)
    parts = [
        "# Potion world: what each loss does",
        f"**{CAUTION}**",
        f"`{command}`",
        "\n".join(f"- {fact}" for fact in facts(comparison)),
        *tables.notes(comparison),
        *_section(tables.outcome_table(comparison)),
        *_section(tables.other_table(comparison)),
        *_section(tables.verdict_table(comparison)),
        *(part for content in tables.difference_tables(comparison) for part in _section(content)),
        *_section(tables.ablation_value_table(comparison)),
        *(part for content in tables.ablation_difference_tables(comparison) for part in _section(content)),
        "## Every seed",
        *(part for content in tables.per_seed_tables(comparison) for part in _section(content, "###")),
        f"**{CAUTION}**",
    ]
    return "\n\n".join(parts) + "\n"


def facts(comparison: Comparison) -> list[str]:
    """Return seeds, machine, time, versions and code, one line each."""
    records = list(comparison.records.values())
    versions = [", ".join(f"{name} {number}" for name, number in record["versions"].items()) for record in records]
    return [
        f"{tables.seeds_phrase(comparison).capitalize()}; {len(comparison.variants)} variants, {len(records)} cells.",
        f"Machine: {_each(_machine(record) for record in records)}.",
        f"Time: {time_spent(records)}.",
        f"Versions: {_each(versions)}.",
        f"Code: {_each(record['code'] for record in records)}.",
    ]


def time_spent(records: Sequence[Record]) -> str:
    """Return how long the cells took, and how long whoever waited for them waited, where that was recorded.

    A run that was stopped and went on counts up to its last finished cell, without the pause.
    """
    seconds = [record["seconds"] for record in records]
    cells = sum(of["base"] + of["train"] + of["measure"] for of in seconds)
    text = f"{cells / 60:.0f} minutes of tuning and attacks, summed over the cells"
    if not all("run" in of for of in seconds):
        return f"{text}; the bases and the time on the clock were not recorded"
    runs: dict[float, float] = {}
    for of in seconds:
        runs[of["run_started"]] = max(of["run"], runs.get(of["run_started"], 0.0))
    jobs = max(of["jobs"] for of in seconds)
    return f"{sum(runs.values()) / 60:.0f} minutes on the clock with {jobs} processes, bases included; {text}"


def _machine(record: Record) -> str:
    machine: Mapping[str, Any] | None = record.get("machine")
    return f"{machine['cpu']}, {machine['cores']} cores" if machine else "not recorded"


def _each(texts: Any) -> str:
    return "; ".join(dict.fromkeys(texts))


def _section(content: TextTable, level: str = "##") -> list[str]:
    if not content.rows:
        return []
    reading = [content.reading] if content.reading else []
    return [f"{level} {content.title}", *map(_escape, reading), markdown_table(content)]


def markdown_table(content: TextTable) -> str:
    """Return a table in the pipe syntax of GitHub."""
    rule = ["---"] * content.left + ["---:"] * (len(content.headings) - content.left)
    lines = [content.headings, rule, *content.rows]
    return "\n".join(f"| {' | '.join(map(_escape, line))} |" for line in lines)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
