"""Errors of the package: one root, so that a host can stop a run on any of them."""

from __future__ import annotations


class SafeKeyError(ValueError):
    """Something a user can mend: a flag, a row, a model that does not fit."""


class ConfigError(SafeKeyError):
    """A flag, or a combination of flags, that cannot be trained as asked."""


class DataError(SafeKeyError):
    """Rows that cannot be used, or a loss that is left without rows."""
