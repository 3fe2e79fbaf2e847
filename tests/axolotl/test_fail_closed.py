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
