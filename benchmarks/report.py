"""Tables of a run: Markdown for readers, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.memory import GIB, PeakMemory
from benchmarks.row_width import RowWidth, equal_cost_width
from benchmarks.timing import StepTime, median_seconds, ratio

PACKAGES = ("torch", "transformers", "peft")
LABELS = {
    "stock_sft": "stock SFT: padded rows, full logits",
    "sft": "padding-free SFT, same cross-entropy",
    "safekey": "SafeKey losses",
    "safekey_fused": "SafeKey losses, fused cross-entropy",
    "all_losses": "SafeKey losses, prefixes and RTO",
    "two_forward": "two padded forwards, as published",
}


@dataclass(frozen=True, slots=True)
class VocabularyRun:
    """What was measured at one vocabulary.

    Attributes:
        vocabulary: V.
        parameters: of the base model.
        times: all steps.
        tokens: per batch, per variant: ``real`` tokens and ``computed`` ones with the filling of rows.
        memory: per variant, on the first batch.
    """

    vocabulary: int
    parameters: int
    times: list[StepTime]
    tokens: list[dict[str, dict[str, int]]]
    memory: dict[str, PeakMemory] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short name of the vocabulary."""
        return f"{self.vocabulary // 1000}k" if self.vocabulary >= 1000 else str(self.vocabulary)

    def real_tokens(self, variant: str) -> int:
        """Tokens of all batches without filling."""
        return sum(batch[variant]["real"] for batch in self.tokens)

    def token_ratio(self, variant: str) -> float:
        """Tokens of a variant in terms of plain SFT's."""
        return self.real_tokens(variant) / self.real_tokens("sft")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the main table."""

    measure: str
    vocabulary: str
    reached: str
    target: str
    met: bool | None


def findings(run: VocabularyRun) -> list[Finding]:
    """Compare a run with the targets."""
    lines = []

    def add(measure: str, above: str, below: str, target: float | None, note: str = "") -> None:
        found = ratio(run.times, above, below)
        wanted = "reported" if target is None else f"≤ {target:.2f}{note}"
        lines.append(Finding(measure, run.name, str(found), wanted, None if target is None else found.median <= target))

    large = run.vocabulary >= 100_000
    add("SafeKey losses / padding-free SFT", "safekey", "sft", run.token_ratio("safekey"), " (tokens)")
    add("with prefixes and RTO / padding-free SFT", "all_losses", "sft", run.token_ratio("all_losses"), " (tokens)")
    add("SafeKey losses / stock SFT", "safekey", "stock_sft", 0.75 if large else 1.0)
    add("two forwards / SafeKey losses", "two_forward", "safekey", None)
    add("two forwards / stock SFT", "two_forward", "stock_sft", None)
    add("fused / logits cross-entropy, SafeKey losses", "safekey_fused", "safekey", None)
    stock = run.memory.get("stock_sft")
    for variant, peak in run.memory.items() if stock else ():
        if stock and variant != "stock_sft":
            value, target = peak.step / stock.step, 1.0 if variant.startswith("safekey") else None
            wanted = "reported" if target is None else f"≤ {target:.2f}"
            met = None if target is None else value <= target
            lines.append(Finding(f"peak memory / stock SFT: {LABELS[variant]}", run.name, f"{value:.2f}", wanted, met))
    return lines


def markdown(runs: Sequence[VocabularyRun], widths: Sequence[RowWidth], facts: dict[str, Any]) -> str:
    """Write all tables."""
    body = [
        "# Cost of a training step",
        "",
        f"`{facts['command']}` on {facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads; "
        + ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
        + ".",
        "",
        "Process CPU time of forward, backward and optimizer (AdamW) on the same micro-batches, variants interleaved "
        "in one process; ratios are taken within a round: median (lowest–highest). " + _setting(runs, facts),
        "",
    ]
    found = [line for run in runs for line in findings(run)]
    body += _table(
        ("measure", "vocabulary", "reached", "target", "met"),
        [(f.measure, f.vocabulary, f.reached, f.target, {True: "yes", False: "no", None: ""}[f.met]) for f in found],
    )
    body += ["", "## Seconds, tokens and memory", ""]
    lines = []
    for run in runs:
        for variant in dict.fromkeys(step.variant for step in run.times):
            real = run.real_tokens(variant)
            computed = sum(batch[variant]["computed"] for batch in run.tokens)
            peak = run.memory.get(variant)
            gib = f"{peak.step / GIB:.2f}" if peak else ""
            seconds = f"{median_seconds(run.times, variant):.2f}"
            lines.append((LABELS[variant], run.name, seconds, str(real), str(computed), gib))
    body += _table(("step", "vocabulary", "CPU seconds", "tokens", "with filling", "peak GiB beside the model"), lines)
    body += [
        "",
        "Tokens are those of all micro-batches together. Stock rows are padded to the longest of the micro-batch, "
        "rounded up to 64 (Axolotl's default); ours are divided into rows by `SafeKeyCollator`. Two forwards compute "
        "every padded token twice. Memory is that of one step in a child process of its own: resident memory at its "
        "highest less what was resident before the step (model, adapter, optimizer).",
    ]
    if widths:
        body += ["", "## Row width under a dense attention mask", ""]
        body += _table(
            ("hidden size", "row_tokens", "rows × width", "CPU seconds"),
            [
                (
                    str(w.hidden),
                    "one row" if w.row_tokens is None else str(w.row_tokens),
                    f"{w.rows} × {w.width}",
                    f"{w.cpu_seconds:.2f}",
                )
                for w in widths
            ],
        )
        body += ["", "Attention costs a token as much as everything else at a width of about " + _equal_widths(widths)]
    return "\n".join(body) + "\n"


def write_results(
    folder: Path, runs: Sequence[VocabularyRun], widths: Sequence[RowWidth], facts: dict[str, Any]
) -> tuple[Path, Path]:
    """Write ``step_cost.md`` and ``step_cost.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    table, data = folder / "step_cost.md", folder / "step_cost.json"
    table.write_text(markdown(runs, widths, facts), encoding="utf-8")
    record = {
        **facts,
        "findings": [asdict(line) for run in runs for line in findings(run)],
        "runs": [asdict(run) for run in runs],
        "row_widths": [asdict(width) for width in widths],
    }
    data.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return table, data


def machine_facts() -> dict[str, Any]:
    """CPU model, cores and versions; nothing that names the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return {"cpu": _cpu_model(), "cores": cores, "versions": versions}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _setting(runs: Sequence[VocabularyRun], facts: dict[str, Any]) -> str:
    sizes = ", ".join(f"{run.parameters / 1e6:.1f}M parameters at {run.name}" for run in runs)
    load = facts.get("load_average")
    busy = f" Load average before and after: {load[0]}, {load[1]}." if load else ""
    return (
        f"Random Llama ({sizes}), float32, LoRA of rank {facts['lora_rank']} on all linear layers, SDPA attention; "
        f"{facts['batches']} micro-batches of {facts['rows']} rows with lengths of STAR-1 "
        f"({facts['lengths']}), each {facts['repeats']} times (fused and two forwards: once). "
        f"Harmful responses are synthetic.{busy}"
    )


def _equal_widths(widths: Sequence[RowWidth]) -> str:
    found = []
    for hidden in dict.fromkeys(width.hidden for width in widths):
        tokens = equal_cost_width([width for width in widths if width.hidden == hidden])
        found.append(f"{tokens:.0f} tokens for a hidden size of {hidden} ({tokens / hidden:.1f} times)")
    return ", ".join(found) + "."


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(line)} |" for line in lines),
    ]
