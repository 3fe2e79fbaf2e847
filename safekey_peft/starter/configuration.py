"""The text of a starter configuration: each line says briefly what it is for."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from safekey_peft.config import FLAG_PREFIX, PRESETS, SWITCHES, preset_losses, yaml_text
from safekey_peft.data.sources import RowSource
from safekey_peft.doctor.flags import loss_of
from safekey_peft.starter.hardware import Hardware
from safekey_peft.starter.memory import Plan
from safekey_peft.starter.rows import CHARS_PER_TOKEN, DataSummary

PLACEHOLDER = "train.jsonl"
WANTED_TOKENS, LONGEST_TOKENS = 4096, 8192
CPU_TOKENS = 1024
ROWS_A_STEP, STEPS_AN_EPOCH = 32, 20
_MEANING = {
    "dual_path": "safety head: tells harmful from harmless queries by U and by what leads to it (SafeKey)",
    "query_mask": "query mask: K is predicted from U alone (SafeKey)",
    "harmful_prefix": "harmful prefix: the safe response follows the first words of a harmful one (DeRTa)",
    "rto": "RTO: at every position of a harmful response the next token is a refusal (DeRTa)",
}


@dataclass(frozen=True, slots=True)
class Starter:
    """All that the text is made of.

    Attributes:
        model: name or folder.
        hardware: GPU or CPU.
        plan: what was chosen for both.
        sizes_from: where the model's sizes come from.
        losses: switches, in the order of the flags.
        reasons: loss → why it is on or off.
        source: the data set, or None for a placeholder.
        data: what was found in it.
        output: name of the file.
    """

    model: str
    hardware: Hardware
    plan: Plan
    sizes_from: str
    losses: tuple[str, ...]
    reasons: Mapping[str, str]
    source: RowSource | None
    data: DataSummary | None
    output: Path

    def text(self) -> str:
        """Return the YAML."""
        parts = [self._head(), self._model(), self._data(), self._losses(), self._adapter(), self._run()]
        return "\n\n".join("\n".join(part) for part in parts) + "\n"

    def _head(self) -> list[str]:
        plan = self.plan
        losses = ", ".join(self.losses) or "no safety loss (plain SFT)"
        adapter = "LoRA" if plan.adapter == "lora" else "QLoRA"
        lines = [
            f"# Purpose:  {losses} on {_shown(Path(self.model).name)}, {adapter}.",
            f"# Command:  axolotl train {_shown(str(self.output))}",
            f"# Hardware: {self.hardware.name}",
        ]
        parts = " + ".join(f"{name} {gib:.1f}" for name, gib in plan.parts.items())
        if self.hardware.is_cpu:
            return [*lines, "# A CPU run is for trying things out with tiny models."]
        lines += [
            f"# Peak GiB: about {plan.total_gib:.0f} of {self.hardware.memory_gib:g} (estimated)",
            f"#   {parts}",
            f"#   sizes from {self.sizes_from}; how each part is estimated: safekey_peft/starter/memory.py",
        ]
        if not plan.fits:
            lines.append("# By this estimate it does NOT fit: take a smaller model or a larger GPU.")
        return lines

    def _model(self) -> list[str]:
        return [
            f"base_model: {_quoted(self.model)}",
            "plugins:",
            "  - axolotl_plugins.safekey.SafeKeyPlugin # without it Axolotl trains plain SFT",
        ]

    def _data(self) -> list[str]:
        source, data = self.source, self.data
        lines = ["datasets:"]
        if source is None or data is None:
            lines.append("  # Replace by your rows: JSON Lines with query, response, is_harmful, harmful_response, …")
        else:
            broken = f", {data.broken} broken ones will be dropped" if data.broken else ""
            lines.append(f"  # {data.rows:,} rows{broken}")
        lines.append(f"  - path: {_quoted(source.address if source else PLACEHOLDER)}")
        kind = "json" if source is None else source.kind
        if kind in ("json", "csv", "parquet"):
            lines.append(f"    ds_type: {kind}")
        if kind == "hub":
            lines.append(f"    split: {source.split if source and source.split else 'train'}")
        lines += [
            "    type: axolotl_plugins.safekey.dataset # encodes rows with the spans that the losses need",
            "dataset_prepared_path: last_run_prepared # cache of encoded rows; made again when rows or flags change",
            "val_set_size: 0 # e.g. 0.05 holds out 5 % of the rows and logs eval_loss",
            f"output_dir: {_quoted(f'outputs/{self.output.stem}')} # adapter, safety head, manifest",
        ]
        return lines

    def _losses(self) -> list[str]:
        preset = covering_preset(self.losses)
        within = preset_losses(preset) if preset else SWITCHES
        lines = ["# The losses. `safekey flags` explains all options."]
        if preset is not None:
            lines.append(f"safekey_preset: {preset} # fills the flags that are not set; one that you set goes first")
        for loss, meaning in _MEANING.items():
            reason = self.reasons[loss].removeprefix("off: ")
            if loss in self.losses:
                lines.append(f"# on:  {meaning}; {reason}")
            elif loss in within:
                lines += [f"# off: {meaning}", f"safekey_{loss}: false # {reason}"]
            else:
                lines.append(f"# off: {meaning}; {reason}")
        if preset is not None:
            lines.append("# What the preset fills beside the switches; uncomment a line to change it.")
            lines += [
                f"# {FLAG_PREFIX}{name}: {yaml_text(value)}"
                for name, value in PRESETS[preset].items()
                if name not in SWITCHES and loss_of(name) in (None, *self.losses)
            ]
        if self.data is not None and self.data.needs_rule and {"dual_path", "query_mask"} & set(self.losses):
            lines.append("safekey_annotation: rule # rows without marks get them by rule; better: safekey annotate")
        return lines

    def _adapter(self) -> list[str]:
        plan = self.plan
        if plan.adapter == "qlora":
            lines = ["adapter: qlora", "load_in_4bit: true # the base model in 4 bits; 16 bits would not fit"]
        else:
            base = "the base model as it is" if self.hardware.is_cpu else "the base model in 16 bits: this GPU holds it"
            lines = [f"adapter: lora # {base}"]
        return [
            *lines,
            f"lora_r: {plan.rank} # rank: capacity of the adapter",
            f"lora_alpha: {plan.rank} # scale of its update: alpha / r",
            "lora_dropout: 0.0",
            "lora_target_linear: true # on every linear layer",
        ]

    def _run(self) -> list[str]:
        plan, packing = self.plan, not self.hardware.is_cpu
        lines = [f"sequence_len: {plan.sequence_len} # longest example in tokens{self._length_reason()}"]
        lines.append("excess_length_strategy: drop # longer rows are dropped and counted")
        if packing:
            lines += [
                "sample_packing: true # several rows in one, kept apart from each other",
                "attn_implementation: sdpa # flash_attention_2 is faster where flash-attn is installed",
            ]
        else:
            lines += ["sample_packing: false", "attn_implementation: sdpa"]
        checkpointing = "recompute layers: slower, much less memory" if plan.checkpointing else "it fits without"
        micro, accumulation = self._batch()
        lines += [
            f"gradient_checkpointing: {'true' if plan.checkpointing else 'false'} # {checkpointing}",
            f"micro_batch_size: {micro} # {'packed rows' if packing else 'examples'} at once",
            f"gradient_accumulation_steps: {accumulation} # micro-batches of a step: more is smoother and fewer steps",
            "num_epochs: 3",
            "optimizer: adamw_torch",
            "learning_rate: 0.0001 # usual for LoRA",
            "lr_scheduler: cosine",
            "warmup_ratio: 0.05",
            "weight_decay: 0.0",
        ]
        if self.hardware.is_cpu:
            lines.append("bf16: false")
        else:
            lines.append("bf16: auto" if self.hardware.bf16 else "fp16: true # this GPU has no bfloat16")
        return [
            *lines,
            "logging_steps: 1",
            "saves_per_epoch: 1",
            "seed: 42 # the same configuration gives the same bits",
        ]

    def _length_reason(self) -> str:
        if self.data is None:
            return ""
        tokens = math.ceil(self.data.long_chars / CHARS_PER_TOKEN)
        return f"; 98 % of the rows are below about {tokens} (estimated from characters)"

    def _batch(self) -> tuple[int, int]:
        """Return micro batch and accumulation: about 32 rows a step, and about 20 steps an epoch of small sets."""
        micro = 1 if not self.hardware.is_cpu else 2
        if self.data is None:
            return micro, 8
        tokens = max(self.data.median_chars / CHARS_PER_TOKEN, 1)
        at_once = micro if self.hardware.is_cpu else max(self.plan.sequence_len / tokens, 1)
        wanted = min(ROWS_A_STEP, self.data.rows / STEPS_AN_EPOCH) / at_once
        return micro, max(1, round(wanted))


def covering_preset(losses: Collection[str]) -> str | None:
    """Return the preset with the fewest losses that holds all of these; None where there are none."""
    covering = [name for name in PRESETS if set(losses) <= set(preset_losses(name))]
    return min(covering, key=lambda name: len(preset_losses(name))) if losses else None


def wanted_tokens(data: DataSummary | None, hardware: Hardware) -> int:
    """Return the ``sequence_len`` that the rows need, as a power of two; without rows the usual 4096."""
    if data is None:
        return CPU_TOKENS if hardware.is_cpu else WANTED_TOKENS
    # [U;K] stands in the row once more, and the chat template adds some tokens.
    needed = data.long_chars / CHARS_PER_TOKEN * 1.25 + 64
    tokens = 1024
    while tokens < min(needed, LONGEST_TOKENS):
        tokens *= 2
    return tokens


def _shown(text: str) -> str:
    """Return text for a comment: a line break would end it."""
    return "".join(char if char.isprintable() else " " for char in text)


def _quoted(text: str) -> str:
    """Return text as a YAML scalar; quoted where it could be read as something else."""
    plain = text.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    safe = plain.isalnum() and plain.isascii() and not plain.isdigit() and not text.startswith(("-", "."))
    return (
        text if safe and text.lower() not in ("true", "false", "null", "yes", "no", "on", "off") else json.dumps(text)
    )
