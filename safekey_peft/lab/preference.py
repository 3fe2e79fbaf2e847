"""DPO on the same pairs, DeRTa's comparison: the safe response is chosen, H rejected.

TRL's trainer goes on from the adapter that plain SFT on all rows gave; a frozen copy of it is the reference.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from safekey_peft.lab.tuning_set import TuningSet


@dataclass(frozen=True, slots=True)
class PreferenceSizes:
    """Settings of DPO. β is TRL's default; the rate is a tenth of SFT's."""

    epochs: int = 8
    batch: int = 16
    learning_rate: float = 2e-4
    beta: float = 0.1


def preference_rows(tuning: TuningSet) -> list[dict[str, Any]]:
    """Return a pair for each row with a harmful response, as conversations."""
    return [
        {
            "prompt": [{"role": "user", "content": row["query"]}],
            "chosen": [{"role": "assistant", "content": row["response"]}],
            "rejected": [{"role": "assistant", "content": row["harmful_response"]}],
        }
        for row in tuning.rows
        if row["harmful_response"] is not None
    ]


def tune_preferences(
    model: Any, tuning: TuningSet, sizes: PreferenceSizes, seed: int, most_steps: int, callback: Callable[[], Any]
) -> tuple[Any, list[dict[str, Any]]]:
    """Train an adapter with DPO.

    Args:
        model: the PEFT model that SFT gave.
        tuning: its rows with a harmful response are the pairs.
        sizes: settings.
        seed: of the order of the pairs.
        most_steps: end after so many steps; -1: after all epochs.
        callback: makes the trainer callback that reports progress.

    Returns: the model, and TRL's log lines with the loss and the share of pairs ranked right.
    """
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback, set_seed
    from trl import DPOConfig, DPOTrainer

    from safekey_peft.lab.tokenizer import build_tokenizer

    set_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = DPOTrainer(
            model=model,
            args=DPOConfig(
                folder, use_cpu=True, bf16=False, seed=seed, num_train_epochs=sizes.epochs, max_steps=most_steps,
                per_device_train_batch_size=sizes.batch, learning_rate=sizes.learning_rate, weight_decay=0.0,
                lr_scheduler_type="cosine", optim="adamw_torch", beta=sizes.beta, max_length=256,
                logging_steps=10, logging_first_step=True, save_strategy="no", report_to="none", disable_tqdm=True,
                dataloader_pin_memory=False, gradient_checkpointing=False,
            ),
            train_dataset=Dataset.from_list(preference_rows(tuning)),
            processing_class=build_tokenizer(),
            callbacks=[callback()],
        )  # fmt: skip
        for kind in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(kind)
        # TRL rounds the adapter of a quantised model to bfloat16; every other variant trains it in float32.
        for parameter in model.parameters():
            if parameter.dtype == torch.bfloat16:
                parameter.data = parameter.data.float()
        trainer.train()
    losses = [
        {"step": entry["step"], "loss_dpo": entry["loss"], "accuracy_dpo": entry["rewards/accuracies"]}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    return model, losses
