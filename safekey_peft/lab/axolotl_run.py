"""An Axolotl run in a child process: the YAML it reads, its progress, and its errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from safekey_peft.errors import SafeKeyError

PLUGIN = "axolotl_plugins.safekey.SafeKeyPlugin"
DATASET_TYPE = "axolotl_plugins.safekey.dataset"

FOUR_LOSSES: Mapping[str, Any] = {
    "safekey_dual_path": True,
    "safekey_query_mask": True,
    "safekey_harmful_prefix": True,
    "safekey_rto": True,
    # In this world weights of 1 from the first epoch on work best; the package's defaults are the papers'.
    "safekey_dual_path_weight": 1.0,
    "safekey_query_mask_weight": 1.0,
    "safekey_rto_weight": 1.0,
    "safekey_last_epochs": "all",
    # The world's vocabulary is lower case.
    "safekey_refusal_text": "sorry",
}

CPU_SETTINGS: Mapping[str, Any] = {
    "bf16": False,
    # Axolotl switches these kernels on by itself; without a GPU they stop at the first step.
    "lora_mlp_kernel": False,
    "lora_qkv_kernel": False,
    "lora_o_kernel": False,
    # No accelerator is found anyway; this spares a warning.
    "dataloader_pin_memory": False,
}
"""With a loss switched on the plugin sets these itself; plain SFT is Axolotl's own run and needs them."""

CHILD_ENVIRONMENT: Mapping[str, str] = {
    "CUDA_VISIBLE_DEVICES": "",  # the same run on every machine
    "OMP_NUM_THREADS": "1",  # a second thread costs this small model more than it gives
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "AXOLOTL_DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

OnTrainerStep = Callable[[int, int], None]
"""Called with steps done and steps planned."""

# The trainer's own bar stands at the start of a line; other bars have a title before the percentage.
TRAINER_BAR = re.compile(rb"(?:^|[\r\n])\s*\d+%\|[^|\r\n]*\| (\d+)/(\d+) \[")
ANY_BAR = re.compile(r"\d+%\|.*\| \d+/\d+ \[")
TAIL_LINES = 15


def training_config(
    base: Path, rows: Path, documents: Path, output: Path, seed: int, flags: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the Axolotl configuration of one variant; all settings but the flags are the same for all."""
    return {
        "base_model": str(base),
        "plugins": [PLUGIN],
        "datasets": [
            {"path": str(rows), "ds_type": "json", "type": DATASET_TYPE},
            {"path": str(documents), "ds_type": "json", "type": "completion"},
        ],
        "dataset_prepared_path": str(output.with_name(f"{output.name}-prepared")),
        "output_dir": str(output),
        **flags,
        "adapter": "qlora",
        "load_in_4bit": True,
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "sequence_len": 256,
        "micro_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "num_epochs": 8,
        "learning_rate": 5e-3,
        "lr_scheduler": "cosine",
        "optimizer": "adamw_torch",
        "weight_decay": 0.0,
        "logging_steps": 10,
        "save_strategy": "no",
        "seed": seed,
        **CPU_SETTINGS,
    }


def write_config(path: Path, purpose: str, config: Mapping[str, Any]) -> None:
    """Write a configuration as YAML, opened by its purpose and its command."""
    body = yaml.safe_dump(dict(config), sort_keys=False)
    path.write_text(
        f"# {purpose}\n# Run it again: axolotl train {path} --launcher python\n\n{body}", encoding="utf-8"
    )


def train(config: Path, log: Path, seed: int, on_step: OnTrainerStep | None = None) -> None:
    """Run ``axolotl train`` on a configuration and wait for it.

    Args:
        config: the YAML file.
        seed: for what Axolotl draws before it seeds.
        log: where the child's output goes.
        on_step: told about the progress.

    Raises:
        SafeKeyError: the child failed; the message holds the end of its log and the log's path.
    """
    launcher = [sys.executable, "-m", "safekey_peft.lab.seeded_run", str(seed), "axolotl.cli.main"]
    command = [*launcher, "train", str(config), "--launcher", "python"]
    seen = b""
    with log.open("wb") as log_file:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **CHILD_ENVIRONMENT}
        )
        assert child.stdout is not None
        try:
            while chunk := os.read(child.stdout.fileno(), 1 << 16):
                log_file.write(chunk)
                log_file.flush()
                seen = seen[-500:] + chunk
                steps = TRAINER_BAR.findall(seen)
                if steps and on_step is not None:
                    on_step(*map(int, steps[-1]))
            status = child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    if status != 0:
        raise SafeKeyError(
            f"axolotl train {config} ended with exit status {status}. The end of its log:\n{tail(log)}\n"
            f"The whole log: {log}"
        )


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log, without progress bars and blank lines."""
    text = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    kept = [line for line in text.splitlines() if line.strip() and not ANY_BAR.search(line)]
    return "\n".join(f"  | {line}" for line in kept[-lines:])
