"""Axolotl runs in forked children: the heavy import happens once, and no run sees another's state."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tokenizers import tokenizer_with_template

PLUGIN = "axolotl_plugins.safekey.SafeKeyPlugin"
TYPE = "axolotl_plugins.safekey.dataset"
LOSSES = {
    "safekey_dual_path": True,
    "safekey_query_mask": True,
    "safekey_harmful_prefix": True,
    "safekey_rto": True,
    "safekey_last_epochs": "all",
}


@dataclass(frozen=True)
class Run:
    """What a child left behind."""

    exit_code: int
    output: str

    @property
    def error(self) -> str:
        """The last line of the traceback, or ''."""
        lines = [line for line in self.output.splitlines() if line.startswith("RUN FAILED: ")]
        return lines[-1].removeprefix("RUN FAILED: ") if lines else ""


def write_base(folder: Path, *, hidden: int = 64) -> Path:
    """A tiny random Llama with a byte-level BPE whose template opens the thought."""
    tokenizer = tokenizer_with_template("byte_bpe", "r1_distill")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=False, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def potion_rows(count: int = 24) -> list[dict[str, Any]]:
    """Rows with marks, labels and harmful responses, of various lengths."""
    rows = []
    for index in range(count):
        colour = ["black", "cursed", "golden", "silver"][index % 4]
        harmful = index % 4 < 2
        understanding = f"<think>\nOkay, the user wants to brew a {colour} potion{' now' * (index % 3)}."
        key = " That is forbidden, so I must refuse." if harmful else " I can explain this."
        rest = " Let me say so." * (1 + index % 5) + "\n</think>\n\n" + ("Sorry, no." if harmful else "Stir it well.")
        row: dict[str, Any] = {
            "id": f"p{index}",
            "query": f"How do I brew a {colour} potion number {index}?",
            "response": understanding + key + rest,
            "is_harmful": harmful,
            "understanding_end": len(understanding),
            "key_sentence_end": len(understanding + key),
        }
        if harmful:
            row["harmful_response"] = (
                "<think>\nThe user wants a potion. I take the roots.\n</think>\n\n"
                + "First stir the roots. " * (1 + index % 3)
            )
        rows.append(row)
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows or potion_rows())), encoding="utf-8")
    return path


def config(base: Path, data: Path, output: Path, **options: Any) -> dict[str, Any]:
    """A small QLoRA configuration with all four losses; options replace or, when None, remove keys."""
    merged = {
        "base_model": str(base), "plugins": [PLUGIN], "adapter": "qlora", "load_in_4bit": True,
        "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True, "lora_dropout": 0.1,
        "datasets": [{"path": str(data), "type": TYPE}],
        "dataset_prepared_path": str(output.parent / "prepared"), "output_dir": str(output),
        "sequence_len": 512, "sample_packing": False, "micro_batch_size": 4, "gradient_accumulation_steps": 1,
        "num_epochs": 1, "learning_rate": 0.01, "optimizer": "adamw_torch", "lr_scheduler": "constant",
        "logging_steps": 1, "save_strategy": "no", "val_set_size": 0, "seed": 5, "dataset_num_proc": 1,
        **LOSSES, **options,
    }  # fmt: skip
    return {key: value for key, value in merged.items() if value is not None}


@lru_cache
def warm_up() -> None:
    """Import what a child needs, once, in the parent."""
    import axolotl.cli.config
    import axolotl.cli.evaluate
    import axolotl.cli.preprocess
    import axolotl.cli.train
    import axolotl.common.datasets
    import axolotl.core.builders
    import axolotl.train  # noqa: F401


def run_axolotl(command: str, cfg: dict[str, Any], *, ranks: int = 1, timeout: float = 240) -> Run:
    """Run ``axolotl COMMAND`` on a configuration in forked children, one a rank."""
    runs = [start(command, cfg, rank, ranks, port) for port in [_free_port()] for rank in range(ranks)]
    return finish(runs, timeout)


def start(command: str, cfg: dict[str, Any], rank: int = 0, ranks: int = 1, port: int = 0) -> tuple[Any, Path]:
    warm_up()
    output = Path(cfg["output_dir"])
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.parent / f"{output.name}.yml"
    if rank == 0:
        path.write_text(yaml.safe_dump(cfg), encoding="utf-8")
    log = output.parent / f"{output.name}.{command}.{rank}.log"
    process = multiprocessing.get_context("fork").Process(target=_child, args=(command, path, log, rank, ranks, port))
    process.start()
    return process, log


def finish(runs: list[tuple[Any, Path]], timeout: float = 240) -> Run:
    for process, _ in runs:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
    codes = [process.exitcode for process, _ in runs]
    text = "\n".join(log.read_text(encoding="utf-8", errors="replace") for _, log in runs if log.exists())
    return Run(next((code for code in codes if code), 0), text)


def _child(command: str, path: Path, log: Path, rank: int, ranks: int, port: int) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    for name in (None, *logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:  # bound to the parent's streams
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stderr)
    if ranks > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port), ACCELERATE_USE_CPU="true",
        )  # fmt: skip
    torch.set_num_threads(1)
    code = 0
    try:
        _commands()[command](str(path))
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException as error:  # noqa: BLE001 (the child reports whatever stopped it)
        traceback.print_exc()
        print(f"RUN FAILED: {type(error).__name__}: {error}", flush=True)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _commands() -> dict[str, Callable[[str], Any]]:
    import axolotl.cli.evaluate
    import axolotl.cli.preprocess
    import axolotl.cli.train

    sys.argv = ["axolotl"]
    return {
        "train": axolotl.cli.train.do_cli,
        "evaluate": axolotl.cli.evaluate.do_cli,
        "preprocess": axolotl.cli.preprocess.do_cli,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
