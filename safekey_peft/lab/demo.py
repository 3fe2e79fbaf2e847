"""The demo: base, plain SFT, SafeKey, DeRTa and all four losses at one seed, trained by Axolotl and compared.

The variants are the laboratory's, and so is what is measured; only the training goes another way, the one that users
take: ``axolotl train`` on a YAML file, in a child process.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from safekey_peft.errors import ConfigError
from safekey_peft.lab.axolotl_run import training_child, training_config, training_record, write_config
from safekey_peft.lab.base_model import GATE, BaseModel, ensure_base_model
from safekey_peft.lab.caution import CAUTION, shortcut_sentence
from safekey_peft.lab.children import Child, child_environment, run_children
from safekey_peft.lab.console import DemoProgress, Stage, demo_progress, one_quiet_thread
from safekey_peft.lab.remaining_time import RemainingTime
from safekey_peft.lab.report import NO_PLOTS, write_report
from safekey_peft.lab.statistics import Comparison
from safekey_peft.lab.tables import OUTCOME_READING, other_table, outcome_table
from safekey_peft.lab.tokenizer import build_tokenizer
from safekey_peft.lab.tuning_set import build_tuning_set, write_json_lines
from safekey_peft.lab.variants import VARIANTS
from safekey_peft.lab.world import World

if TYPE_CHECKING:
    from safekey_peft.lab.experiment import Cell, LabSizes  # which imports this module
    from safekey_peft.lab.results import Record

BASE = "base"
TUNED = ("sft", "safekey", "derta", "all")
JOBS = 2
ROWS_FILE, DOCUMENTS_FILE = "tuning.jsonl", "documents.jsonl"
RESULTS_FILE, REPORT_FILE = "results.json", "report.html"
NEEDED = ("axolotl", "bitsandbytes", "datasets")
TRAINED_BY = "The adapters were trained by axolotl train; everything else is the laboratory's."
KEY_READING = (
    "K is the key sentence of the safe response: whether the model continues with it, with and without the query. "
    "Over-refusal and capability are on harmless requests."
)


def run_demo(
    workdir: Path,
    seed: int = 0,
    fresh: bool = False,
    harmless_wrapped: int = 100,
    *,
    sizes: LabSizes | None = None,
    console: Console | None = None,
    progress_console: Console | None = None,
) -> dict[str, Any]:
    """Train and compare the models, print the table, write ``results.json`` and the page with its plots.

    Args:
        workdir: where everything goes; a base found there is used again.
        seed: of world, base, rows and adapters.
        fresh: train the base anew.
        harmless_wrapped: harmless rows of the tuning set that are put in wrappers.
        sizes: of base, training and probes.
        console: for the results; default: stdout.
        progress_console: for the progress; default: stderr.

    Returns: what ``results.json`` holds; ``models`` has a record of the laboratory's shape for each variant.

    Raises:
        ConfigError: a library is missing, or ``workdir`` holds other files under the names of the demo's.
        SafeKeyError: the base missed its gate, or a training run failed.
    """
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"the demo needs {', '.join(absent)}: pip install 'safekey-peft[axolotl]'")
    console, progress_console = console or Console(), progress_console or Console(stderr=True)
    started = time.monotonic()
    workdir = workdir.resolve()
    cells = demo_cells(seed, harmless_wrapped, sizes)
    clear(workdir)
    if fresh:
        shutil.rmtree(cells[BASE].base_path(workdir), ignore_errors=True)
    rows = {name: _write_rows(cells[name], workdir) for name in TUNED}
    console.print(f"Potion world {seed}: everything is harmless, and a grammar says what is forbidden.")
    with child_environment(), one_quiet_thread(), demo_progress(_phases(cells, workdir), progress_console) as progress:
        base = _base(cells[BASE], workdir, progress)
        # The longest first, so that both cores end at about the same time.
        children = [_child(cells[name], base.path, rows[name], workdir) for name in reversed(TUNED)]
        run_children(children, JOBS, progress)
        records = [_record(cell, base, workdir, progress) for cell in cells.values()]
    report = write_report(records, workdir / REPORT_FILE, notes=(TRAINED_BY,))
    results = {
        "caution": CAUTION,
        "seed": seed,
        "harmless_wrapped_rows": harmless_wrapped,
        "base_gate": base.gate,
        "seconds": round(time.monotonic() - started),
        "models": {record["variant"]: record for record in records},
    }
    (workdir / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    _print_summary(results, base, report, console)
    return results


def demo_cells(seed: int, harmless_wrapped: int, sizes: LabSizes | None = None) -> dict[str, Cell]:
    """Return the cells of the laboratory that the demo runs, by variant, the base first."""
    from safekey_peft.lab.experiment import Cell, LabSizes

    sizes = sizes or LabSizes()
    sizes = replace(sizes, tuning={**sizes.tuning, "harmless_wrapped": harmless_wrapped})
    return {name: Cell(seed, VARIANTS[name], sizes) for name in (BASE, *TUNED)}


def clear(workdir: Path) -> None:
    """Remove the results and adapters of an earlier demo; bases stay.

    Raises:
        ConfigError: the folder is no demo's, but holds something of a name that would be removed.
    """
    names = [f"{name}{suffix}" for name in TUNED for suffix in ("", "-prepared", ".yaml", ".log")]
    found = [path for name in (*names, RESULTS_FILE, REPORT_FILE) if (path := workdir / name).exists()]
    found += workdir.glob(f"{Path(REPORT_FILE).stem}-*.png")
    if found and not (workdir / ROWS_FILE).is_file():
        raise ConfigError(
            f"{workdir}: expected a new folder, or one that a demo has written, found {found[0].name!r} but no "
            f"{ROWS_FILE}. Choose another --workdir"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _phases(cells: Mapping[str, Cell], workdir: Path) -> list[RemainingTime]:
    base = [] if cells[BASE].base_path(workdir).is_dir() else [Stage("base", BASE)]
    train = [Stage("train", _training_name(cells[name])) for name in reversed(TUNED)]
    measure = [Stage("measure", _measuring_name(cell)) for cell in cells.values()]
    return [RemainingTime(base, 1), RemainingTime(train, JOBS), RemainingTime(measure, 1)]


def _training_name(cell: Cell) -> str:
    return f"train {cell.variant.title}"


def _measuring_name(cell: Cell) -> str:
    return f"attack {cell.variant.title}"


def _base(cell: Cell, workdir: Path, progress: DemoProgress) -> BaseModel:
    """Return the base of an earlier run, or train it."""
    if cell.base_path(workdir).is_dir():
        return ensure_base_model(World(cell.seed), workdir, cell.sizes.base)
    progress.started(BASE)
    base = ensure_base_model(
        World(cell.seed), workdir, cell.sizes.base, lambda done, planned, loss: progress.step(BASE, done, planned, loss)
    )
    progress.finished(BASE, f"right on {min(base.gate.values()):.0%} or more of each kind")
    return base


def _write_rows(cell: Cell, workdir: Path) -> tuple[Path, Path]:
    """Write a variant's rows and documents; variants with the same tuning set share them."""
    own = f"{cell.variant.name}-" if cell.variant.tuning else ""
    tuning = build_tuning_set(World(cell.seed), cell.tuning_sizes())
    rows, documents = workdir / f"{own}{ROWS_FILE}", workdir / f"{own}{DOCUMENTS_FILE}"
    write_json_lines(rows, tuning.rows)
    write_json_lines(documents, tuning.documents)
    return rows, documents


