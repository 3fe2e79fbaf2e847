"""``safekey inspect``: what will be trained, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from safekey_peft.config import SafeKeyConfig
    from safekey_peft.data.encoder import SafeKeyExampleEncoder
    from safekey_peft.inspection.selection import Chosen
    from safekey_peft.inspection.survey import InspectedSet, Survey

LOSSES = ("dual_path", "query_mask", "harmful_prefix", "rto")


@click.command()
@click.argument("address", metavar="CONFIG_OR_FILE")
@click.option("--tokenizer", metavar="NAME_OR_FOLDER", help="For a file: encode its rows with this tokenizer.")
@click.option(
    "--losses",
    metavar="LIST",
    default=",".join(LOSSES),
    show_default=True,
    help="For a file: the losses to show, with commas; none: plain SFT.",
)
@click.option(
    "--sequence-len", type=click.IntRange(min=2), help="For a file: longest example in tokens; longer: dropped."
)
@click.option(
    "--annotation",
    type=click.Choice(["given", "rule"]),
    default="given",
    show_default=True,
    help="For a file: `rule` marks rows that have no marks.",
)
@click.option("--split", help="For a saved folder or Hub set: the split.")
@click.option("--rows", type=click.IntRange(min=0), default=3, show_default=True, help="Rows to print of each kind.")
@click.option("--row", "row_id", metavar="ID", help="Print this row in full (its id, or file and line).")
@click.option(
    "--where", metavar="NAME", help="Print rows of a loss, kind, or drop reason; `dropped`: all dropped ones."
)
@click.option("--sample", type=click.IntRange(min=1), help="Inspect so many rows, drawn at random.")
@click.option("--seed", type=int, default=42, show_default=True, help="Of the sample, and for a file of the draws.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="PAGE", help="Write one HTML page.")
def main(
    address: str,
    tokenizer: str | None,
    losses: str,
    sequence_len: int | None,
    annotation: str,
    split: str | None,
    rows: int,
    row_id: str | None,
    where: str | None,
    sample: int | None,
    seed: int,
    html: Path | None,
) -> None:
    """Show what will be trained, in the terminal or as one HTML page.

    CONFIG_OR_FILE is the YAML file of an Axolotl run, or rows: a JSON, JSON Lines, CSV or Parquet file, a folder, a Hub
    id. Rows without --tokenizer show conversations and marks, without tokens.
    """
    from rich.console import Console

    from safekey_peft.errors import ConfigError
    from safekey_peft.inspection.selection import Chosen
    from safekey_peft.inspection.survey import Survey

    console, notes = Console(highlight=False), Console(stderr=True, highlight=False)
    encoder: SafeKeyExampleEncoder | None
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"--html {html}: expected a name that ends in .html, found {html.suffix or 'none'}. Rename it"
        )
    if row_id is not None and where is not None:
        raise ConfigError("--row and --where: expected one of them, found both. Leave one out")
    if Path(address).suffix.lower() in (".yml", ".yaml"):
        _refuse_file_options(tokenizer, sequence_len, split)
        sets, encoder, config = _open_run(address, notes)
    else:
        config = _config(losses, annotation)
        encoder = None if tokenizer is None else _encoder(tokenizer, config, sequence_len, seed)
        sets = _open_file(address, split)
        if encoder is None:
            notes.print("No --tokenizer: conversations and marks only, without tokens and losses.")
    survey = Survey(sets, encoder, annotation=annotation, sample=sample, seed=seed)
    options = _options(address, config, encoder, sample, seed)
    chosen = _run(survey, notes, Chosen(rows, row_id, where), html, options)
    _show(console, survey, chosen)


def _refuse_file_options(tokenizer: str | None, sequence_len: int | None, split: str | None) -> None:
    from safekey_peft.errors import ConfigError

    given = [
        name
        for name, value in (("--tokenizer", tokenizer), ("--sequence-len", sequence_len), ("--split", split))
        if value is not None
    ]
    context = click.get_current_context()
    for name in ("losses", "annotation"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            given.append(f"--{name}")
    if given:
        raise ConfigError(f"{', '.join(given)}: of files only; a configuration says this itself. Leave it out")


def _config(losses: str, annotation: str) -> SafeKeyConfig:
    from safekey_peft.config import SWITCHES, build_config
    from safekey_peft.errors import ConfigError

    names = [name.strip() for name in losses.split(",") if name.strip()]
    if names == ["none"]:
        names = []
    unknown = [name for name in names if name not in SWITCHES]
    if unknown:
        raise ConfigError(
            f"--losses: expected some of {', '.join(SWITCHES)} or none, found {', '.join(unknown)}. Mend it"
        )
    return build_config({**dict.fromkeys(names, True), "annotation": annotation})


def _encoder(name: str, config: SafeKeyConfig, sequence_len: int | None, seed: int) -> SafeKeyExampleEncoder:
    from transformers import AutoTokenizer
    from transformers.utils import logging

    from safekey_peft.data.encoder import SafeKeyExampleEncoder
    from safekey_peft.errors import ConfigError

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as fault:  # files of other people, and the Hub's client: dozens of kinds
        problem = " ".join(str(fault).split())[:300]
        raise ConfigError(f"--tokenizer {name}: cannot be loaded ({problem}). Check the name or folder") from fault
    # Rows longer than the model's limit are counted by sequence_len, not warned about one by one.
    tokenizer.model_max_length = 1 << 30
    return SafeKeyExampleEncoder(tokenizer, config, sequence_len=sequence_len, seed=seed)


def _open_file(address: str, split: str | None) -> list[InspectedSet]:
    from safekey_peft.data.sources import open_source
    from safekey_peft.inspection.survey import InspectedSet

    source = open_source(address, split=split)
    return [InspectedSet(source.name, lambda: source)]


def _open_run(address: str, notes: Console) -> tuple[list[InspectedSet], SafeKeyExampleEncoder, SafeKeyConfig]:
    import importlib

    from safekey_peft.cli.silence import silenced
    from safekey_peft.errors import ConfigError
    from safekey_peft.inspection.characters import visible
    from safekey_peft.inspection.survey import InspectedSet

    with notes.status("Loading the configuration as Axolotl does …"), silenced():
        try:
            preview = importlib.import_module("axolotl_plugins.safekey.preview")
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{address}: a configuration needs Axolotl ({error}). Run: pip install 'safekey-peft[axolotl]'"
            ) from error
        run: Any = preview.load_run(address)
    sets = []
    for dataset in run.datasets:
        name = f"{dataset.name} (evaluation)" if dataset.is_test else dataset.name
        if dataset.is_ours:
            sets.append(InspectedSet(name, dataset.rows))
        else:
            notes.print(
                f"{visible(name)}: one of Axolotl's own types, trained as SFT by its own labels; not shown.",
                markup=False,
            )
    if not sets:
        raise ConfigError(
            f"{address}: expected a data set of type axolotl_plugins.safekey.dataset, found none. Add one"
        )
    return sets, run.encoder, run.config


def _options(
    address: str, config: SafeKeyConfig, encoder: SafeKeyExampleEncoder | None, sample: int | None, seed: int
) -> list[tuple[str, str]]:
    options = [("of", address)]
    if encoder is not None:
        name = str(getattr(encoder.tokenizer, "name_or_path", "") or type(encoder.tokenizer).__name__)
        options += [
            ("tokenizer", name),
            ("losses", (", ".join(config.active) or "plain SFT") + config.preset_note),
            ("sequence_len", str(encoder.sequence_len or "no limit")),
            ("seed", str(encoder.seed)),
        ]
        places = {"harmful_prefix": "harmful_prefix_from", "rto": "rto_from"}
        options += [(name, str(getattr(config, name))) for loss, name in places.items() if loss in config.active]
    options.append(("annotation", config.annotation))
    if sample is not None:
        options.append(("sample", f"{sample:,} rows at random, seed {seed}"))
    return options


def _run(survey: Survey, notes: Console, chosen: Chosen, html: Path | None, options: list[tuple[str, str]]) -> Chosen:
    """Read and encode all rows, with progress; write the page if asked for."""
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from safekey_peft.inspection.page import LARGE_PAGE_BYTES, PageWriter

    page = None
    if html is not None:
        encoder = survey.encoder
        page = PageWriter(
            html,
            f"{Path(options[0][1]).name}",
            options,
            has_tokens=encoder is not None,
            active=encoder.config.active if encoder is not None else (),
            sequence_len=encoder.sequence_len if encoder is not None else None,
        )
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True) as progress:
        task = progress.add_task("Counting", total=None)
        survey.watch(lambda what, done, total: progress.update(task, description=what, completed=done, total=total))
        for view in survey:
            chosen.offer(view)
            if page is not None:
                page.add(view)
    if page is not None:
        size = page.finish(survey.totals)
        seconds = time.monotonic() - began
        notes.print(
            f"{html}: {survey.totals.report.read:,} rows, {size / 1e6:.1f} MB, {seconds:.0f} s. Open it in a browser.",
            markup=False,
            soft_wrap=True,
        )
        if size > LARGE_PAGE_BYTES:
            notes.print("A page of this size opens slowly; --sample 20000 writes one of fewer rows, drawn at random.")
    return chosen


def _show(console: Console, survey: Survey, chosen: Chosen) -> None:
    from safekey_peft.errors import DataError
    from safekey_peft.inspection.terminal import print_rows, print_summary

    if chosen.row_id is not None and not chosen.views:
        raise DataError(f"--row {chosen.row_id}: no row has this id or place. Ids and places stand in each row's title")
    if chosen.where not in (None, "dropped", *chosen.names):
        raise DataError(_nowhere(chosen, has_tokens=survey.encoder is not None))
    if chosen.row_id is None:
        print_summary(console, survey.totals, has_tokens=survey.encoder is not None)
        _hint_marks(console, survey)
    active = survey.encoder.config.active if survey.encoder is not None else ()
    print_rows(console, chosen.views, in_full=chosen.row_id is not None, active=active)


def _nowhere(chosen: Chosen, *, has_tokens: bool) -> str:
    found = [f"{name} ({count:,})" for name, count in sorted(chosen.names.items())]
    if not found:
        expected, remedy = "rows that were dropped or flagged", "Leave it out"
    elif len(found) == 1:
        expected, remedy = f"{found[0]}, which is all there is", "Choose it"
    else:
        expected, remedy = f"one of {', '.join(found)}", "Choose one"
    if not has_tokens:
        remedy += ", or give --tokenizer to see losses"
    return f"--where {chosen.where}: expected {expected}, found no row of this name. {remedy}"


def _hint_marks(console: Console, survey: Survey) -> None:
    totals = survey.totals
    wanted = survey.encoder is None or {"dual_path", "query_mask"} & set(survey.encoder.config.active)
    if wanted and totals.marks and set(totals.marks) == {"none"} and survey.annotation == "given":
        console.print(
            "No row carries marks, so U and K are not trained. Mark them with safekey annotate, or see the rule's with "
            "--annotation rule (safekey_annotation: rule).",
            markup=False,
        )
