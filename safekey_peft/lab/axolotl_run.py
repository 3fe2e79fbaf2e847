"""``axolotl train`` on a variant of the laboratory: the YAML it reads, the command, and what the run left behind."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from safekey_peft.config import FLAG_PREFIX
from safekey_peft.errors import SafeKeyError
from safekey_peft.hosts.manifest import MANIFEST_FILE
from safekey_peft.lab.children import Child
from safekey_peft.lab.variants import Variant

if TYPE_CHECKING:
    from safekey_peft.lab.experiment import Cell

PLUGIN = "axolotl_plugins.safekey.SafeKeyPlugin"
DATASET_TYPE = "axolotl_plugins.safekey.dataset"
STATE_FILE = "trainer_state.json"

CPU_SETTINGS: Mapping[str, Any] = {
    "bf16": False,
    # Axolotl switches these kernels on by itself; without a GPU they stop at the first step.
    "lora_mlp_kernel": False,
    "lora_qkv_kernel": False,
    "lora_o_kernel": False,
    # No accelerator is found anyway; this spares a warning.
    "dataloader_pin_memory": False,
    # To start another process takes longer than to encode so few rows.
    "dataset_num_proc": 1,
}
"""With a loss switched on the plugin sets the kernels itself; plain SFT is Axolotl's own run and needs them."""


def flags_of(variant: Variant) -> dict[str, Any]:
    """Return a variant's options as YAML flags; none for plain SFT."""
    return {f"{FLAG_PREFIX}{name}": value for name, value in variant.options().items()}


def training_config(cell: Cell, base: Path, rows: Path, documents: Path, output: Path) -> dict[str, Any]:
    """Return the Axolotl configuration of a cell; between variants nothing but the flags differs.

    Args:
        cell: seed, variant and sizes, as the laboratory trains them in process.
        base: folder of the base model.
        rows: canonical rows.
        documents: plain documents.
        output: folder of the adapter; prepared data goes beside it.
    """
    from safekey_peft.lab.experiment import LINEAR_LAYERS

    sizes = cell.sizes.training
    return {
        "base_model": str(base),
        "plugins": [PLUGIN],
        "datasets": [
            {"path": str(rows), "ds_type": "json", "type": DATASET_TYPE},
            {"path": str(documents), "ds_type": "json", "type": "completion"},
        ],
        "dataset_prepared_path": str(output.with_name(f"{output.name}-prepared")),
        "output_dir": str(output),
        **flags_of(cell.variant),
        "adapter": "qlora",
        "load_in_4bit": True,
        "lora_r": sizes.lora_r,
        "lora_alpha": sizes.lora_alpha,
        "lora_dropout": 0.0,
        "lora_target_modules": list(LINEAR_LAYERS),
        "sequence_len": 256,
        "micro_batch_size": sizes.batch,
        "gradient_accumulation_steps": 1,
        "num_epochs": sizes.epochs,
        **({"max_steps": sizes.most_steps} if sizes.most_steps > 0 else {}),
        "learning_rate": sizes.learning_rate,
        "lr_scheduler": "cosine",
        "optimizer": "adamw_torch",
        "weight_decay": 0.0,
        "logging_steps": 10,
        # One checkpoint, at the end: it holds the logged losses.
        "save_strategy": "steps",
        "save_steps": 1_000_000,
        "seed": cell.seed,
        **CPU_SETTINGS,
    }


def write_config(path: Path, purpose: str, config: Mapping[str, Any]) -> None:
    """Write a configuration as YAML, opened by its purpose and its command."""
    body = yaml.safe_dump(dict(config), sort_keys=False)
    path.write_text(
        f"# {purpose}\n# Run it again: axolotl train {path} --launcher python\n\n{body}", encoding="utf-8"
    )


def training_child(name: str, config: Path, log: Path, seed: int) -> Child:
    """Return the child process that runs ``axolotl train`` on a configuration.

    Args:
        name: for progress.
        config: the YAML file.
        log: where the child's output goes.
        seed: for what Axolotl draws before it seeds.
    """
    launcher = (sys.executable, "-m", "safekey_peft.lab.seeded_run", str(seed), "axolotl.cli.main")
    return Child(name, (*launcher, "train", str(config), "--launcher", "python"), f"axolotl train {config}", log)


def training_record(output: Path) -> dict[str, Any]:
    """Return what a finished run tells about its training, as a record of the laboratory has it.

    Args:
        output: the run's folder.

    Returns: ``steps``; ``losses``, the parts of the objective every 10 steps; ``rows``, the counts of rows and
        examples, None for plain SFT, of which Axolotl itself keeps none.

    Raises:
        SafeKeyError: the run left no state of its trainer.
    """
    from safekey_peft.lab.experiment import LOGGED_LOSSES

    states = list(output.glob(f"checkpoint-*/{STATE_FILE}"))
    if len(states) != 1:
        raise SafeKeyError(
            f"{output}: expected one checkpoint with {STATE_FILE} of the finished run, found {len(states)}. "
            "Run the demo again"
        )
    state = json.loads(states[0].read_text(encoding="utf-8"))
    losses = []
    for entry in state["log_history"]:
        # A loss without targets since the last entry is no number and is left out.
        known = {name.removeprefix("safekey/"): entry[name] for name in LOGGED_LOSSES if name in entry}
        finite = {name: value for name, value in known.items() if math.isfinite(value)}
        if "loss" in entry:
            losses.append({"step": entry["step"], **finite})
    manifest = output / MANIFEST_FILE
    rows = None
    if manifest.is_file():
        written = json.loads(manifest.read_text(encoding="utf-8"))
        rows = {name: written[name] for name in ("rows", "examples", "examples_dropped", "rows_feeding")}
    return {"steps": state["global_step"], "losses": losses, "rows": rows}
