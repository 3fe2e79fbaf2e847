"""The group ``safekey``: names its commands, imports one when it runs, and turns errors of ours into one line."""

from __future__ import annotations

import importlib
from typing import Any

import click

import safekey_peft
from safekey_peft.errors import SafeKeyError

COMMANDS = {
    "init": ("safekey_peft.cli.init", "Write a commented starter configuration for a model and a GPU."),
    "convert": ("safekey_peft.cli.convert", "Turn published sets into canonical rows; remove duplicates and leaks."),
    "annotate": ("safekey_peft.cli.annotate", "Mark understanding and key sentence in any data set."),
    "inspect": ("safekey_peft.cli.inspect", "Show what will be trained, in the terminal or as an HTML page."),
    "doctor": ("safekey_peft.cli.doctor", "Check a configuration and its data before training."),
    "flags": ("safekey_peft.cli.flags", "List the YAML flags with defaults and meaning."),
    "schema": ("safekey_peft.cli.schema", "Print the JSON Schema of the YAML flags, for editors."),
    "demo": ("safekey_peft.lab.__main__", "Compare base, SFT, SafeKey, DeRTa and all four losses in the potion world."),
    "lab": ("safekey_peft.cli.lab", "Measure what each loss does: seeds × variants × attacks in the potion world."),
}
"""Name → (module whose ``main`` is the command, line for the list), in the order of use."""


class CommandGroup(click.Group):
    """Lists commands without importing them: ``safekey --help`` has to be instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).main
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name a command as the user typed it, whatever its function is called."""
        _, command, rest = super().resolve_command(ctx, args)
        return args[0], command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run; what a user can mend ends in one line and exit code 1, without a traceback."""
        try:
            return super().invoke(ctx)
        except SafeKeyError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(safekey_peft.__version__, prog_name="safekey")
def main() -> None:
    """Safety losses (SafeKey, DeRTa) for PEFT tuning of reasoning models."""
