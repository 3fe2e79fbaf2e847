"""Peak memory of one step, each variant in a child process of its own.

The child builds the model, runs one tiny step (which allocates gradients and optimizer state), notes its resident
memory, resets the kernel's high-water mark and runs one full step. What counts is resident memory at its highest, less
what was resident before the step: logits, activations and gradients, not the weights, which are the same for all.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import resource
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
M_MMAP_THRESHOLD, MMAP_FROM_BYTES = -3, 1 << 17
KIB = 1024
GIB = 2**30


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Bytes.

    Attributes:
        model: resident before the step.
        peak: highest during the step.
    """

    model: int
    peak: int

    @property
    def step(self) -> int:
        """What the step needs beside what was there."""
        return self.peak - self.model


class PeakMeter:
    """Children that each measure one variant; started from a server that imported everything once."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["benchmarks.variants"])

    def measure(self, variant: str, **job: Any) -> PeakMemory:
        """Run ``measured_step`` in a child.

        Raises:
            RuntimeError: the child died, e.g. for lack of memory.
        """
        ours, theirs = self._context.Pipe(duplex=False)
        child = self._context.Process(target=_child, args=(theirs, variant, job))
        child.start()
        theirs.close()
        try:
            answer: dict[str, int] = ours.recv()
        except EOFError:
            child.join()
            raise RuntimeError(f"the child that measured {variant} ended with exit code {child.exitcode}") from None
        child.join()
        return PeakMemory(**answer)


def measured_step(
    variant: str, *, size: Any, vocabulary: int, row_tokens: int | None, rows: Any, threads: int
) -> PeakMemory:
    """Build the model in this process and measure one step."""
    import torch

    from benchmarks.examples import build_micro_batch
    from benchmarks.lengths import RowLengths
    from benchmarks.variants import Workbench

    torch.set_num_threads(threads)
    bench = Workbench(size, vocabulary, row_tokens)
    bench.step(variant, build_micro_batch([RowLengths(2, 2, 1, 4)] * 2, vocabulary, seed=0))
    batch = build_micro_batch(rows, vocabulary, seed=0)
    _reset_peak()
    before = _status_bytes("VmRSS")
    bench.step(variant, batch)
    return PeakMemory(model=before, peak=_status_bytes("VmHWM"))


def _child(pipe: Any, variant: str, job: dict[str, Any]) -> None:
    _give_freed_memory_back()
    pipe.send(asdict(measured_step(variant, **job)))
    pipe.close()


def _give_freed_memory_back() -> None:
    """Have glibc map every tensor separately.

    Otherwise it keeps freed blocks of up to 32 MiB in its heap, and the peak of the same step differs by half.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES)


def _reset_peak() -> None:
    # Where that fails the peak includes the model's construction, which is smaller than a full step.
    with contextlib.suppress(OSError):
        RESET.write_text("5")


def _status_bytes(name: str) -> int:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith(f"{name}:"))
