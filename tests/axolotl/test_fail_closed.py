"""A run that asks for safety losses and would not apply them stops, with one clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.axolotl.runs import LOSSES, TYPE, config, potion_rows, run_axolotl, write_rows


def stops(cfg: dict[str, Any], *words: str, command: str = "train") -> str:
    run = run_axolotl(command, cfg)
    assert run.exit_code != 0, run.output[-2000:]
    assert run.error, run.output[-3000:]
    for word in words:
        assert word in run.error, run.error
    assert "\n" not in run.error
    assert not (Path(cfg["output_dir"]) / "adapter_model.safetensors").exists()
    return run.error


@pytest.mark.parametrize(
    ("flag", "near"),
    [
        ("safekey_rtoo", "safekey_rto"),
        ("safekey_dualpath", "safekey_dual_path"),
        ("safekey-query-mask", "safekey_query_mask"),
        ("safe_key_rto_keep", "safekey_rto_keep"),
        ("SafeKey_RTO", "safekey_rto"),
        ("safkey_rto_keep", "safekey_rto_keep"),
        ("safekey_presets", "safekey_preset"),
    ],
)
def test_misspelt_flag_stops_with_the_nearest_name(
    base: Path, data: Path, tmp_path: Path, flag: str, near: str
) -> None:
    error = stops(config(base, data, tmp_path / "out", **{flag: True}), flag, f"did you mean {near!r}")
    assert error.startswith("ConfigError")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("safekey_rto", "yes please"),
        ("safekey_rto", 1),
        ("safekey_dual_path_weight", -0.1),
        ("safekey_dual_path_theta", 1.5),
        ("safekey_last_epochs", 0),
        ("safekey_last_epochs", "never"),
        ("safekey_rto_keep", 0.0),
        ("safekey_harmful_prefix_draws", 0),
        ("safekey_refusal_text", "  "),
        ("safekey_annotation", "magic"),
        ("safekey_preset", "al"),
        ("safekey_isolation", "maybe"),
        ("safekey_rto_weight", float("nan")),
    ],
)
def test_wrong_values_stop_before_anything_is_loaded(flag: str, value: Any) -> None:
    from axolotl_plugins.safekey import SafeKeyPlugin
    from safekey_peft.errors import ConfigError

    with pytest.raises(ConfigError, match=flag):
        SafeKeyPlugin().register({**LOSSES, flag: value})


def test_all_faults_of_the_flags_are_named_at_once() -> None:
    from axolotl_plugins.safekey import SafeKeyPlugin
    from safekey_peft.errors import ConfigError

    with pytest.raises(ConfigError) as stop:
        SafeKeyPlugin().register({"safekey_rto_keep": 7, "safekey_dual_path_weight": -1})
    assert "safekey_rto_keep" in str(stop.value) and "safekey_dual_path_weight" in str(stop.value)


def test_conflicting_options_are_named_at_once() -> None:
    from axolotl_plugins.safekey import SafeKeyPlugin
    from safekey_peft.errors import ConfigError

    with pytest.raises(ConfigError) as stop:
        SafeKeyPlugin().register({**LOSSES, "rl": "dpo", "context_parallel_size": 2, "datasets": [{"path": "x"}]})
    assert "rl:" in str(stop.value) and "context_parallel_size" in str(stop.value)


def test_dataset_type_without_the_plugin_stops(base: Path, data: Path, tmp_path: Path) -> None:
    cfg = config(base, data, tmp_path / "out", plugins=None)
    stops(cfg, "needs its plugin", "plugins: [axolotl_plugins.safekey.SafeKeyPlugin]")


def test_plugin_that_cannot_import_stops_the_run(base: Path, data: Path, tmp_path: Path) -> None:
    """Through the real command, with one of the plugin's dependencies broken."""
    broken = tmp_path / "site"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'safekey_peft.config':\n"
        "            raise ModuleNotFoundError('No module named ' + name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    cfg = config(base, data, tmp_path / "out")
    path = tmp_path / "cfg.yml"
    path.write_text(json.dumps(cfg))
    environment = {**os.environ, "PYTHONPATH": str(broken)}
    result = subprocess.run(
        [sys.executable, "-m", "axolotl.cli.train", str(path)],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert result.returncode != 0
    assert "the safekey plugin cannot be imported, so the safety losses would not be trained" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("loss", ["dual_path", "query_mask", "harmful_prefix", "rto"])
def test_loss_without_a_row_stops(base: Path, tmp_path: Path, loss: str) -> None:
    bare = [{"query": row["query"], "response": row["response"]} for row in potion_rows(4)]
    data = write_rows(tmp_path / "bare.jsonl", bare)
    only = {flag: flag == f"safekey_{loss}" for flag in LOSSES if flag != "safekey_last_epochs"}
    stops(config(base, data, tmp_path / "out", **only), f"safekey_{loss} is on but no training row feeds it")


def test_loss_of_a_preset_without_a_row_stops(base: Path, tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "harmful_response"} for row in potion_rows(8)]
    data = write_rows(tmp_path / "marked.jsonl", rows)
    cfg = config(base, data, tmp_path / "out", **dict.fromkeys(LOSSES), safekey_preset="all")
    error = stops(cfg, "safekey_harmful_prefix is on but no training row feeds it")
    assert error.endswith("beside safekey_preset: all with safekey_harmful_prefix: false and safekey_rto: false.")
    assert "safekey_query_mask is on" not in error