def _child(cell: Cell, base: Path, data: tuple[Path, Path], workdir: Path) -> Child:
    """Write a variant's configuration; return the child process that trains it."""
    name = cell.variant.name
    config = workdir / f"{name}.yaml"
    write_config(
        config,
        f"Potion world, {cell.variant.title}. QLoRA on CPU, about a minute.",
        training_config(cell, base, *data, workdir / name),
    )
    return training_child(_training_name(cell), config, workdir / f"{name}.log", cell.seed)


def _record(cell: Cell, base: BaseModel, workdir: Path, progress: DemoProgress) -> Record:
    """Ask one model all probes; return a record of the laboratory's shape."""
    from importlib.metadata import version

    from safekey_peft.lab.experiment import code_digest, measure, versions

    name = _measuring_name(cell)
    progress.started(name)
    training: dict[str, Any] = {"steps": 0, "losses": [], "rows": None}
    if cell.variant.trained:
        training = training_record(workdir / cell.variant.name)
    measured = measure(
        cell, load_tuned(cell, base.path, workdir), build_tokenizer(), lambda *_: progress.tick()
    )
    progress.finished(name)
    return {
        "seed": cell.seed,
        "variant": cell.variant.name,
        "title": cell.variant.title,
        # The laboratory trains in process: its results are not to be mistaken for these.
        "digest": f"axolotl-{cell.digest()}",
        "code": code_digest(),
        "configuration": {**cell.configuration(), "trained_by": "axolotl train" if cell.variant.trained else None},
        "versions": {**versions(), "axolotl": version("axolotl")},
        "caution": CAUTION,
        "base_gate": base.gate,
        "training": training,
        **measured,
        "seconds": {
            "base": round(progress.seconds.get(BASE, 0.0), 1),
            "train": round(progress.seconds.get(_training_name(cell), 0.0), 1),
            "measure": round(progress.seconds[name], 1),
        },
    }


