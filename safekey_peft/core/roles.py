"""Loss roles: which sum a target token belongs to."""

from __future__ import annotations

from enum import IntEnum


class LossRole(IntEnum):
    """The loss that a target token feeds. The number is what stands in a token's tag.

    ``SFT`` and ``PREFIX`` are both cross-entropy on the safe response; ``PREFIX`` marks responses that
    follow a non-empty harmful prefix, so that the two are reported apart.
    """

    NONE = 0
    SFT = 1
    PREFIX = 2
    RTO = 3
    KEY = 4


TARGET_ROLES: tuple[LossRole, ...] = (LossRole.SFT, LossRole.PREFIX, LossRole.RTO, LossRole.KEY)
"""The roles that have targets, in the order in which a batch lists them."""
