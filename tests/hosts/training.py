"""A small training run with the library's own trainer."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments

from safekey_peft import SafeKeyCollator, SafeKeyConfig, SafeKeyTrainer
from tests.features import features
from tests.model_zoo import tiny_model

VOCABULARY = 131
ALL = {"dual_path": True, "query_mask": True, "harmful_prefix": True, "rto": True, "last_epochs": "all"}


def lora(family: str = "llama", seed: int = 5, dropout: float = 0.0) -> torch.nn.Module:
    model = tiny_model(family, vocab_size=VOCABULARY)
    torch.manual_seed(seed)
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear"))
    with torch.no_grad():  # B starts at 0: give A something to learn from the first step on
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return peft


def make_trainer(
    config: dict[str, Any] | None = None,
    *,
    model: torch.nn.Module | None = None,
    data: list[dict[str, Any]] | None = None,
    collator: SafeKeyCollator | None = None,
    output_dir: str | None = None,
    trainer_cls: type = SafeKeyTrainer,
    eval_data: list[dict[str, Any]] | None = None,
    callbacks: Any = None,
    **arguments: Any,
) -> SafeKeyTrainer:
    options: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "num_train_epochs": 1,
        "learning_rate": 0.1,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 7,
        "dataloader_pin_memory": False,
    }
    return trainer_cls(
        model=model if model is not None else lora(),
        args=TrainingArguments(output_dir=output_dir or tempfile.mkdtemp(), **{**options, **arguments}),
        train_dataset=Dataset.from_list(data if data is not None else features(VOCABULARY)),
        eval_dataset=Dataset.from_list(eval_data) if eval_data is not None else None,
        data_collator=collator or SafeKeyCollator(0),
        safekey_config=SafeKeyConfig(**(config if config is not None else ALL)),
        callbacks=callbacks,
    )


def train(config: dict[str, Any] | None = None, **settings: Any) -> SafeKeyTrainer:
    trainer = make_trainer(config, **settings)
    trainer.train()
    return trainer


def trainable(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
