"""``axolotl train`` in all the ways people run it."""

from __future__ import annotations

import json
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from safekey_peft import load_safety_head
from safekey_peft.model.head_files import HEAD_FILE
from tests.axolotl.runs import LOSSES, Run, config, potion_rows, run_axolotl, start, write_rows

OFF = {**dict.fromkeys(LOSSES, False), "safekey_last_epochs": None}


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "safekey_manifest.json").read_text())


def log_lines(folder: Path) -> list[dict[str, Any]]:
    states = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda p: int(p.parent.name.split("-")[1]))
    return json.loads(states[-1].read_text())["log_history"]


def weights(folder: Path, name: str = "adapter_model.safetensors") -> dict[str, torch.Tensor]:
    return {**load_file(str(folder / name)), **load_file(str(folder / HEAD_FILE))}


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[k].float() - right[k].float()).abs().max()) for k in left)


def succeeded(run: Run) -> None:
    assert run.exit_code == 0, run.output[-4000:]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="qlora"),
        pytest.param(
            {"sample_packing": True, "micro_batch_size": 1, "gradient_checkpointing": True}, id="qlora-packed"
        ),
        pytest.param({"adapter": "lora", "load_in_4bit": False, "gradient_checkpointing": True}, id="lora"),
        pytest.param({"adapter": None, "load_in_4bit": None, "learning_rate": 1e-4}, id="full"),
    ],
)
def test_train_writes_adapter_head_and_manifest(
    base: Path, data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    run = run_axolotl("train", config(base, data, out, save_strategy="epoch", **options))
    succeeded(run)
    assert "safekey: training with dual_path, query_mask, harmful_prefix, rto" in run.output
    found = manifest(out)
    rows = found["rows"]
    assert rows["read"] == 24 == rows["used"] + sum(rows["dropped"].values())
    assert found["rows_feeding"]["rto"] == 12 and found["examples"]["rto"] == 12
    name = "model.safetensors" if options.get("adapter", "qlora") is None else "adapter_model.safetensors"
    for folder in (out, *out.glob("checkpoint-*")):
        assert not any("safekey" in key for key in load_file(str(folder / name)))
        load_safety_head(folder)
        assert manifest(folder)["losses"] == found["losses"]
    if name.startswith("adapter"):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(out))
    assert AutoTokenizer.from_pretrained(out).chat_template == AutoTokenizer.from_pretrained(base).chat_template


def test_gradient_checkpointing_changes_no_weight(base: Path, data: Path, tmp_path: Path) -> None:
    for name, switch in (("with", True), ("without", False)):
        cfg = config(base, data, tmp_path / name, gradient_checkpointing=switch, lora_dropout=0.0, max_steps=2)
        succeeded(run_axolotl("train", cfg))
    assert largest_difference(weights(tmp_path / "with"), weights(tmp_path / "without")) <= 1e-6


CUTS: dict[str, dict[str, Any]] = {
    "2x4": {"micro_batch_size": 2, "gradient_accumulation_steps": 4},
    "1x8 padded": {"micro_batch_size": 1, "gradient_accumulation_steps": 8, "pad_to_sequence_len": True},
    "packed": {"micro_batch_size": 1, "sample_packing": True, "sequence_len": 4096, "pad_to_sequence_len": False},
    "rows": {"safekey_isolation": "rows"},
}


def test_one_step_is_the_same_however_it_is_cut(base: Path, tmp_path: Path) -> None:
    """One SGD step that holds the whole data set, from a common adapter and head."""
    rows = [{key: value for key, value in row.items() if key != "harmful_response"} for row in potion_rows(7)]
    rows.append({**potion_rows(1)[0], "id": "h", "response": None, "understanding_end": None, "key_sentence_end": None})
    data = write_rows(tmp_path / "eight.jsonl", rows)
    common = {
        "adapter": "lora", "load_in_4bit": None, "lora_dropout": 0.0, "optimizer": "sgd", "learning_rate": 0.5,
        "max_grad_norm": 0.0, "safekey_harmful_prefix": False, "max_steps": 1, "weight_decay": 0.0,
    }  # fmt: skip
    whole = config(base, data, tmp_path / "whole", micro_batch_size=8, **common)
    succeeded(run_axolotl("train", whole))
    expected = weights(tmp_path / "whole")
    for name, cut in CUTS.items():
        out = tmp_path / name
        succeeded(run_axolotl("train", config(base, data, out, **{**common, "micro_batch_size": 8, **cut})))
        assert largest_difference(expected, weights(out)) <= 1e-6, name
    out = tmp_path / "ranks"
    run = run_axolotl("train", config(base, data, out, micro_batch_size=4, **common), ranks=2)
    succeeded(run)
    assert manifest(out)["run"]["world_size"] == 2
    assert largest_difference(expected, weights(out)) <= 1e-6
    before = weights_at_start(base, data, tmp_path, common)
    assert largest_difference(expected, before) > 1e-3


