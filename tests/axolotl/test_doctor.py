"""The doctor never passes a configuration that training refuses, and names the key; it passes the good ones."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from safekey_peft.cli import main as safekey
from safekey_peft.doctor.examination import Options, examine
from safekey_peft.doctor.findings import Findings
from tests.axolotl.runs import LOSSES, TYPE, config, potion_rows, run_axolotl, write_rows
from tests.axolotl.test_fail_closed import BROKEN_LINES

KEEPS_NO_TEXT = "{% for m in messages %}{{ m.role }}: {{ m.content[:4] }}\n{% endfor %}"
CLOSES_THOUGHT = (
    "{% for m in messages %}<|User|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n\n</think>\n\n{% endif %}"
)


def examined(cfg: dict[str, Any], folder: Path, **options: Any) -> Findings:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(cfg), encoding="utf-8")
    return examine(path, Options(**options))


def messages(findings: Findings, level: str) -> str:
    return "\n".join(f"{item.key}: {item.message} {item.remedy}" for item in findings.items if item.level == level)


def refused(cfg: dict[str, Any], folder: Path, *words: str) -> str:
    findings = examined(cfg, folder)
    faults = messages(findings, "fault")
    assert findings.verdict == "faults", [item for item in findings.items if item.level != "ok"]
    for word in words:
        assert word in faults, faults
    assert not any("\n" in item.message for item in findings.items)
    return faults


def passed(cfg: dict[str, Any], folder: Path, **options: Any) -> Findings:
    findings = examined(cfg, folder, **options)
    assert findings.verdict != "faults", messages(findings, "fault")
    return findings


# ---------------------------------------------------------------------- what training refuses


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
def test_misspelt_flag_is_a_fault_with_the_nearest_name(
    base: Path, data: Path, tmp_path: Path, flag: str, near: str
) -> None:
    refused(config(base, data, tmp_path / "out", **{flag: True}), tmp_path, flag, f"did you mean {near!r}")


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
def test_wrong_value_is_a_fault(base: Path, data: Path, tmp_path: Path, flag: str, value: Any) -> None:
    findings = examined(config(base, data, tmp_path / "out", **{flag: value}), tmp_path)
    assert [item.key for item in findings.items if item.level == "fault"] == [flag]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rl", "dpo"),
        ("reward_model", True),
        ("process_reward_model", True),
        ("streaming", True),
        ("pretraining_dataset", "x"),
        ("skip_prepare_dataset", True),
        ("batch_flattening", True),
        ("use_pose", True),
        ("relora", True),
        ("processor_type", "AutoProcessor"),
        ("orpo_alpha", 0.1),
        ("use_eaft", True),
        ("label_smoothing_factor", 0.1),
        ("kd_trainer", True),
        ("torch_compile", True),
        ("fsdp", ["full_shard"]),
        ("fsdp_config", {"offload_params": True}),
        ("deepspeed", "zero.json"),
        ("do_causal_lm_eval", True),
        ("do_bench_eval", True),
        ("eval_table_size", 1),
        ("use_mora", True),
        ("context_parallel_size", 2),
        ("sequence_parallel_degree", 2),
        ("tensor_parallel_size", 2),
        ("expert_parallel_size", 2),
        ("eval_sequence_len", 64),
        ("accelerator_config", {"split_batches": True}),
        ("optimizer", "galore_adamw_layerwise"),
    ],
)
def test_option_that_contradicts_the_losses_is_a_fault(
    base: Path, data: Path, tmp_path: Path, option: str, value: Any
) -> None:
    refused(config(base, data, tmp_path / "out", **{option: value}), tmp_path, f"{option}")


def test_every_conflict_of_the_plugin_has_a_test() -> None:
    from axolotl_plugins.safekey import conflicts

    (mark,) = test_option_that_contradicts_the_losses_is_a_fault.pytestmark  # type: ignore[attr-defined]
    tested = {option for option, _ in mark.args[1]}
    assert {*conflicts._CONFLICTS, *conflicts._SIZES} <= tested


def test_all_faults_come_at_once(base: Path, data: Path, tmp_path: Path) -> None:
    entries = [{"path": str(data), "type": TYPE, "spilt": "train"}, {"path": "nowhere.jsonl", "type": TYPE}]
    cfg = config(
        base, data, tmp_path / "out", safekey_rto_keep=7, safekey_dualpath=True, rl=None, torch_compile=True,
        sample_pack=True, datasets=entries, hub_model_id="no id/x",
    )  # fmt: skip
    words = ["safekey_rto_keep", "safekey_dualpath", "torch_compile", "Did you mean sample_packing", "hub_model_id"]
    refused(cfg, tmp_path, *words, "datasets[0].spilt", "datasets[1].path", "nowhere.jsonl")


def test_plugin_not_listed_is_a_fault(base: Path, data: Path, tmp_path: Path) -> None:
    refused(config(base, data, tmp_path / "out", plugins=None), tmp_path, "plugins: [axolotl_plugins.safekey")


@pytest.mark.parametrize("name", ["axolotl_plugins.safekey.SafeKeyPlugn", "axolotl_plugin.safekey.SafeKeyPlugin"])
def test_misspelt_plugin_is_a_fault(base: Path, data: Path, tmp_path: Path, name: str) -> None:
    refused(
        config(base, data, tmp_path / "out", plugins=[name]), tmp_path, name, "axolotl_plugins.safekey.SafeKeyPlugin"
    )


@pytest.mark.parametrize("loss", ["dual_path", "query_mask", "harmful_prefix", "rto"])
def test_loss_without_a_row_is_a_fault(base: Path, tmp_path: Path, loss: str) -> None:
    bare = [{"query": row["query"], "response": row["response"]} for row in potion_rows(4)]
    data = write_rows(tmp_path / "bare.jsonl", bare)
    only = {flag: flag == f"safekey_{loss}" for flag in LOSSES if flag != "safekey_last_epochs"}
    faults = refused(
        config(base, data, tmp_path / "out", **only), tmp_path, f"safekey_{loss} is on but no training row"
    )
    assert faults.count("no training row") == 1


def test_loss_of_a_preset_without_a_row_is_a_fault_at_the_presets_line(base: Path, tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "harmful_response"} for row in potion_rows(8)]
    data = write_rows(tmp_path / "marked.jsonl", rows)
    cfg = config(base, data, tmp_path / "out", **dict.fromkeys(LOSSES), safekey_preset="all")
    findings = examined(cfg, tmp_path)
    found = [item for item in findings.items if item.level == "fault"]
    assert [item.key for item in found] == ["safekey_harmful_prefix", "safekey_rto"]
    line = 1 + (tmp_path / "run.yaml").read_text().splitlines().index("safekey_preset: all")
    assert [item.line for item in found] == [line, line]
    assert "beside safekey_preset: all with safekey_rto: false" in found[1].message
    off = {"safekey_harmful_prefix": False, "safekey_rto": False}
    assert "set beside it: safekey_harmful_prefix: false" in messages(passed({**cfg, **off}, tmp_path), "info")


def test_no_usable_row_is_a_fault_with_reasons(base: Path, tmp_path: Path) -> None:
    data = tmp_path / "broken.jsonl"
    data.write_text('{"query": 1}\n[]\n{nonsense}\n')
    refused(config(base, data, tmp_path / "out"), tmp_path, "not one of 3 rows can be used", "broken.jsonl:1")


def test_rows_that_do_not_fit_are_a_fault(base: Path, data: Path, tmp_path: Path) -> None:
    refused(config(base, data, tmp_path / "out", sequence_len=16), tmp_path, "not one of 24 rows", "too_long")


def test_excess_length_raise_is_a_fault(base: Path, data: Path, tmp_path: Path) -> None:
    cfg = config(base, data, tmp_path / "out", sequence_len=120, excess_length_strategy="raise")
    refused(cfg, tmp_path, "tokens, at most 120 fit")


@pytest.mark.parametrize(
    ("template", "word"),
    [(KEEPS_NO_TEXT, "does not write the text of an assistant turn"), (CLOSES_THOUGHT, "key_sentence_lost")],
)
def test_template_that_loses_the_key_sentence_is_a_fault(
    base: Path, data: Path, tmp_path: Path, template: str, word: str
) -> None:
    refused(config(base, data, tmp_path / "out", chat_template="jinja", chat_template_jinja=template), tmp_path, word)


def test_template_of_one_data_set_is_a_fault(base: Path, data: Path, tmp_path: Path) -> None:
    entry = {"path": str(data), "type": TYPE, "chat_template": "chatml"}
    refused(config(base, data, tmp_path / "out", datasets=[entry]), tmp_path, "is of this data set alone")


def test_missing_file_is_a_fault(base: Path, tmp_path: Path) -> None:
    refused(config(base, tmp_path / "nowhere.jsonl", tmp_path / "out"), tmp_path, "nowhere.jsonl", "datasets[0].path")


def test_empty_file_is_a_fault(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    refused(config(base, tmp_path / "empty.jsonl", tmp_path / "out"), tmp_path, "empty.jsonl")


def test_evaluation_set_without_a_usable_row_is_a_fault(base: Path, data: Path, tmp_path: Path) -> None:
    broken = write_rows(tmp_path / "eval.jsonl", [{"query": 1}])
    cfg = config(base, data, tmp_path / "out", test_datasets=[{"path": str(broken), "type": TYPE, "split": "train"}])
    refused(cfg, tmp_path, "test_datasets[0].path", "eval.jsonl")


def test_unreadable_split_is_a_fault(base: Path, data: Path, tmp_path: Path) -> None:
    entry = {"path": str(data), "type": TYPE, "split": "train[:x]"}
    refused(config(base, data, tmp_path / "out", datasets=[entry]), tmp_path, "split")


def test_validation_split_that_leaves_nothing_is_a_fault(base: Path, data: Path, tmp_path: Path) -> None:
    refused(config(base, data, tmp_path / "out", val_set_size=24), tmp_path, "val_set_size")


def test_loss_whose_only_row_is_held_out_is_a_fault_exactly_where_training_stops(base: Path, tmp_path: Path) -> None:
    """Which rows are held out is drawn in the same way."""
    verdicts: dict[bool, dict[str, Any]] = {}
    for index in range(12):
        rows = potion_rows(12)
        for number, row in enumerate(rows):
            row["harmful_response"] = "Stir it." if number == index else None
        folder = tmp_path / str(index)
        folder.mkdir()
        data = write_rows(folder / "rows.jsonl", rows)
        cfg = config(base, data, folder / "out", val_set_size=0.5, safekey_harmful_prefix=False, max_steps=1)
        verdicts[examined(cfg, folder).verdict == "faults"] = cfg
    assert set(verdicts) == {True, False}
    assert run_axolotl("train", verdicts[False]).exit_code == 0
    assert "safekey_rto is on but no training row feeds it" in run_axolotl("train", verdicts[True]).error


def test_stock_type_with_losses_on_is_a_fault(base: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "chat.jsonl", potion_rows(4))
    cfg = config(base, data, tmp_path / "out", datasets=[{"path": str(data), "type": "chat_template"}])
    refused(cfg, tmp_path, TYPE, "datasets")


def test_stock_data_that_cannot_be_read_is_a_fault(base: Path, data: Path, tmp_path: Path) -> None:
    entries = [{"path": str(data), "type": TYPE}, {"path": str(tmp_path / "chat.jsonl"), "type": "chat_template"}]
    cfg = config(base, data, tmp_path / "out", datasets=entries)
    refused(cfg, tmp_path, "datasets[1].path", "chat.jsonl")
    (tmp_path / "chat.jsonl").write_text('{"messages": [{"role": "user", "content": "Hello"}]}\n')
    assert "1 rows of Axolotl's own type" in messages(passed(cfg, tmp_path), "info")


def test_other_plugins_trainer_before_ours_is_a_fault(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    ours = cfg["plugins"]
    refused({**cfg, "plugins": ["other_plugin.Other", *ours]}, tmp_path, "before ours", "losses would not be trained")
    assert "other_plugin" in messages(passed({**cfg, "plugins": [*ours, "other_plugin.Other"]}, tmp_path), "warning")


def test_model_that_mixes_segments_is_refused_only_where_packed_is_asked_for(
    base: Path, data: Path, tmp_path: Path
) -> None:
    from transformers import GPT2Config

    mixing = tmp_path / "gpt2"
    shutil.copytree(base, mixing)
    GPT2Config(vocab_size=600, n_embd=64, n_layer=2, n_head=4).save_pretrained(mixing)
    cfg = config(mixing, data, tmp_path / "out", safekey_isolation="packed")
    refused(cfg, tmp_path, "safekey_isolation", "mixes packed segments")
    assert "a row of its own" in messages(passed({**cfg, "safekey_isolation": "auto"}, tmp_path), "info")


def test_resuming_without_a_head_is_a_fault(base: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "checkpoint-3").mkdir(parents=True)
    cfg = config(base, data, tmp_path / "out", auto_resume_from_checkpoints=True)
    refused(cfg, tmp_path, "checkpoint-3", "safekey_head.safetensors")
    passed({**cfg, "safekey_dual_path": False}, tmp_path)


def test_missing_base_model_is_a_fault_and_the_rows_are_read_nevertheless(data: Path, tmp_path: Path) -> None:
    cfg = config(tmp_path / "nowhere", data, tmp_path / "out")
    cfg["datasets"].append({"path": str(tmp_path / "no.jsonl"), "type": TYPE})
    refused(cfg, tmp_path, "base_model", "datasets[1].path", "no.jsonl")
    assert "24 rows read, 24 valid" in messages(examined(cfg, tmp_path), "ok")


def test_axolotls_own_objections_are_faults(base: Path, data: Path, tmp_path: Path) -> None:
    cfg = config(base, data, tmp_path / "out", micro_batch_size="many")
    cfg["datasets"].append({"path": str(tmp_path / "no.jsonl"), "type": TYPE})
    refused(cfg, tmp_path, "micro_batch_size: Axolotl refuses", "datasets[1].path")


# ---------------------------------------------------------------------- what training accepts


def test_good_configuration_passes_with_figures(base: Path, data: Path, tmp_path: Path) -> None:
    findings = passed(config(base, data, tmp_path / "out", num_epochs=4), tmp_path)
    assert findings.verdict == "ok", messages(findings, "warning")
    assert findings.facts["rows"] == {"read": 24, "used": 24, "dropped": {}}
    assert findings.facts["rows_feeding"]["rto"] == 12
    assert findings.facts["steps"] == {"per_epoch": 9, "total": 36, "exact": True}


def test_steps_are_those_of_training(base: Path, data: Path, tmp_path: Path) -> None:
    cfg = config(base, data, tmp_path / "out", num_epochs=3, gradient_accumulation_steps=2, safekey_last_epochs=1)
    findings = passed(cfg, tmp_path)
    assert run_axolotl("train", cfg).exit_code == 0
    run = json.loads((tmp_path / "out" / "safekey_manifest.json").read_text())["run"]
    assert findings.facts["steps"] == {"per_epoch": run["steps_per_epoch"], "total": run["max_steps"], "exact": True}
    assert f"on from step {run['safekey_losses_from_step']}" in messages(findings, "ok")
    assert (
        findings.facts["rows_feeding"]
        == json.loads((tmp_path / "out" / "safekey_manifest.json").read_text())["rows_feeding"]
    )


def test_broken_rows_are_counted_and_do_not_fail(base: Path, tmp_path: Path) -> None:
    data = tmp_path / "mixed.jsonl"
    good = [json.dumps(row).encode() for row in potion_rows(16)]
    data.write_bytes(b"\r\n".join([*BROKEN_LINES, *good]) + b"\r\n")
    findings = passed(config(base, data, tmp_path / "out"), tmp_path)
    rows = findings.facts["rows"]
    assert (rows["read"], rows["used"]) == (16 + len(BROKEN_LINES), 16)
    assert sum(rows["dropped"].values()) == len(BROKEN_LINES)
    assert "mixed.jsonl:1" in messages(findings, "info")


def test_unmarked_rows_are_a_warning_that_names_the_way_out(base: Path, tmp_path: Path) -> None:
    rows = [{**row, "understanding_end": None, "key_sentence_end": None} for row in potion_rows(16)]
    data = write_rows(tmp_path / "rows.jsonl", rows[:8] + potion_rows(16)[8:])
    warnings = messages(passed(config(base, data, tmp_path / "out"), tmp_path), "warning")
    assert "8 of 16 rows have marks" in warnings and "safekey_annotation: rule" in warnings
    ruled = passed(config(base, data, tmp_path / "out", safekey_annotation="rule"), tmp_path)
    assert "safekey annotate" not in messages(ruled, "warning")


def test_single_class_is_a_warning(base: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [row for row in potion_rows(24) if row["is_harmful"]])
    warnings = messages(passed(config(base, data, tmp_path / "out"), tmp_path), "warning")
    assert "rows of the safety head are harmful: it can only learn a constant" in warnings


def test_rows_of_harmful_responses_alone_are_a_warning(base: Path, tmp_path: Path) -> None:
    rows = [{k: row[k] for k in ("query", "harmful_response")} for row in potion_rows(24) if "harmful_response" in row]
    off = {flag: flag == "safekey_rto" for flag in LOSSES if flag != "safekey_last_epochs"}
    cfg = config(base, write_rows(tmp_path / "h.jsonl", rows), tmp_path / "out", **off)
    assert "all 12 examples are harmful responses for RTO" in messages(passed(cfg, tmp_path), "warning")
    cfg["datasets"] = [{"path": str(write_rows(tmp_path / "all.jsonl")), "type": TYPE}]
    assert "for RTO" not in messages(passed(cfg, tmp_path), "warning")


def test_last_epochs_beyond_the_run_is_a_warning(base: Path, data: Path, tmp_path: Path) -> None:
    cfg = config(base, data, tmp_path / "out", safekey_last_epochs=3, num_epochs=2)
    assert "more than num_epochs" in messages(passed(cfg, tmp_path), "warning")


def test_sample_reads_the_first_rows_and_says_so(base: Path, data: Path, tmp_path: Path) -> None:
    findings = passed(config(base, data, tmp_path / "out"), tmp_path, sample=5)
    assert findings.facts["rows"]["read"] == 5
    assert "only the first rows were read" in messages(findings, "ok")
    assert "schedule" in {item.check for item in findings.items if item.level == "skipped"}


def test_sample_without_a_row_for_a_loss_is_a_warning(base: Path, tmp_path: Path) -> None:
    rows = sorted(potion_rows(24), key=lambda row: bool(row.get("harmful_response")))
    cfg = config(base, write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out")
    assert "none of the sampled rows feeds safekey_rto" in messages(passed(cfg, tmp_path, sample=5), "warning")
    passed(cfg, tmp_path)


def test_switches_off_pass_with_a_warning(base: Path, data: Path, tmp_path: Path) -> None:
    off = dict.fromkeys(LOSSES)
    assert "train as plain SFT" in messages(passed(config(base, data, tmp_path / "out", **off), tmp_path), "warning")


def test_trust_remote_code_is_a_warning_and_nothing_runs(base: Path, data: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile"
    shutil.copytree(base, hostile)
    settings = json.loads((hostile / "config.json").read_text())
    settings["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (hostile / "config.json").write_text(json.dumps(settings))
    (hostile / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    findings = passed(config(hostile, data, tmp_path / "out", trust_remote_code=True), tmp_path)
    assert "trust_remote_code" in messages(findings, "warning")
    assert not (tmp_path / "ran").exists()


def test_examination_writes_nothing(base: Path, data: Path, tmp_path: Path) -> None:
    cfg = config(base, data, tmp_path / "out")
    passed(cfg, tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {"run.yaml"}


EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "axolotl").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_passes_with_a_model_and_data_at_hand(
    path: Path, base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = yaml.safe_load(path.read_text())
    cfg |= {"base_model": str(base), "output_dir": str(tmp_path / "out")}
    cfg["datasets"] = [{"path": str(data), "type": TYPE, "ds_type": "json"}]
    findings = passed(cfg, tmp_path)
    assert not [item for item in findings.items if item.check in ("unknown_keys", "axolotl") and item.level != "ok"]


@pytest.mark.parametrize(("short", "told"), [(12, False), (20, True)])
def test_share_of_rows_lost_for_one_reason_is_told(base: Path, tmp_path: Path, short: int, told: bool) -> None:
    rows = potion_rows(24)
    long = [{**row, "response": row["response"] + " So." * 600} for row in rows[:short]]
    data = write_rows(tmp_path / "rows.jsonl", [*long, *rows[short:]])
    warnings = messages(passed(config(base, data, tmp_path / "out", safekey_rto=False), tmp_path), "warning")
    assert ("20 of 24 rows (83 %) are dropped as too_long" in warnings) == told
    assert "set excess_length_strategy: truncate" in warnings


def test_max_steps_that_ends_the_run_is_named(base: Path, data: Path, tmp_path: Path) -> None:
    findings = passed(config(base, data, tmp_path / "out", num_epochs=4, max_steps=3), tmp_path)
    (item,) = [item for item in findings.items if item.level == "warning"]
    assert (item.key, item.remedy) == ("max_steps", "Raise max_steps, or leave it out") and item.line is not None


def test_one_loss_is_on_and_two_are(base: Path, data: Path, tmp_path: Path) -> None:
    cfg = config(base, data, tmp_path / "out", safekey_last_epochs=3, num_epochs=2)
    assert "dual_path and query_mask are on" in messages(passed(cfg, tmp_path), "warning")
    assert "query_mask is on" in messages(passed({**cfg, "safekey_dual_path": False}, tmp_path), "warning")


def test_rows_read_without_a_model_count_the_rules_marks(tmp_path: Path) -> None:
    bare = [{key: row[key] for key in ("query", "response", "is_harmful")} for row in potion_rows(8)]
    data = write_rows(tmp_path / "rows.jsonl", bare)
    cfg = config(tmp_path / "nowhere", data, tmp_path / "out", safekey_rto=None, safekey_harmful_prefix=None)
    assert "query_mask 0" in messages(examined(cfg, tmp_path), "info")
    ruled = examined({**cfg, "safekey_annotation": "rule"}, tmp_path)
    assert "marks by rule included: dual_path 8, query_mask 8" in messages(ruled, "ok")


def test_missing_file_and_model_are_told_with_a_near_name(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, tmp_path / "model")
    shutil.copy(data, tmp_path / "rows.jsonl")
    for cfg in (config(base, Path("row.jsonl"), tmp_path / "out"), config(Path("modle"), Path("row.jsonl"), tmp_path)):
        (item,) = [item for item in examined(cfg, tmp_path).items if item.check == "rows" and item.level == "fault"]
        assert (item.message, item.remedy) == ("row.jsonl: there is no such file", "Did you mean rows.jsonl?")
    refused(config(Path("modle"), data, tmp_path / "out"), tmp_path, "there is no folder modle", "Did you mean model?")


# ---------------------------------------------------------------------- the command


def test_verdict_counts_what_was_not_checked_and_few_rows_even_when_quiet(base: Path, tmp_path: Path) -> None:
    rows = [{**row, "response": row["response"] + " So." * 600} for row in potion_rows(76)] + potion_rows(4)
    data = write_rows(tmp_path / "rows.jsonl", rows)
    path = tmp_path / "run.yaml"
    cfg = config(base, data, tmp_path / "out", attn_implementation="flash_attention_2", safekey_rto=False)
    path.write_text(yaml.safe_dump(cfg))
    verdict = CliRunner().invoke(safekey, ["doctor", str(path), "-q"]).output.strip().splitlines()[-1]
    assert "trains on 4 of 80 rows" in verdict and "1 not checked" in verdict


def test_command_ends_with_a_verdict_and_an_exit_code(base: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config(base, data, tmp_path / "out", num_epochs=4)))
    good = CliRunner().invoke(safekey, ["doctor", str(path)])
    assert good.exit_code == 0, good.output
    assert f"ready to train: axolotl train {path}" in good.output
    path.write_text(yaml.safe_dump(config(base, data, tmp_path / "out", safekey_rtoo=True)))
    bad = CliRunner().invoke(safekey, ["doctor", str(path)])
    assert bad.exit_code == 1
    assert bad.output.strip().splitlines()[-1].startswith("✗ 1 fault")


def test_json_is_all_that_stands_on_stdout(base: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config(base, data, tmp_path / "out", torch_compile=True)))
    result = CliRunner().invoke(safekey, ["doctor", str(path), "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (found["version"], found["verdict"], found["counts"]["fault"]) == (1, "faults", 1)
    (fault,) = [item for item in found["findings"] if item["level"] == "fault"]
    assert set(fault) == {"level", "check", "key", "line", "message", "remedy"}
    assert fault["key"] == "torch_compile"
    assert path.read_text().splitlines()[fault["line"] - 1].startswith("torch_compile")