def test_every_row_dropped_stops_with_reasons(base: Path, tmp_path: Path) -> None:
    data = tmp_path / "broken.jsonl"
    data.write_text('{"query": 1}\n[]\n{nonsense}\n')
    stops(config(base, data, tmp_path / "out"), "not one of 3 rows can be used", "broken.jsonl:1")


def test_every_row_too_long_stops(base: Path, data: Path, tmp_path: Path) -> None:
    stops(config(base, data, tmp_path / "out", sequence_len=16), "not one of 24 rows can be used", "too_long")


def test_excess_length_raise_stops(base: Path, data: Path, tmp_path: Path) -> None:
    cfg = config(base, data, tmp_path / "out", sequence_len=120, excess_length_strategy="raise")
    stops(cfg, "tokens, at most 120 fit")


def test_template_that_loses_the_key_sentence_stops(base: Path, data: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content[:4] }}\n{% endfor %}"
    cfg = config(base, data, tmp_path / "out", chat_template="jinja", chat_template_jinja=template)
    stops(cfg, "does not write the text of an assistant turn; it would be lost")


def test_template_that_closes_the_thought_stops(base: Path, data: Path, tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<|User|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|Assistant|><think>\n\n</think>\n\n{% endif %}"
    )
    cfg = config(base, data, tmp_path / "out", chat_template="jinja", chat_template_jinja=template)
    stops(cfg, "not one of 24 rows can be used", "key_sentence_lost")


def test_missing_file_stops(base: Path, tmp_path: Path) -> None:
    stops(config(base, tmp_path / "nowhere.jsonl", tmp_path / "out"), "nowhere.jsonl")


BROKEN_LINES = [
    b'{"query": "a", "response": 3}',
    b'{"query": "a", "response": "b", "understanding_end": 2}',
    b'{"query": "a", "response": "Ab. Cd.", "understanding_end": 6, "key_sentence_end": 3}',
    b'{"query": "a", "response": "Ab. Cd.", "understanding_end": 3, "key_sentence_end": 99}',
    b'{"query": "a", "response": "\\ud800"}',
    b'{"query": "a", "response": "b\\u0000c"}',
    b'{"query": "", "response": "b"}',
    b"\xff\xfe broken",
    b"[1, 2]",
    b'"text"',
    b'{"query": "a", "response": "b", "is_harmful": "yes"}',
    b'{"question": "q", "response": "<think>never closed"}',
    b'{"query": "a", "response": "b"',
    b'{"foo": 1}',
]


def test_broken_rows_are_counted_and_named_and_good_ones_kept(base: Path, tmp_path: Path) -> None:
    data = tmp_path / "mixed.jsonl"
    good = [json.dumps(row).encode() for row in potion_rows(16)]
    huge = json.dumps({"query": "long", "response": "<think>\nHm. No.\n</think>\n\n" + "stir " * 400_000}).encode()
    lines = [b"\xef\xbb\xbf" + good[0], *BROKEN_LINES, huge, *good[1:]]
    data.write_bytes(b"\r\n".join(lines) + b"\r\n\r\n")
    run = run_axolotl("train", config(base, data, tmp_path / "out", max_steps=1))
    assert run.exit_code == 0, run.output[-3000:]
    rows = json.loads((tmp_path / "out" / "safekey_manifest.json").read_text())["rows"]
    assert rows["read"] == len(lines)
    assert rows["used"] == 16
    assert sum(rows["dropped"].values()) == len(BROKEN_LINES) + 1
    assert rows["dropped"]["too_long"] == 1
    for line in (2, 9, 15):
        assert f"mixed.jsonl:{line}" in run.output
    assert "stir stir stir stir stir stir stir stir stir stir stir stir stir stir stir" not in run.output


