"""The Axolotl plugin: ``plugins: [axolotl_plugins.safekey.SafeKeyPlugin]``.

Axolotl logs a plugin whose import fails and trains on without it. So an import error of ours is raised as another
kind of error, which stops the run.
"""

from __future__ import annotations

try:
    from axolotl_plugins.safekey.plugin import SafeKeyPlugin
except ImportError as error:
    raise RuntimeError(
        f"the safekey plugin cannot be imported, so the safety losses would not be trained: {error}. "
        "Install it with its dependencies: pip install 'safekey-peft[axolotl]'"
    ) from error

__all__ = ["SafeKeyPlugin"]
