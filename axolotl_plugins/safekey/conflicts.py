"""Axolotl options that the safety losses cannot be combined with, each with its reason and the alternative."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safekey_peft.config import FLAG_PREFIX
from safekey_peft.errors import ConfigError

_CONFLICTS = {
    "rl": "preference and RL trainers have their own losses; run the safety losses as a supervised run",
    "reward_model": "a reward model has no language-model loss; remove it",
    "process_reward_model": "a reward model has no language-model loss; remove it",
    "streaming": "streamed rows cannot be counted before training; set streaming: false",
    "pretraining_dataset": "pretraining streams have no rows with marks; use datasets:",
    "skip_prepare_dataset": "rows have to be encoded with their spans; set skip_prepare_dataset: false",
    "batch_flattening": "segments are flattened already; remove batch_flattening",
    "use_pose": "PoSE changes position ids, which tell segments apart; remove use_pose",
    "relora": "ReLoRA restarts the adapter and not the safety head; remove relora",
    "processor_type": "multimodal batches are not supported; train the language model alone",
    "orpo_alpha": "ORPO replaces the loss; remove orpo_alpha",
    "use_eaft": "EAFT replaces the token loss; remove use_eaft",
    "label_smoothing_factor": "label smoothing changes every target; remove it",
    "kd_trainer": "distillation has its own trainer; remove kd_trainer",
    "torch_compile": "compiled forwards are untested with the losses' hooks; set torch_compile: false",
    "fsdp": "the safety head is not gathered from shards yet; train with one process per GPU (DDP)",
    "fsdp_config": "the safety head is not gathered from shards yet; train with one process per GPU (DDP)",
    "deepspeed": "the safety head is not gathered from shards yet; train with one process per GPU (DDP)",
    "do_causal_lm_eval": "it evaluates stock batches; remove it",
    "do_bench_eval": "it evaluates stock batches; remove it",
    "eval_table_size": "it reads stock batches; remove it",
    "use_mora": "untested with the safety losses; use adapter: qlora or lora",
}
_SIZES = {
    "context_parallel_size": "it splits sequences, which the spans do not follow",
    "sequence_parallel_degree": "it splits sequences, which the spans do not follow",
    "tensor_parallel_size": "it splits the LM head, whose inputs are gathered whole",
    "expert_parallel_size": "its adapter saving bypasses the safety head",
}


def conflicts(cfg: Any) -> list[tuple[str, str]]:
    """Return each option that would make the losses wrong or silently absent, with its reason and the alternative."""
    faults = [(name, reason) for name, reason in _CONFLICTS.items() if cfg.get(name)]
    faults += [(f"{name} > 1", f"{reason}; set it to 1") for name, reason in _SIZES.items() if (cfg.get(name) or 1) > 1]
    length = cfg.get("eval_sequence_len")
    if length and length != cfg.get("sequence_len"):
        faults.append(("eval_sequence_len", "rows are fitted to sequence_len once; give both the same value"))
    if not (cfg.get("datasets") or []):
        faults.append(("datasets", "none given"))
    return faults


def refuse_conflicts(cfg: Any) -> None:
    """Stop on options that would make the losses wrong or silently absent.

    Raises:
        ConfigError: all of them at once.
    """
    faults = [f"{name}: {reason}" for name, reason in conflicts(cfg)]
    if faults:
        raise ConfigError("cannot be combined with the safekey losses: " + " | ".join(faults))


def refuse_dropped_options(arguments: Sequence[str]) -> None:
    """Stop where flags stand on the command line of ``axolotl``, which knows no plugin's options.

    It hands them to its launcher, which refuses them; but ``--launcher python`` drops them without a word.

    Args:
        arguments: of the process, its program first.

    Raises:
        ConfigError: names them.
    """
    program = Path(arguments[0] if arguments else "")
    if program.stem != "axolotl" and program.parts[-3:] != ("axolotl", "cli", "main.py"):
        return  # `python -m axolotl.cli.train` does read them
    options = [word for word in arguments[1:] if word.replace("-", "_").startswith(f"__{FLAG_PREFIX}")]
    if options:
        raise ConfigError(
            f"axolotl drops {', '.join(options)}: its command line has no options of plugins. Write it into the "
            "configuration, e.g. safekey_preset: all"
        )
