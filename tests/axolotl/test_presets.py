"""A preset trains what its flags, written out, train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safekey_peft.config import PRESETS, config_from_flags
from safekey_peft.errors import ConfigError
from tests.axolotl.runs import LOSSES, config, run_axolotl
from tests.axolotl.test_train import largest_difference, manifest, succeeded, weights

NO_FLAGS = dict.fromkeys(LOSSES)


def test_preset_trains_the_same_bits_from_the_same_prepared_rows(base: Path, data: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {**NO_FLAGS, "num_epochs": 3, "micro_batch_size": 24}
    named = run_axolotl("train", config(base, data, tmp_path / "named", **common, safekey_preset="safekey"))
    succeeded(named)
    flags = {f"safekey_{name}": value for name, value in PRESETS["safekey"].items()}
    written = run_axolotl("train", config(base, data, tmp_path / "written", **{**common, **flags}))
    succeeded(written)
    assert "Loading prepared dataset from disk" in written.output
    assert largest_difference(weights(tmp_path / "named"), weights(tmp_path / "written")) == 0.0
    assert "safekey: training with dual_path, query_mask (preset safekey)" in named.output
    one, two = manifest(tmp_path / "named"), manifest(tmp_path / "written")
    assert (one["options"]["preset"], two["options"]["preset"]) == ("safekey", None)
    assert {**one["options"], "preset": None} == two["options"]
    assert one["losses"] == ["dual_path", "query_mask"] and one["run"] == two["run"]
    assert one["run"]["safekey_losses_from_step"] > 0


def test_sweep_over_presets_reaches_every_one() -> None:
    from axolotl.cli.utils.sweeps import generate_sweep_configs

    runs = generate_sweep_configs({"safekey_rto_weight": 0.5}, {"safekey_preset": list(PRESETS)})
    found = {run["safekey_preset"]: config_from_flags(run) for run in runs}
    assert set(found) == set(PRESETS)
    assert all(options.rto_weight == 0.5 for options in found.values())


@pytest.mark.parametrize("program", ["axolotl", "/usr/bin/axolotl", "C:/axolotl.exe", "/x/axolotl/cli/main.py"])
@pytest.mark.parametrize("words", [["--safekey-preset=all"], ["--safekey_preset", "all"], ["--safekey-rto"]], ids=str)
def test_flags_that_the_command_line_would_drop_stop_the_run(
    monkeypatch: pytest.MonkeyPatch, program: str, words: list[str]
) -> None:
    from axolotl_plugins.safekey import SafeKeyPlugin

    monkeypatch.setattr("sys.argv", [program, "train", "run.yaml", "--launcher", "python", *words])
    with pytest.raises(ConfigError, match=f"axolotl drops {words[0]}"):
        SafeKeyPlugin().register({})


@pytest.mark.parametrize(
    "words",
    [
        ["/x/axolotl/cli/train.py", "run.yaml", "--safekey-preset=all"],
        ["axolotl", "train", "safekey_preset.yaml", "--output-dir", "safekey_x"],
        [],
    ],
    ids=str,
)
def test_other_command_lines_are_left_alone(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    from axolotl_plugins.safekey import SafeKeyPlugin

    monkeypatch.setattr("sys.argv", words)
    SafeKeyPlugin().register({})


def test_losses_that_are_all_switched_off_are_told_with_the_preset(caplog: pytest.LogCaptureFixture) -> None:
    from axolotl_plugins.safekey import SafeKeyPlugin
    from axolotl_plugins.safekey.plugin import DATASET_TYPE

    off = {"safekey_preset": "derta", "safekey_rto": False, "safekey_harmful_prefix": False}
    SafeKeyPlugin().register({**off, "datasets": [{"path": "x", "type": DATASET_TYPE}]})
    assert "all four losses are off (preset derta but for harmful_prefix, rto)" in caplog.text
