"""Commands of ``safekey``; each imports what it needs when it runs."""

from __future__ import annotations

import click

import safekey_peft
from safekey_peft.lab.__main__ import main as demo


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(safekey_peft.__version__, prog_name="safekey")
def main() -> None:
    """Safety losses (SafeKey, DeRTa) for PEFT tuning of reasoning models."""


@main.command()
def flags() -> None:
    """List the YAML flags with defaults and meaning."""
    from rich.console import Console
    from rich.table import Table

    from safekey_peft.config import FLAG_PREFIX, SafeKeyConfig

    table = Table("flag", "default", "meaning")
    for name, field in SafeKeyConfig.model_fields.items():
        default = field.default
        shown = str(default).lower() if isinstance(default, bool) or default is None else str(default)
        table.add_row(FLAG_PREFIX + name, shown.replace("none", "null"), field.description or "")
    Console().print(table)


main.add_command(demo, "demo")
