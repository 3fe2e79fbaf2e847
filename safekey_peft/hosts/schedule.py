"""When the two SafeKey losses are on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LossSchedule:
    """Query-mask and head loss are on in the last N epochs.

    first step = max_steps − ceil(N · update steps per epoch), never below 0

    Attributes:
        last_epochs: N, fractions allowed; ``all``: always on.
        max_steps: optimizer steps of the whole run, resumed parts included.
        steps_per_epoch: optimizer steps of one epoch.
    """

    last_epochs: float | Literal["all"]
    max_steps: int
    steps_per_epoch: int

    @property
    def first_step(self) -> int:
        """First optimizer step, counted from 0, that has the two losses on."""
        if self.last_epochs == "all":
            return 0
        return max(self.max_steps - math.ceil(self.last_epochs * self.steps_per_epoch), 0)

    def is_on(self, global_step: int) -> bool:
        """Whether the step after ``global_step`` finished ones has the two losses on."""
        return global_step >= self.first_step
