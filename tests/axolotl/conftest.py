"""Fixtures of the Axolotl runs."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("axolotl")

from tests.axolotl.runs import write_base, write_rows  # noqa: E402


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "potions.jsonl")
