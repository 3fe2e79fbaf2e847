"""``safekey_manifest.json``: what a run trained, beside its weights."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safekey_peft
from safekey_peft.config import SafeKeyConfig

MANIFEST_FILE = "safekey_manifest.json"
MANIFEST_VERSION = 1
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "axolotl")


def build_manifest(
    config: SafeKeyConfig,
    *,
    data: Mapping[str, Any] | None,
    rows_feeding: Mapping[str, int],
    run: Mapping[str, Any],
    datasets: list[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Collect the manifest.

    Args:
        config: the run's options.
        data: ``DataReport.counts()`` of everything prepared, validation rows included; None where unknown.
        rows_feeding: training rows that feed each loss.
        run: isolation, cross-entropy, schedule and the like.
        datasets: path and fingerprint of each data set.
    """
    options = config.model_dump()
    counts = (
        dict(data)
        if data is not None
        else {"rows": None, "examples": None, "examples_dropped": None, "rows_feeding": None}
    )
    return {
        "manifest_version": MANIFEST_VERSION,
        "losses": list(config.active),
        "weights": {
            "dual_path": config.dual_path_weight,
            "query_mask": config.query_mask_weight,
            "rto": config.rto_weight,
            "theta": config.dual_path_theta,
        },
        "options": options,
        **counts,
        "train_rows_feeding": dict(rows_feeding),
        "run": dict(run),
        "datasets": [dict(entry) for entry in datasets or []],
        "versions": {"safekey_peft": safekey_peft.__version__, **_versions()},
    }


def write_manifest(manifest: Mapping[str, Any], folder: str | Path) -> Path:
    """Write the manifest atomically."""
    path = Path(folder) / MANIFEST_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
