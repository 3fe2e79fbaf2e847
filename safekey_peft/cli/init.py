"""``safekey init MODEL --gpu 24GB``: a commented starter configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from safekey_peft.data.sources import RowSource
    from safekey_peft.starter.rows import DataSummary

_GROUPS = {
    "all": ("dual_path", "query_mask", "harmful_prefix", "rto"),
    "safekey": ("dual_path", "query_mask"),
    "derta": ("harmful_prefix", "rto"),
    "sft": (),
}


@click.command()
@click.argument("model")
@click.option("--gpu", required=True, help="Memory or name of one GPU: 24GB, 80GB, RTX4090, A100, H100; or cpu.")
@click.option("--data", help="Rows: a file, a folder or a Hub id. They are read to choose losses and lengths.")
@click.option(
    "--losses", help="all, safekey, derta, sft, or names with commas, e.g. query_mask,rto. Default: what the rows feed."
)
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), default="config.yaml", show_default=True,
    help="File to write.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite the file.")
def main(model: str, gpu: str, data: str | None, losses: str | None, output: Path, force: bool) -> None:
    """Write a starter configuration for MODEL, a Hub id or a folder.

    Adapter, lengths and batches are chosen by an estimate of memory, which stands in the file. Nothing but the
    model's configuration is fetched.
    """
    from safekey_peft.cli.silence import silenced
    from safekey_peft.errors import ConfigError
    from safekey_peft.starter.hardware import parse_hardware

    if output.exists() and not force:
        raise ConfigError(f"{output}: exists already. Choose another --output, or overwrite it with --force")
    hardware = parse_hardware(gpu)
    asked = None if losses is None else _losses(losses)
    with silenced():
        from safekey_peft.starter.configuration import Starter, wanted_tokens
        from safekey_peft.starter.memory import choose, read_sizes

        sizes, sizes_from = read_sizes(model)
    source, summary = _read(data) if data is not None else (None, None)
    reasons = summary.losses() if summary is not None else dict.fromkeys(_GROUPS["all"], "needs rows that feed it")
    chosen = tuple(loss for loss, reason in reasons.items() if not reason.startswith("off"))
    if asked is not None:
        chosen = asked
        reasons = {loss: reason if summary is not None else "as asked for" for loss, reason in reasons.items()}
        reasons = {k: v.removeprefix("off: ") if k in asked else "not asked for" for k, v in reasons.items()}
        starved = [loss for loss in asked if summary is not None and not summary.feeds[loss]]
        if starved:
            fed = ",".join(loss for loss in asked if loss not in starved)
            raise ConfigError(
                f"--losses: no row of {data} feeds {' or '.join(starved)}. Leave out {' and '.join(starved)}"
                f"{f' (--losses {fed})' if fed else ''}, or add rows (README, Data)"
            )
    plan = choose(sizes, hardware, wanted_tokens(summary, hardware))
    starter = Starter(model, hardware, plan, sizes_from, chosen, reasons, source, summary, output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(starter.text(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written: {error.strerror}. Choose another --output") from error
    _tell(starter)


def _losses(text: str) -> tuple[str, ...]:
    from safekey_peft.errors import ConfigError

    names = [name.strip().removeprefix("safekey_") for name in text.split(",") if name.strip()]
    chosen: set[str] = set()
    for name in names:
        if name not in _GROUPS and name not in _GROUPS["all"]:
            known = ", ".join((*_GROUPS, *_GROUPS["all"]))
            raise ConfigError(f"--losses {name!r:.40}: expected some of {known}. Choose among these")
        chosen |= set(_GROUPS.get(name, (name,)))
    return tuple(loss for loss in _GROUPS["all"] if loss in chosen)


def _read(data: str) -> tuple[RowSource, DataSummary]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from safekey_peft.data.sources import open_source
    from safekey_peft.starter.rows import summarise

    source = open_source(data)
    console = Console(stderr=True)
    columns = (TextColumn("Reading rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("rows", total=source.count())
        return source, summarise(source, lambda: progress.advance(task))


def _tell(starter: object) -> None:
    from rich.console import Console
    from rich.markup import escape

    from safekey_peft.starter.configuration import PLACEHOLDER, Starter, covering_preset

    assert isinstance(starter, Starter)
    console = Console(highlight=False, soft_wrap=True)
    plan, name = starter.plan, escape(str(starter.output))
    console.print(f"[bold]{name}[/bold] written for {escape(starter.model)} on {starter.hardware.name}.")
    for loss, reason in starter.reasons.items():
        mark = "[green]on [/green]" if loss in starter.losses else "[dim]off[/dim]"
        console.print(f"  {mark} safekey_{loss}: {escape(reason.removeprefix('off: '))}")
    if starter.losses:
        console.print(f"  weights and schedule of safekey_preset: {covering_preset(starter.losses)}")
    base = "LoRA" if starter.hardware.is_cpu else "LoRA on a 16-bit base"
    kind = base if plan.adapter == "lora" else "QLoRA on a 4-bit base"
    memory = "" if starter.hardware.is_cpu else f", about {plan.total_gib:.0f} GiB (estimated)"
    console.print(f"  {kind}, rank {plan.rank}, {plan.sequence_len} tokens{memory}")
    if not plan.fits:
        console.print("[yellow]  By this estimate it does not fit: take a smaller model or a larger GPU.[/yellow]")
    console.print("Next:")
    if starter.source is None:
        console.print(f"  write your rows to {PLACEHOLDER}, or name them under datasets:")
    console.print(f"  safekey doctor {name}    # everything that can be known before training")
    console.print(f"  safekey inspect {name}   # what will be trained, row by row")
    console.print(f"  axolotl train {name}")
