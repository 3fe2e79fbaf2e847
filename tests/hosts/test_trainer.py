"""The trainer: normalisation, schedule, metrics, files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from safekey_peft import SafeKeyCollator, SafeKeyConfig, attach_safety_head, load_safety_head
from safekey_peft.errors import ConfigError, DataError
from safekey_peft.hosts.schedule import LossSchedule
from safekey_peft.model.head_files import HEAD_FILE, HeadFileError
from tests.features import features, reference_examples
from tests.hosts.training import ALL, VOCABULARY, lora, make_trainer, train, trainable
from tests.model_zoo import tiny_model
from tests.references.objective import ReferenceWeights, reference_loss


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


CUTS: list[dict[str, Any]] = [
    {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "collator": SafeKeyCollator(0, pad_to_multiple_of=64),
    },
    {"collator": SafeKeyCollator(0, row_tokens=40)},
    {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3},
    {"gradient_checkpointing": True},
    {"config": {**ALL, "isolation": "rows"}},
]


@pytest.mark.parametrize("cut", range(len(CUTS)))
def test_step_is_invariant_to_batching(cut: int) -> None:
    whole = trainable(train())
    before = trainable(make_trainer())
    other = trainable(train(**CUTS[cut]))
    assert largest_difference(whole, before) > 1e-3, "the step moves nothing"
    assert largest_difference(whole, other) <= 1e-6


def test_step_equals_the_reference_gradient() -> None:
    trainer = make_trainer({**ALL, "dual_path_weight": 0.4, "query_mask_weight": 0.3, "rto_weight": 0.7})
    before = trainable(trainer)
    model = trainer.model
    loss = reference_loss(
        model,
        dict(model.safekey_head.named_parameters()),
        reference_examples(VOCABULARY),
        ReferenceWeights(rto=0.7, key=0.3, head=0.4, theta=0.5),
    )
    loss.backward()
    loss = loss.detach()
    expected = {n: before[n] - 0.1 * p.grad for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    trainer.train()
    assert largest_difference(trainable(trainer), expected) <= 1e-6
    assert trainer.state.log_history[0]["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_head_biases_are_in_the_optimizer() -> None:
    trainer = make_trainer({**ALL, "head_learning_rate": 0.5}, weight_decay=0.1, optim="adamw_torch")
    trainer.create_optimizer()
    head = {id(p): name for name, p in trainer.model.safekey_head.named_parameters()}
    groups = [
        (group, {head[id(p)] for p in group["params"] if id(p) in head}) for group in trainer.optimizer.param_groups
    ]
    own = [(group, names) for group, names in groups if names]
    assert {name for _, names in own for name in names} == set(head.values())
    assert all(group["lr"] == 0.5 for group, _ in own)
    assert {group["weight_decay"] for group, names in own if any("bias" in name for name in names)} == {0.0}
    everyone = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
    assert len(everyone) == len(set(everyone)) == sum(p.requires_grad for p in trainer.model.parameters())


@pytest.mark.parametrize(
    ("last", "steps", "per_epoch", "first"),
    [(2, 10, 2, 6), ("all", 10, 2, 0), (1.5, 15, 5, 7), (9, 10, 2, 0), (0.1, 7, 7, 6)],
)
def test_schedule_starts_at_the_last_epochs(last: Any, steps: int, per_epoch: int, first: int) -> None:
    schedule = LossSchedule(last, steps, per_epoch)
    assert schedule.first_step == first
    assert [schedule.is_on(step) for step in range(steps)] == [step >= first for step in range(steps)]


def test_segments_cost_nothing_while_their_losses_are_off() -> None:
    one_row = SafeKeyCollator(0, row_tokens=1_000_000)  # several rows would be filled up
    trainer = make_trainer(
        {**ALL, "last_epochs": 1}, collator=one_row, num_train_epochs=3, per_device_train_batch_size=4
    )
    tokens: list[int] = []
    heads: list[int] = []

    class Watching(type(trainer._forward)):  # type: ignore[misc]
        def __call__(self, model: Any, plan: Any) -> Any:
            tokens.append(plan.input_ids.numel())
            heads.append(len(plan.head_labels))
            return super().__call__(model, plan)

    trainer._forward.__class__ = Watching
    trainer.train()
    everything = features(VOCABULARY)
    masked = sum(len(e.understanding_ids) + len(e.key_ids) for e in reference_examples(VOCABULARY) if not e.repeats)
    total = sum(len(row["input_ids"]) for row in everything)
    assert [sum(tokens[i : i + 2]) for i in (0, 2, 4)] == [total - masked, total - masked, total]
    assert [sum(heads[i : i + 2]) for i in (0, 2, 4)] == [0, 0, 3]
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert ["safekey/loss_key" in entry for entry in logs] == [False] * 4 + [True] * 2


def test_loss_while_the_schedule_is_off_is_that_of_a_run_without_the_two_losses() -> None:
    late = train({**ALL, "last_epochs": 1}, num_train_epochs=2)
    never = train({"harmful_prefix": True, "rto": True}, num_train_epochs=2)
    first = [run.state.log_history[0]["loss"] for run in (late, never)]
    second = [run.state.log_history[1]["loss"] for run in (late, never)]
    assert first[0] == first[1]
    assert second[0] > second[1]


def test_metrics_are_named_and_reduced_over_accumulation() -> None:
    whole = train().state.log_history[0]
    parts = train(per_device_train_batch_size=2, gradient_accumulation_steps=4).state.log_history[0]
    names = {
        "loss_sft", "loss_prefix", "loss_rto", "loss_key", "loss_head_understanding", "loss_head_context",
        "acc_key", "acc_head_understanding", "acc_head_context", "tokens_extra_fraction",
    }  # fmt: skip
    assert {key.removeprefix("safekey/") for key in whole if key.startswith("safekey/")} == names
    for name in names:
        assert whole[f"safekey/{name}"] == pytest.approx(parts[f"safekey/{name}"], rel=1e-5, abs=1e-7)
    assert whole["loss"] == pytest.approx(parts["loss"], rel=1e-5)


def test_evaluation_ignores_the_schedule_and_the_batching() -> None:
    losses = []
    for size in (1, 3, 8):
        trainer = make_trainer(
            {**ALL, "last_epochs": 0.5}, eval_data=features(VOCABULARY, seed=3), per_device_eval_batch_size=size
        )
        metrics = trainer.evaluate()
        assert "eval_safekey/loss_key" in metrics
        losses.append(metrics["eval_loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    model = lora()
    trainer = make_trainer(model=model, eval_data=features(VOCABULARY, seed=3))
    head = dict(model.safekey_head.named_parameters())
    expected = reference_loss(model, head, reference_examples(VOCABULARY, seed=3), ReferenceWeights())
    assert losses[0] == pytest.approx(float(expected), rel=1e-5)


def test_checkpoint_is_a_vanilla_adapter_with_head_and_manifest(tmp_path: Path) -> None:
    trainer = train(output_dir=str(tmp_path), save_strategy="epoch", num_train_epochs=2)
    folder = tmp_path / "checkpoint-2"
    assert not any("safekey" in key for key in load_file(str(folder / "adapter_model.safetensors")))
    assert json.loads((folder / "adapter_config.json").read_text())["modules_to_save"] is None
    manifest = json.loads((folder / "safekey_manifest.json").read_text())
    assert manifest["losses"] == ["dual_path", "query_mask", "harmful_prefix", "rto"]
    head = load_safety_head(folder)
    for name, parameter in trainer.model.safekey_head.named_parameters():
        assert torch.equal(dict(head.named_parameters())[name], parameter)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        PeftModel.from_pretrained(tiny_model("llama", vocab_size=VOCABULARY), str(folder))


def test_full_tuning_writes_no_head_key_into_the_model(tmp_path: Path) -> None:
    model = tiny_model("llama", vocab_size=VOCABULARY)
    trainer = train(model=model, output_dir=str(tmp_path), learning_rate=1e-3)
    trainer.save_model(str(tmp_path / "final"))
    keys = load_file(str(tmp_path / "final" / "model.safetensors")).keys()
    assert keys and not any("safekey" in key for key in keys)
    assert load_safety_head(tmp_path / "final").understanding.in_features == model.config.hidden_size


@pytest.mark.parametrize("stop", [2, 3])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, stop: int) -> None:
    settings: dict[str, Any] = {
        "num_train_epochs": 3, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 1,
        "optim": "adamw_torch", "learning_rate": 1e-2, "lr_scheduler_type": "cosine",
    }  # fmt: skip
    config = {**ALL, "last_epochs": 2}
    whole = train(config, model=lora(dropout=0.2), output_dir=str(tmp_path / "whole"), **settings)
    checkpoint = tmp_path / "whole" / f"checkpoint-{stop}"
    resumed = make_trainer(config, model=lora(seed=99, dropout=0.2), output_dir=str(tmp_path / "b"), **settings)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert largest_difference(trainable(whole), trainable(resumed)) == 0.0


def test_resume_without_the_head_stops(tmp_path: Path) -> None:
    train(output_dir=str(tmp_path), save_strategy="steps", save_steps=1, num_train_epochs=2)
    (tmp_path / "checkpoint-1" / HEAD_FILE).unlink()
    with pytest.raises(HeadFileError, match="no safety head there"):
        make_trainer(num_train_epochs=2).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_best_model_comes_with_its_own_head(tmp_path: Path) -> None:
    trainer = train(
        output_dir=str(tmp_path), eval_data=features(VOCABULARY, seed=3), num_train_epochs=4, learning_rate=3.0,
        save_strategy="epoch", eval_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="loss",
    )  # fmt: skip
    best = trainer.state.best_model_checkpoint
    assert best is not None and not best.endswith("checkpoint-4"), "the last one is best: the test shows nothing"
    stored = load_safety_head(best)
    for name, parameter in trainer.model.safekey_head.named_parameters():
        assert torch.equal(dict(stored.named_parameters())[name], parameter)


def test_switched_on_loss_without_rows_stops() -> None:
    plain = [row for row in features(VOCABULARY) if row["safekey_feeds"] == 0]
    with pytest.raises(DataError) as stop:
        make_trainer(data=plain)
    for loss in ("dual_path", "query_mask", "harmful_prefix", "rto"):
        assert f"safekey_{loss} is on but no training row feeds it" in str(stop.value)


def test_contradicting_options_are_all_named() -> None:
    with pytest.raises(ConfigError, match="label_smoothing_factor.*split_batches"):
        make_trainer(label_smoothing_factor=0.1, accelerator_config={"split_batches": True})


def test_packed_is_refused_for_a_leaking_model() -> None:
    with pytest.raises(ConfigError, match="mixes packed segments"):
        make_trainer({**ALL, "isolation": "packed"}, model=lora("gpt2"))
    assert make_trainer(model=lora("gpt2")).data_collator.isolation == "rows"


def test_changed_columns_are_noticed() -> None:
    broken = features(VOCABULARY)
    broken[0]["safekey_tags"] = broken[0]["safekey_tags"][:-1]
    with pytest.raises(ValueError, match="changed after encoding"):
        train(data=broken)


def test_banner_names_losses_weights_and_rows(capsys: pytest.CaptureFixture[str]) -> None:
    train({**ALL, "last_epochs": 1}, num_train_epochs=3)
    banner = capsys.readouterr().err
    assert "dual_path       weight 0.2, θ 0.5, fed by 3 rows, on from step 2 of 3" in banner
    assert "rto             weight 1, keep 1, from response, fed by 2 rows" in banner
    assert banner.count("safekey: training with") == 1


def test_all_switches_off_is_the_stock_trainer() -> None:
    from transformers import Trainer

    data = [{k: row[k] for k in ("input_ids", "labels", "attention_mask")} for row in features(VOCABULARY)]

    def pad(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
        return {k: torch.tensor([r[k] + [v] * (width - len(r[k])) for r in rows]) for k, v in fill.items()}

    def plain_trainer(safekey_config: Any = None, **settings: Any) -> Trainer:
        return Trainer(**settings)

    ours = train({}, data=data, collator=pad)  # type: ignore[arg-type]
    stock = train({}, data=data, collator=pad, trainer_cls=plain_trainer)  # type: ignore[arg-type]
    assert largest_difference(trainable(ours), trainable(stock)) == 0.0


def test_single_class_of_labels_warns_and_trains(capsys: pytest.CaptureFixture[str]) -> None:
    harmful = [row for row in features(VOCABULARY) if not row["safekey_tags"][0] & (1 << 7)]
    assert train(data=harmful).state.global_step == 1
    assert "labelled rows are harmful, so the safety head can only learn a constant" in capsys.readouterr().err
    train()
    assert "constant" not in capsys.readouterr().err


def test_head_is_trained_even_if_a_host_froze_it() -> None:
    model = lora()
    attach_safety_head(model, SafeKeyConfig(**ALL))
    model.safekey_head.requires_grad_(False)
    before = {name: p.clone() for name, p in model.safekey_head.named_parameters()}
    train(model=model)
    assert all(not torch.equal(before[name], p) for name, p in model.safekey_head.named_parameters())