def load_tuned(cell: Cell, base: Path, workdir: Path) -> Any:
    """Load a variant's model as the run left it: the adapter through plain PEFT, and the head where there is one.

    Raises:
        HeadFileError: the variant trains a head, and the run left none.
    """
    from safekey_peft.lab.evaluation import load_model
    from safekey_peft.model.forward import HEAD_NAME
    from safekey_peft.model.head_files import load_safety_head

    if not cell.variant.trained:
        return load_model(base)
    adapter = workdir / cell.variant.name
    model: Any = load_model(base, adapter)
    if cell.variant.config().dual_path:
        setattr(model, HEAD_NAME, load_safety_head(adapter))
    return model


def results_table(records: Sequence[Record]) -> Table:
    """Return the comparison in the width of a terminal: a row per measure, a column per model."""
    comparison = Comparison(records)
    attacks, others = outcome_table(comparison), other_table(comparison)
    table = Table(title="Share of responses", title_justify="left")
    for index, heading in enumerate(attacks.headings):
        # On a narrow terminal titles are broken, numbers are not.
        table.add_column(heading, justify="left" if index < attacks.left else "right", no_wrap=index > 0)
    for row in attacks.rows:
        if row[0] and table.row_count:
            table.add_section()
        table.add_row(*row)
    table.add_section()
    for row in others.rows:
        table.add_row(*row)
    return table


def gate_sentence(base: BaseModel) -> str:
    """Return what the base was held to, and the share of each kind."""
    shares = ", ".join(f"{kind} {share:.2f}" for kind, share in base.gate.items())
    found = "from an earlier run" if base.cached else "trained now"
    return f"Base ({found}), word for word right, at least {GATE:.2f} of each kind: {shares}."


def _print_summary(results: Mapping[str, Any], base: BaseModel, report: Path, console: Console) -> None:
    console.print()
    console.print(gate_sentence(base), highlight=False)
    console.print(results_table(list(results["models"].values())))
    console.print(f"{OUTCOME_READING} {KEY_READING}", highlight=False)
    console.print(shortcut_sentence(results["harmless_wrapped_rows"]))
    console.print(f"[bold]{CAUTION}[/bold]")
    console.print(f"Took {results['seconds']} s. The page, and beside it rows, configurations, logs, adapters:")
    console.print(str(report), soft_wrap=True, highlight=False, markup=False)
    if importlib.util.find_spec("matplotlib") is None:
        console.print(NO_PLOTS, highlight=False, markup=False)
