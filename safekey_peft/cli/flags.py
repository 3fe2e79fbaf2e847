"""``safekey flags``: the table of YAML flags."""

from __future__ import annotations

import click


@click.command()
def main() -> None:
    """List the YAML flags with defaults and meaning, and what each preset sets."""
    from rich.console import Console
    from rich.table import Table

    from safekey_peft.config import FLAG_PREFIX, PRESETS, SafeKeyConfig, yaml_text

    table = Table("flag", "default", "meaning")
    for name, field in SafeKeyConfig.model_fields.items():
        table.add_row(FLAG_PREFIX + name, yaml_text(field.default), field.description or "")
    presets = Table(f"{FLAG_PREFIX}preset sets, where not set", *PRESETS)
    for name in SafeKeyConfig.model_fields:
        values = [yaml_text(preset[name]) if name in preset else "" for preset in PRESETS.values()]
        if any(values):
            presets.add_row(FLAG_PREFIX + name, *values)
    console = Console()
    console.print(table)
    console.print(presets)
