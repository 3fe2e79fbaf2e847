"""What the safety losses cost per optimizer step, against the targets. Run: ``python -m benchmarks.step_cost``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Waiting threads would count as CPU time if they span.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.markdown import Markdown  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

from benchmarks.examples import build_micro_batch, choose_batches  # noqa: E402
from benchmarks.lengths import RowLengths, read_lengths  # noqa: E402
from benchmarks.memory import PeakMeter  # noqa: E402
from benchmarks.report import LABELS, VocabularyRun, machine_facts, markdown, write_results  # noqa: E402
from benchmarks.row_width import CANDIDATES, measure_row_widths  # noqa: E402
from benchmarks.timing import time_variants  # noqa: E402
from benchmarks.variants import (  # noqa: E402
    FULL_SIZE,
    LORA_RANK,
    SMALL_SIZE,
    TOY_SIZE,
    VARIANTS,
    ModelSize,
    Workbench,
    tokens_of,
)

RESULTS = Path(__file__).with_name("results")
QUICK_RESULTS = Path("bench-run")
"""Figures of toy sizes must not replace real ones."""
MEMORY_VARIANTS = ("stock_sft", "sft", "safekey", "safekey_fused")
ONLY_REPORTED = ("safekey_fused", "two_forward")
"""These run in the first repeat only."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    size: ModelSize
    vocabularies: tuple[int, ...]
    batches: int
    rows: int
    repeats: int
    width_sizes: tuple[ModelSize, ...]
    width_rows: int


FULL = Extent(FULL_SIZE, (32_000, 128_000), 2, 4, 3, (SMALL_SIZE, FULL_SIZE), 8)
QUICK = Extent(TOY_SIZE, (256,), 1, 2, 1, (TOY_SIZE,), 4)
QUICK_LENGTH_DIVISOR = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the results and print them."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    extent = QUICK if options.quick else FULL
    lengths = read_lengths(options.star1)
    if options.quick:
        lengths = [_shortened(row) for row in lengths]
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    facts: dict[str, Any] = {
        **machine_facts(),
        "threads": options.threads,
        "command": "python -m benchmarks.step_cost" + (" --quick" if options.quick else ""),
        "lora_rank": LORA_RANK,
        "row_tokens": options.row_tokens,
        "batches": extent.batches,
        "rows": extent.rows,
        "repeats": extent.repeats,
        "lengths": "measured anew" if options.star1 else "committed table",
    }
    load_before = round(os.getloadavg()[0], 1)
    runs: list[VocabularyRun] = []
    with Progress(*columns, console=console) as progress:
        for vocabulary in extent.vocabularies:
            runs.append(_measure_vocabulary(vocabulary, extent, lengths, options, progress))
            write_results(options.out, runs, [], facts)
        widths = _measure_widths(extent, lengths, progress)
    facts["load_average"] = [load_before, round(os.getloadavg()[0], 1)]
    table, data = write_results(options.out, runs, widths, facts)
    console.print(Markdown(markdown(runs, widths, facts)))
    console.print(f"written: {table} and {data}")
    return 0


def _measure_vocabulary(
    vocabulary: int, extent: Extent, lengths: Sequence[RowLengths], options: argparse.Namespace, progress: Progress
) -> VocabularyRun:
    chosen = choose_batches(lengths, extent.batches, extent.rows)
    memory = {}
    if not options.no_memory:
        meter = PeakMeter()
        task = progress.add_task(f"{vocabulary:,} entries, memory", total=len(MEMORY_VARIANTS))
        for variant in MEMORY_VARIANTS:
            progress.update(task, description=f"{vocabulary:,} entries, memory: {LABELS[variant]}")
            memory[variant] = meter.measure(
                variant,
                size=extent.size,
                vocabulary=vocabulary,
                row_tokens=options.row_tokens,
                rows=chosen[0],
                threads=options.threads,
            )
            progress.advance(task)
    batches = [build_micro_batch(rows, vocabulary, seed) for seed, rows in enumerate(chosen)]
    bench = Workbench(extent.size, vocabulary, options.row_tokens)
    plan = []
    for number in range(extent.batches * extent.repeats):
        first_repeat = number < extent.batches
        plan.append([name for name in VARIANTS if first_repeat or name not in ONLY_REPORTED])
    task = progress.add_task(f"{vocabulary:,} entries, time", total=sum(map(len, plan)))

    def advance(variant: str) -> None:
        progress.update(task, advance=1, description=f"{vocabulary:,} entries, time: {LABELS[variant]}")

    times = time_variants(bench, batches, vocabulary, plan, advance)
    return VocabularyRun(vocabulary, bench.parameters, times, [tokens_of(bench, batch) for batch in batches], memory)


def _measure_widths(extent: Extent, lengths: Sequence[RowLengths], progress: Progress) -> Any:
    rows = choose_batches(lengths, 1, extent.width_rows)[0]
    task = progress.add_task("row width", total=None)

    def advance(description: str) -> None:
        progress.update(task, advance=1, description=f"row width: {description}")

    return measure_row_widths(extent.width_sizes, rows, CANDIDATES, extent.repeats, advance)


def _shortened(row: RowLengths) -> RowLengths:
    understanding, key = -(-row.understanding // QUICK_LENGTH_DIVISOR), -(-row.key // QUICK_LENGTH_DIVISOR)
    response = understanding + key + -(-row.response // QUICK_LENGTH_DIVISOR)
    return RowLengths(-(-row.query // QUICK_LENGTH_DIVISOR), understanding, key, response)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_cost", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="toy sizes, seconds instead of minutes: does it run?")
    parser.add_argument("--star1", type=Path, help="star1.json: measure lengths anew instead of using the table")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--threads", type=int, default=machine_facts()["cores"], help="of torch")
    parser.add_argument("--row-tokens", type=int, default=2048, help="of the collator; the trainer's default")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory measurement out")
    options = parser.parse_args(arguments)
    options.out = options.out or (QUICK_RESULTS if options.quick else RESULTS)
    return options


if __name__ == "__main__":
    raise SystemExit(main())
