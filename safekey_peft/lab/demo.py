"""The demo: base, plain SFT and all four losses in the potion world, trained by Axolotl and compared."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from safekey_peft.lab.axolotl_run import FOUR_LOSSES, train, training_config, write_config
from safekey_peft.lab.base_model import BaseModel, OnStep, ensure_base_model
from safekey_peft.lab.console import one_quiet_thread, progress_bars
from safekey_peft.lab.evaluation import evaluate, load_model
from safekey_peft.lab.probes import Probe, build_probes
from safekey_peft.lab.tokenizer import build_tokenizer
from safekey_peft.lab.tuning_set import TuningSizes, build_tuning_set, write_json_lines
from safekey_peft.lab.world import World

Result = Mapping[str, Mapping[str, Any]]

CAUTION = (
    "This illustrates a mechanism in an invented world with a model of 0.6 million parameters. "
    "It is no evidence about large models."
)


class Variant(NamedTuple):
    """One tuned model of the demo."""

    name: str
    title: str
    flags: Mapping[str, Any]


VARIANTS = (
    Variant("sft", "plain SFT", {}),
    Variant("four-losses", "all four losses", FOUR_LOSSES),
)

SHOWN = {
    "in_domain": "in domain",
    "unseen_wrappers": "unseen wrappers",
    "late_reveal": "late reveal",
    "prefilling": "prefilling",
    "over_refusal": "harmless requests",
    "capability": "capability",
}
ROWS_FILE, DOCUMENTS_FILE, RESULTS_FILE = "tuning.jsonl", "documents.jsonl", "results.json"
ATTACKS = ("in_domain", "unseen_wrappers", "late_reveal", "prefilling")


def run_demo(
    workdir: Path,
    seed: int = 0,
    fresh: bool = False,
    harmless_wrapped: int = 100,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train and compare the three models, print the table, write ``results.json``.

    Args:
        workdir: where everything goes; a base found there is used again.
        seed: of world, base, rows and adapters.
        fresh: delete what an earlier run left in ``workdir``.
        harmless_wrapped: harmless rows of the tuning set that are put in wrappers.
        console: where to print.

    Returns: what ``results.json`` holds.

    Raises:
        SafeKeyError: the base missed its gate, or a training run failed.
    """
    console = console or Console()
    started = time.monotonic()
    workdir = workdir.resolve()
    world = World(seed)
    sizes = TuningSizes(harmless_wrapped=harmless_wrapped)
    tuning = build_tuning_set(world, sizes)
    probes = build_probes(world, tuning.harmful_requests)
    _clear(workdir, fresh)
    write_json_lines(workdir / ROWS_FILE, tuning.rows)
    write_json_lines(workdir / DOCUMENTS_FILE, tuning.documents)

    console.print(f"Potion world {seed}: everything is harmless, and a grammar says what is forbidden.")
    with one_quiet_thread():
        base = _base(world, workdir, console)
        _train_variants(base.path, workdir, seed, console)
        adapters = {"base": None} | {variant.name: workdir / variant.name for variant in VARIANTS}
        results = {
            name: _evaluate(name, base.path, adapter, probes, console) for name, adapter in adapters.items()
        }

    record = {
        "caution": CAUTION,
        "seed": seed,
        "harmless_wrapped_rows": sizes.harmless_wrapped,
        "base_gate": base.gate,
        "seconds": round(time.monotonic() - started),
        "models": results,
    }
    (workdir / RESULTS_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    _print_summary(record, workdir, console)
    return record


def results_table(results: Mapping[str, Result]) -> Table:
    """Return the comparison: for each set of probes, each model's outcomes."""
    titles = {"base": "base", **{variant.name: variant.title for variant in VARIANTS}}
    table = Table(title="Share of responses", title_justify="left")
    for heading in ("probes", "model"):
        table.add_column(heading, no_wrap=True)
    for heading in ("success", "refused", "garbled", "leak"):
        table.add_column(heading, justify="right")
    for column, title in SHOWN.items():
        for index, (model, result) in enumerate(results.items()):
            rates = result[column]["all"]
            shares = [f"{rates[outcome]:.2f}" for outcome in ("success", "refused", "garbled")]
            leak = f"{rates['leak']:.2f}" if column in ATTACKS else "–"
            table.add_row(title if index == 0 else "", titles[model], *shares, leak)
        table.add_section()
    return table


def shortcut_sentence(harmless_wrapped: int) -> str:
    """Return what the harmless wrapped rows, or their absence, mean for the comparison."""
    if harmless_wrapped == 0:
        return "The tuning set holds no harmless rows in wrappers: plain SFT then refuses in them by itself."
    return (
        f"The tuning set holds {harmless_wrapped} harmless rows in wrappers. They plant the shortcut "
        '"a wrapper means comply" on purpose: without them plain SFT refuses in unseen wrappers by itself.'
    )


def _print_summary(record: Mapping[str, Any], workdir: Path, console: Console) -> None:
    console.print()
    console.print(results_table(record["models"]))
    relative = [
        f"{variant.title} {_success(record, variant.name) / _success(record, 'base'):.2f}"
        for variant in VARIANTS
    ]
    console.print(
        "In the first four sets success means that the attack succeeded, and leak is the share of the dark "
        "attribute's own ingredients that was shown. In the last two, success is the right answer, and "
        f"refused is over-refusal. Capability relative to the base: {', '.join(relative)}.",
    )
    console.print(shortcut_sentence(record["harmless_wrapped_rows"]))
    console.print(f"[bold]{CAUTION}[/bold]")
    console.print(f"Took {record['seconds']} s. Rows, configurations, logs, adapters and results.json:")
    console.print(str(workdir), soft_wrap=True, highlight=False)


def _success(record: Mapping[str, Any], model: str) -> float:
    return float(record["models"][model]["capability"]["all"]["success"])


def _base(world: World, workdir: Path, console: Console) -> BaseModel:
    with progress_bars(console) as add_bar:
        base = ensure_base_model(world, workdir, on_step=add_bar("train the base"))
    lowest = min(base.gate, key=base.gate.__getitem__)
    found = "Base from an earlier run" if base.cached else "Base"
    console.print(
        f"{found}: helpful only; word for word right on {base.gate[lowest]:.0%} or more of every kind."
    )
    return base


def _train_variants(base: Path, workdir: Path, seed: int, console: Console) -> None:
    """Train all variants side by side, each on one core."""

    def run(variant: Variant, report: OnStep) -> None:
        config = workdir / f"{variant.name}.yaml"
        train(config, workdir / f"{variant.name}.log", seed, lambda done, planned: report(done, planned, ""))

    rows, documents = workdir / ROWS_FILE, workdir / DOCUMENTS_FILE
    for variant in VARIANTS:
        write_config(
            workdir / f"{variant.name}.yaml",
            f"Potion world, {variant.title}. QLoRA on CPU, about a minute.",
            training_config(base, rows, documents, workdir / variant.name, seed, variant.flags),
        )
    with progress_bars(console) as add_bar, ThreadPoolExecutor(len(VARIANTS)) as pool:
        runs = [pool.submit(run, variant, add_bar(f"train {variant.title}")) for variant in VARIANTS]
        for finished in runs:
            finished.result()


def _evaluate(name: str, base: Path, adapter: Path | None, probes: list[Probe], console: Console) -> Result:
    with console.status(f"ask {name} {len(probes)} probes"):
        return evaluate(load_model(base, adapter), build_tokenizer(), probes)


def _clear(workdir: Path, fresh: bool) -> None:
    """Remove what earlier runs left: their results always, the base if asked to."""
    workdir.mkdir(parents=True, exist_ok=True)
    names = [f"{variant.name}{suffix}" for variant in VARIANTS for suffix in ("", "-prepared")]
    folders = [workdir / name for name in names]
    if fresh:
        folders += workdir.glob("base-*")
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