def weights_at_start(base: Path, data: Path, tmp_path: Path, common: dict[str, Any]) -> dict[str, torch.Tensor]:
    out = tmp_path / "start"
    succeeded(run_axolotl("train", config(base, data, out, micro_batch_size=8, **{**common, "learning_rate": 1e-30})))
    return weights(out)


@pytest.mark.parametrize("packed", [False, True], ids=["unpacked", "packed"])
def test_killed_and_resumed_run_equals_an_uninterrupted_one(
    base: Path, data: Path, tmp_path: Path, packed: bool
) -> None:
    options: dict[str, Any] = {
        "num_epochs": 3, "save_steps": 2, "save_strategy": "steps", "save_total_limit": 20, "lr_scheduler": "cosine",
        "micro_batch_size": 1 if packed else 4, "gradient_accumulation_steps": 2, "safekey_last_epochs": 1.5,
        "sample_packing": packed,
    }  # fmt: skip
    succeeded(run_axolotl("train", config(base, data, tmp_path / "whole", **options)))
    cut = config(base, data, tmp_path / "cut", **options)
    process, log = start("train", cut)
    deadline = time.monotonic() + 200
    while not (tmp_path / "cut" / "checkpoint-4" / "trainer_state.json").exists():
        assert time.monotonic() < deadline and process.is_alive(), log.read_text()[-3000:]
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "cut" / HEAD_FILE).exists(), "the run was over before it was killed"
    for folder in (tmp_path / "cut").glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) > 4:
            shutil.rmtree(folder)
    succeeded(run_axolotl("train", {**cut, "resume_from_checkpoint": str(tmp_path / "cut" / "checkpoint-4")}))
    assert largest_difference(weights(tmp_path / "whole"), weights(tmp_path / "cut")) == 0.0


