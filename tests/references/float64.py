"""Real double precision for transformers models.

A model moved to float64 still computes norms, rotary angles and attention probabilities in float32, because
its code says `.to(torch.float32)`, `.float()` or `softmax(..., dtype=torch.float32)`. Two equal computations
then agree to 1e-7 only, which hides small mistakes. Inside `exact_float64()` each request for float32 is
answered with float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class exact_float64(TorchFunctionMode):  # noqa: N801 (reads as a function: `with exact_float64():`)
    """Context in which every computation that asks for float32 is done in float64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace float32 among the arguments, then call `func`."""
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = tuple(_widened(value) for value in args)
        return func(*args, **{name: _widened(value) for name, value in (kwargs or {}).items()})


def _widened(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
