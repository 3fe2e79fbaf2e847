"""``SafeKeyPlugin``: the thin Axolotl host of the safety losses."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin

from axolotl_plugins.safekey.conflicts import refuse_conflicts, refuse_dropped_options
from axolotl_plugins.safekey.cpu import adapt_to_cpu, is_cpu_run, place_on_cpu
from safekey_peft.config import SafeKeyConfig, config_from_flags
from safekey_peft.errors import ConfigError

LOG = logging.getLogger("axolotl.safekey")
DATASET_TYPE = "axolotl_plugins.safekey.dataset"
PLUGIN_NAME = "axolotl_plugins.safekey.SafeKeyPlugin"


class SafeKeyPlugin(BasePlugin):
    """Reads the ``safekey_*`` flags and hands Axolotl our trainer and collator.

    With all switches off every method but the checks returns None: the run is Axolotl's own, bit for bit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.config = SafeKeyConfig()

    def register(self, cfg: Any) -> None:
        """Check flags and options while the raw configuration is still visible; may run twice.

        Raises:
            ConfigError: all faults of a kind at once.
        """
        refuse_dropped_options(sys.argv)
        self.config = config_from_flags(cfg)
        if not self.in_use(cfg):
            return
        if not self.config.any_active:
            off = f"all four losses are off{self.config.preset_note}"
            LOG.warning("safekey: %s; this run is plain supervised fine-tuning", off)
        else:
            refuse_conflicts(cfg)
            if is_cpu_run():
                adapt_to_cpu(cfg)
        from axolotl_plugins.safekey.loading import install_data_hooks

        install_data_hooks()

    def in_use(self, cfg: Any) -> bool:
        """Whether this configuration switches a loss on or has a data set of our type."""
        return self.config.any_active or uses_dataset_type(cfg)

    def get_input_args(self) -> str:
        """Return the pydantic model of the flags."""
        return "axolotl_plugins.safekey.args.SafeKeyArgs"

    def get_training_args(self, cfg: Any) -> dict[str, Any] | None:
        """Keep a run without a GPU on the CPU."""
        if self.config.any_active and is_cpu_run():
            return {"use_cpu": True, "dataloader_pin_memory": False}
        return None

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> None:
        """Seed before Axolotl estimates the steps; keep a CPU run's ranks on the CPU.

        Both have to happen after the configuration is normalised and before the model loader reads it.
        """
        self._seed(cfg)
        if self.config.any_active and is_cpu_run():
            place_on_cpu(cfg)

    def pre_model_load(self, cfg: Any) -> None:
        """Seed before the adapter's weights are drawn."""
        self._seed(cfg)

    def post_model_load(self, cfg: Any, model: Any) -> None:
        """Attach the safety head to the finished model, and load it where a run continues from an adapter."""
        if not self.config.any_active:
            return
        from safekey_peft.model.attach import attach_safety_head, disable_avx512_bf16_repacking
        from safekey_peft.model.head_files import HEAD_FILE, restore_safety_head

        disable_avx512_bf16_repacking(model)
        head = attach_safety_head(model, self.config, seed=cfg.seed or 0)
        folder = cfg.lora_model_dir if cfg.adapter else cfg.base_model
        if head is None or not folder:
            return
        if (Path(folder) / HEAD_FILE).is_file():
            restore_safety_head(head, folder)
            LOG.info("safety head loaded from %s", folder)
        elif cfg.lora_model_dir:
            LOG.warning("%s holds no %s: the safety head starts from new weights", folder, HEAD_FILE)

    def get_trainer_cls(self, cfg: Any) -> type | None:
        """Return our trainer with this run's options, or None with all switches off."""
        if not self.config.any_active:
            return None
        from axolotl_plugins.safekey.trainer import SafeKeyAxolotlTrainer

        return type("SafeKeyAxolotlTrainer", (SafeKeyAxolotlTrainer,), {"safekey_config": self.config})

    def get_collator_cls_and_kwargs(self, cfg: Any, is_eval: bool = False) -> tuple[Any, dict[str, Any]] | None:
        """Return our collator, or None with all switches off."""
        if not self.config.any_active:
            return None
        from axolotl_plugins.safekey.trainer import build_collator

        return build_collator, {}

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Give the trainer the counts of the prepared data for its manifest."""
        if not self.config.any_active:
            return
        from axolotl_plugins.safekey.loading import dataset_entries, prepared_counts
        from safekey_peft.hosts.trainer import SafeKeyTrainerMixin

        if not isinstance(trainer, SafeKeyTrainerMixin):
            raise ConfigError(
                f"another plugin put its trainer {type(trainer).__name__} before ours, so the safety losses would "
                f"not be trained; list {PLUGIN_NAME} first, or remove the other plugin"
            )
        trainer.safekey_data_counts = prepared_counts(cfg)
        trainer.safekey_datasets = dataset_entries(cfg)
        self._trainer = trainer

    def post_train(self, cfg: Any, model: Any) -> None:
        """Write the manifest beside the final weights, which Axolotl saves past the trainer; may run twice."""
        trainer = getattr(self, "_trainer", None)
        if not self.config.any_active or trainer is None or int(os.environ.get("RANK", "0")) != 0:
            return
        from safekey_peft.hosts.manifest import write_manifest

        write_manifest(trainer.safekey_manifest(), cfg.output_dir)

    def post_train_unload(self, cfg: Any) -> None:
        """Let go of the trainer; a run of several ranks keeps it until its process ends.

        There the process group is gone by now, and the destructor of the trainer's model was seen to wait for it.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            self._trainer = None

    def _seed(self, cfg: Any) -> None:
        if self.config.any_active:
            from transformers import set_seed

            set_seed(cfg.seed or 0)


def uses_dataset_type(cfg: Any) -> bool:
    """Whether a data set of the configuration has our type."""
    entries = [*(cfg.get("datasets") or []), *(cfg.get("test_datasets") or [])]
    return any(str(entry.get("type", "")).split(":")[0] == DATASET_TYPE for entry in entries if hasattr(entry, "get"))