def test_same_configuration_gives_the_same_bits_packed(base: Path, data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        cfg = config(
            base, data, tmp_path / name, sample_packing=True, micro_batch_size=1, sequence_len=256, num_epochs=2
        )
        succeeded(run_axolotl("train", cfg))
    assert largest_difference(weights(tmp_path / "one"), weights(tmp_path / "two")) == 0.0


@pytest.mark.parametrize("packed", [False, True], ids=["unpacked", "packed"])
def test_all_switches_off_is_axolotl_without_the_plugin(base: Path, tmp_path: Path, packed: bool) -> None:
    data = tmp_path / "chat.jsonl"
    chats = [
        [{"role": "user", "content": row["query"]}, {"role": "assistant", "content": row["response"]}]
        for row in potion_rows()
    ]
    data.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    stock: dict[str, Any] = {
        "datasets": [{"path": str(data), "type": "chat_template"}], "sample_packing": packed, "micro_batch_size": 1,
        "lora_mlp_kernel": False, "lora_qkv_kernel": False, "lora_o_kernel": False, "bf16": False, "use_cpu": True,
        "curriculum_sampling": True, "sequence_len": 512,
    }  # fmt: skip
    first = config(base, data, tmp_path / "start", **{**OFF, **stock, "max_steps": 1})
    succeeded(run_axolotl("train", first))
    stock["lora_model_dir"] = str(tmp_path / "start")
    succeeded(run_axolotl("train", config(base, data, tmp_path / "with", **{**OFF, **stock})))
    bare = config(base, data, tmp_path / "without", **{**OFF, **stock, "plugins": None})
    succeeded(run_axolotl("train", {key: value for key, value in bare.items() if not key.startswith("safekey_")}))
    left = load_file(str(tmp_path / "with" / "adapter_model.safetensors"))
    right = load_file(str(tmp_path / "without" / "adapter_model.safetensors"))
    assert largest_difference(left, right) == 0.0
    assert not (tmp_path / "with" / HEAD_FILE).exists()


def test_preprocess_first_trains_the_same(base: Path, data: Path, tmp_path: Path) -> None:
    direct = config(base, data, tmp_path / "direct", dataset_prepared_path=str(tmp_path / "a"))
    succeeded(run_axolotl("train", direct))
    before = config(base, data, tmp_path / "before", dataset_prepared_path=str(tmp_path / "b"))
    succeeded(run_axolotl("preprocess", before))
    run = run_axolotl("train", before)
    succeeded(run)
    assert "Loading prepared dataset from disk" in run.output
    assert manifest(tmp_path / "before")["rows"] == manifest(tmp_path / "direct")["rows"]
    assert largest_difference(weights(tmp_path / "direct"), weights(tmp_path / "before")) == 0.0


def test_corrected_marks_are_not_hidden_by_the_cache(base: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl")
    succeeded(run_axolotl("train", config(base, data, tmp_path / "one", max_steps=1)))
    rows = potion_rows()
    for row in rows[:3]:
        row["understanding_end"] = row["key_sentence_end"] = None
    write_rows(data, rows)
    succeeded(run_axolotl("train", config(base, data, tmp_path / "two", max_steps=1)))
    feeding = [manifest(tmp_path / name)["rows_feeding"]["query_mask"] for name in ("one", "two")]
    assert feeding[1] < feeding[0]


def test_best_checkpoint_and_evaluate_agree(base: Path, data: Path, tmp_path: Path) -> None:
    """The validation split divides rows; the best checkpoint comes with its head; ``axolotl evaluate`` loads both."""
    out = tmp_path / "out"
    cfg = config(
        base, data, out, num_epochs=3, val_set_size=0.25, eval_strategy="steps", save_strategy="steps",
        eval_steps=3, save_steps=3, save_total_limit=20, load_best_model_at_end=True, early_stopping_patience=2,
        learning_rate=0.05, safekey_last_epochs=1,
    )  # fmt: skip
    run = run_axolotl("train", cfg)
    succeeded(run)
    state = json.loads(max(out.glob("checkpoint-*/trainer_state.json"), key=lambda p: p.stat().st_mtime).read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    best = min(losses, key=lambda step: losses[step])
    assert largest_difference(weights(out), weights(out / f"checkpoint-{best}")) == 0.0
    assert all("eval_safekey/loss_key" in entry for entry in state["log_history"] if "eval_loss" in entry)
    assert all("eval_ppl" not in e or e["eval_ppl"] > 0 for e in state["log_history"])
    # Axolotl runs without an adapter folder would evaluate a new adapter and a new head.
    evaluation = run_axolotl("evaluate", {**cfg, "lora_model_dir": str(out), "output_dir": str(tmp_path / "eval")})
    succeeded(evaluation)
    table = (tmp_path / "eval" / "eval_summary.csv").read_text()
    line = next(row for row in table.splitlines() if row.startswith("loss,"))
    assert float(line.split(",")[2]) == pytest.approx(losses[best], rel=1e-4)


def test_validation_split_never_divides_a_row(base: Path, data: Path, tmp_path: Path) -> None:
    cfg = config(base, data, tmp_path / "out", val_set_size=0.3, max_steps=1, safekey_harmful_prefix_draws=3)
    run = run_axolotl("train", cfg)
    succeeded(run)
    found = manifest(tmp_path / "out")
    # 12 of 24 rows have an H; 8 rows are held out, whole
    assert found["rows_feeding"]["rto"] == 12
    from datasets import load_from_disk

    prepared = [p for p in (tmp_path / "prepared").iterdir() if (p / "state.json").exists()]
    dataset = load_from_disk(str(prepared[0]))
    assert len(set(dataset["safekey_row"])) == 24 and len(dataset) == 12 * 4 + 12
    assert found["train_rows_feeding"]["rto"] < 12


def test_mixed_with_a_stock_dataset_type(base: Path, data: Path, tmp_path: Path) -> None:
    stock = tmp_path / "chat.jsonl"
    turn = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello, what shall we brew?"}]
    stock.write_text((json.dumps({"messages": turn}) + "\n") * 6)
    cfg = config(base, data, tmp_path / "out", save_strategy="epoch")
    cfg["datasets"] = [*cfg["datasets"], {"path": str(stock), "type": "chat_template"}]
    run = run_axolotl("train", cfg)
    succeeded(run)
    assert manifest(tmp_path / "out")["rows"]["read"] == 24


def test_metrics_are_those_of_all_ranks(base: Path, data: Path, tmp_path: Path) -> None:
    """Logged training and evaluation metrics of two ranks are those of one, with an odd number of rows."""
    found = []
    for ranks in (1, 2):
        cfg = config(
            base, data, tmp_path / f"ranks{ranks}", learning_rate=1e-30, lora_dropout=0.0, max_steps=1, val_set_size=5,
            eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, micro_batch_size=8 // ranks,
            eval_batch_size=2, safekey_harmful_prefix=False,
        )  # fmt: skip
        succeeded(run_axolotl("train", cfg, ranks=ranks))
        merged: dict[str, float] = {}
        for entry in log_lines(tmp_path / f"ranks{ranks}"):
            merged.update(entry)
        found.append({k: v for k, v in merged.items() if "safekey/" in k or k in ("loss", "eval_loss")})
    one, two = found
    assert one.keys() == two.keys() and len(one) > 15
    for name, value in one.items():
        if name.startswith("eval_"):
            assert two[name] == pytest.approx(value, rel=1e-5), name
    everywhere = {"loss_key", "loss_rto", "loss_sft", "loss_head_context"}
    assert {f"safekey/{name}" for name in everywhere} <= two.keys()


def test_two_ranks_resume_or_say_why_not(base: Path, data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_epochs": 2, "save_steps": 2, "save_strategy": "steps", "micro_batch_size": 2}
    options["save_total_limit"] = 20
    cfg = config(base, data, tmp_path / "whole", **options)
    succeeded(run_axolotl("train", cfg, ranks=2))
    again = {
        **cfg,
        "output_dir": str(tmp_path / "again"),
        "resume_from_checkpoint": str(tmp_path / "whole" / "checkpoint-2"),
    }
    succeeded(run_axolotl("train", again, ranks=2))
    assert largest_difference(weights(tmp_path / "whole"), weights(tmp_path / "again")) == 0.0