def test_stock_type_with_losses_on_stops(base: Path, tmp_path: Path) -> None:
    data = tmp_path / "chat.jsonl"
    turn = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello, what shall we brew?"}]
    data.write_text((json.dumps({"messages": turn}) + "\n") * 6)
    cfg = config(base, data, tmp_path / "out", datasets=[{"path": str(data), "type": "chat_template"}])
    error = stops(cfg, "safekey_rto is on but no training row feeds it")
    assert TYPE not in error


def test_first_rows_all_unusable_do_not_end_the_run(base: Path, tmp_path: Path) -> None:
    data = tmp_path / "late.jsonl"
    good = [json.dumps(row) for row in potion_rows(16)]
    data.write_text("\n".join([*['{"query": "a", "response": 3}'] * 200, *good]) + "\n")
    run = run_axolotl("train", config(base, data, tmp_path / "out", max_steps=1))
    assert run.exit_code == 0, run.output[-3000:]
    manifest = json.loads((tmp_path / "out" / "safekey_manifest.json").read_text())
    assert manifest["rows"]["dropped"] == {"wrong_type": 200}


def test_other_plugins_trainer_before_ours_stops(base: Path, data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Axolotl takes the first trainer that a plugin offers."""
    import types

    from axolotl.core.trainers.base import AxolotlTrainer
    from axolotl.integrations.base import BasePlugin

    class Other(BasePlugin):
        def get_trainer_cls(self, cfg: Any) -> type:
            return AxolotlTrainer

    module = types.ModuleType("other_plugin")
    module.Other = Other  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_plugin", module)
    cfg = config(base, data, tmp_path / "out")
    cfg["plugins"] = ["other_plugin.Other", *cfg["plugins"]]
    stops(cfg, "before ours, so the safety losses would not be trained")


def test_folder_of_files_is_read_row_by_row(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    write_rows(folder / "a.jsonl", potion_rows(8))
    (folder / "b.jsonl").write_text("{broken\n" + "".join(json.dumps(row) + "\n" for row in potion_rows(16)[8:]))
    run = run_axolotl("train", config(base, folder, tmp_path / "out", max_steps=1))
    assert run.exit_code == 0, run.output[-3000:]
    rows = json.loads((tmp_path / "out" / "safekey_manifest.json").read_text())["rows"]
    assert (rows["read"], rows["used"]) == (17, 16)
    assert "b.jsonl:1" in run.output


def test_null_columns_of_other_loaders_do_not_change_the_format() -> None:
    from axolotl_plugins.safekey.loading import source_rows
    from safekey_peft.data.rows import parse_row

    columns = {
        "question": ["How?"], "response": ["<think>\nA b. C d.\n</think>\n\nSure."], "source": ["4o_rewrite"],
        "category": ["x"], "summary_end_idx": [None], "next_sentence_end_idx": [None],
    }  # fmt: skip
    (source,) = source_rows(columns, [0], "hub")
    assert parse_row(source.value, source.where).is_harmful is False


def test_manifest_holds_no_secret_of_an_address() -> None:
    from axolotl_plugins.safekey.loading import _without_secrets

    assert _without_secrets("https://me:tok3n@host.example/x.jsonl?sig=abc#f") == "https://host.example/x.jsonl"
    assert _without_secrets("UCSC-VLAA/STAR-1") == "UCSC-VLAA/STAR-1"


@pytest.mark.parametrize("option", ["fsdp_config", "deepspeed", "do_causal_lm_eval", "eval_table_size"])
def test_options_that_would_lose_the_head_or_crash_late_are_refused(option: str) -> None:
    from axolotl_plugins.safekey import SafeKeyPlugin
    from safekey_peft.errors import ConfigError

    with pytest.raises(ConfigError, match=option):
        SafeKeyPlugin().register({**LOSSES, option: 1, "datasets": [{"path": "x"}]})
