"""Offline, single-threaded test runs; tests marked gpu, slow or network wait to be selected with `-m`."""

from __future__ import annotations

import os

# Before anything imports a library that reads them.
for _name, _value in {
    "AXOLOTL_DO_NOT_TRACK": "1",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
}.items():
    os.environ.setdefault(_name, _value)

import pytest  # noqa: E402

OPT_IN_MARKERS = {
    "gpu": "needs a CUDA device",
    "slow": "takes more than a few seconds",
    "network": "downloads something",
}


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and keep torch on one thread: the order of its sums depends on their number."""
    for name, meaning in OPT_IN_MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}; run only when selected with -m")
    try:
        import torch
    except ImportError:  # the parts that need no torch are tested without it
        return
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip opt-in tests whose marker the `-m` expression does not mention."""
    selected = config.getoption("markexpr") or ""
    for item in items:
        for name in OPT_IN_MARKERS:
            if name in item.keywords and name not in selected:
                item.add_marker(pytest.mark.skip(reason=f"opt-in: pytest -m {name}"))
