"""How wide the rows should be in which examples are packed when attention has a dense mask.

One row of everything fills nothing up but lets every token attend over the whole row; many short rows cost filling.
``SafeKeyCollator.row_tokens`` is the width at which attention costs a token as much as everything else; it grows with
the model's hidden size, so two sizes are measured. Large candidates make the collator divide the batch into few rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import linear_regression, median
from typing import Any

from benchmarks.examples import build_micro_batch
from benchmarks.lengths import RowLengths

CANDIDATES: tuple[int | None, ...] = (None, 2**20, 2**16, 2**14, 2048, 512)
VOCABULARY = 2048
"""Small: the LM head costs the same in every division."""


@dataclass(frozen=True, slots=True)
class RowWidth:
    """One candidate for one model.

    Attributes:
        hidden: H of the model.
        row_tokens: the collator's option.
        rows: of the batch.
        width: of these rows.
        cpu_seconds: median over repeats; candidates that divide the batch in the same way share it.
    """

    hidden: int
    row_tokens: int | None
    rows: int
    width: int
    cpu_seconds: float


def equal_cost_width(widths: Sequence[RowWidth]) -> float:
    """Estimate the width at which attention costs as much as the rest, from seconds = tokens · (a + b · width).

    Args:
        widths: of one model.

    Returns:
        a / b; not a number where all candidates gave the same division.
    """
    shapes = {(w.rows, w.width): w.cpu_seconds for w in widths}
    if len(shapes) < 2:
        return float("nan")
    x = [width for _, width in shapes]
    y = [seconds / (rows * width) for (rows, width), seconds in shapes.items()]
    slope, intercept = linear_regression(x, y)
    return intercept / slope if slope else float("inf")


def measure_row_widths(
    sizes: Sequence[Any],
    rows: Sequence[RowLengths],
    candidates: Sequence[int | None],
    repeats: int,
    advance: Callable[[str], None],
) -> list[RowWidth]:
    """Time a SafeKey step for every division, interleaved."""
    from benchmarks.variants import Workbench
    from safekey_peft.data.collator import SafeKeyCollator, join_masked_segments

    found = []
    for size in sizes:
        bench = Workbench(size, VOCABULARY, None)
        bench.step("safekey", build_micro_batch([RowLengths(4, 3, 2, 8)] * 2, VOCABULARY, seed=0))
        batch = build_micro_batch(rows, VOCABULARY, seed=0)
        shapes = {}
        for option in candidates:
            collator = SafeKeyCollator(bench.collator.pad_token_id, row_tokens=option)
            shapes[option] = tuple(join_masked_segments(collator(batch.safekey))[0].shape)
        distinct = {shape: option for option, shape in shapes.items()}
        seconds: dict[tuple[int, ...], list[float]] = {shape: [] for shape in distinct}
        for _ in range(repeats):
            for shape, option in distinct.items():
                advance(f"hidden {size.hidden}, {shape[0]} × {shape[1]}")
                bench.collator.row_tokens = option
                cpu = time.process_time()
                bench.step("safekey", batch)
                seconds[shape].append(time.process_time() - cpu)
        for option, shape in shapes.items():
            found.append(RowWidth(size.hidden, option, shape[0], shape[1], median(seconds[shape])))
    return found
