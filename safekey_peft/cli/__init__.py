"""The ``safekey`` command; also ``axolotl safekey``. Starts without torch."""

from __future__ import annotations

from safekey_peft.cli.main import main

__all__ = ["main"]
