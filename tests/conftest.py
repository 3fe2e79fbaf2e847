"""Offline, single-threaded test runs; tests marked gpu, slow or network wait to be selected."""

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

OPT_IN_MARKERS = ("gpu", "slow", "network")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add one switch per opt-in marker."""
    for name in OPT_IN_MARKERS:
        parser.addoption(f"--{name}", action="store_true", help=f"also run the tests marked {name}")


def pytest_configure(config: pytest.Config) -> None:
    """Keep torch on one thread: the order of its sums depends on their number."""
    try:
        import torch
    except ImportError:  # the parts that need no torch are tested without it
        return
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip opt-in tests that neither their switch nor the `-m` expression selects."""
    expression = config.getoption("markexpr") or ""
    for item in items:
        for name in OPT_IN_MARKERS:
            if name in item.keywords and not config.getoption(f"--{name}") and name not in expression:
                item.add_marker(pytest.mark.skip(reason=f"opt-in: pytest --{name}"))
