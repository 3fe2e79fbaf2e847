"""The safety losses on transformers' Trainer.

The mixin hands a batch over and logs the breakdown; what a loss is stands in ``core``. It overrides
``compute_loss`` and the counting before it, nothing of the loop.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from safekey_peft.config import SafeKeyConfig
from safekey_peft.core import DualPathSafetyHead, LossRole, ObjectiveCounts, ObjectiveWeights, objective
from safekey_peft.data.collator import EXAMPLE_COLUMNS, SafeKeyCollator, join_masked_segments
from safekey_peft.errors import ConfigError
from safekey_peft.hosts.banner import banner
from safekey_peft.hosts.feeding import require_rows, rows_feeding, warn_of_single_class
from safekey_peft.hosts.fit import choose_cross_entropy, choose_isolation, has_dense_mask, refuse_options
from safekey_peft.hosts.manifest import build_manifest, write_manifest
from safekey_peft.hosts.metrics import BreakdownSums
from safekey_peft.hosts.schedule import LossSchedule
from safekey_peft.model.attach import attach_safety_head, disable_avx512_bf16_repacking
from safekey_peft.model.forward import (
    HEAD_NAME,
    ForwardPlan,
    SegmentForward,
    forward_plan,
)
from safekey_peft.model.head_files import restore_safety_head

logger = logging.getLogger(__name__)

DENSE_ROW_TOKENS = 2048
"""Rows of this many tokens where attention has a dense mask; variable-length kernels take a batch as one row."""


class SafeKeyTrainerMixin(Trainer):
    """Adds the safety losses to a Trainer; put it before the Trainer class in the bases.

    Args:
        safekey_config: which losses. With all switches off the mixin does nothing at all.
        data_collator: a ``SafeKeyCollator``; default: one with the tokenizer's pad token.

    Raises:
        ConfigError: the run's options contradict the losses (all reasons at once).
        DataError: a switched-on loss has no training row.
    """

    safekey_config: SafeKeyConfig = SafeKeyConfig()

    def __init__(
        self, *args: Any, safekey_config: SafeKeyConfig | None = None, data_collator: Any = None, **kwargs: Any
    ) -> None:
        if safekey_config is not None:
            self.safekey_config = safekey_config
        active = self.safekey_config.any_active
        if active and data_collator is None:
            tokenizer = kwargs.get("processing_class")
            if getattr(tokenizer, "pad_token_id", None) is None:
                raise ConfigError("pass data_collator=SafeKeyCollator(…), or a processing_class with a pad token")
            data_collator = SafeKeyCollator(tokenizer.pad_token_id)
        if active:
            # Attached before Trainer looks at the parameters and moves the model.
            model = kwargs.get("model", args[0] if args else None)
            if isinstance(model, nn.Module):
                disable_avx512_bf16_repacking(model)
                seed = getattr(kwargs.get("args", args[1] if len(args) > 1 else None), "seed", 42)
                head = attach_safety_head(model, self.safekey_config, seed=seed)
                if head is not None:
                    head.requires_grad_(True)  # hosts freeze what a list of theirs does not name
        super().__init__(*args, data_collator=data_collator, **kwargs)
        if active:
            self._set_up_losses()

    # ------------------------------------------------------------------ set-up

    def _set_up_losses(self) -> None:
        config = self.safekey_config
        refuse_options(self)
        self.safekey_weights = ObjectiveWeights(
            rto=config.rto_weight,
            key=config.query_mask_weight if config.query_mask else 0.0,
            head=config.dual_path_weight if config.dual_path else 0.0,
            theta=config.dual_path_theta,
        )
        self.safekey_roles = {LossRole.SFT, LossRole.PREFIX} | ({LossRole.RTO} if config.rto else set())
        # Each optimizer step's counts come from get_batch_samples, so the loss is normalised already.
        self.model_accepts_loss_kwargs = True
        self.safekey_feeding = rows_feeding(self.train_dataset) if self.train_dataset is not None else None
        if self.safekey_feeding is not None:
            require_rows(config, self.safekey_feeding)
            self._single_class = warn_of_single_class(self.train_dataset) if config.dual_path else None
        self.safekey_data_counts: Mapping[str, Any] | None = None
        self.safekey_datasets: list[Mapping[str, Any]] = []
        self.safekey_isolation, isolation_reason = choose_isolation(config, self.model)
        cross_entropy, entropy_reason = choose_cross_entropy(config, self.model, self.args)
        for collator in {id(c): c for c in self._collators()}.values():
            collator.isolation = self.safekey_isolation
            if has_dense_mask(self.model):
                collator.row_tokens = collator.row_tokens or DENSE_ROW_TOKENS
            else:
                collator.one_row = True
        self._forward = SegmentForward(self.model, cross_entropy=cross_entropy, detach_head=config.dual_path_detach)
        self._reasons = {"isolation": isolation_reason, "cross_entropy": entropy_reason}
        self._schedule: LossSchedule | None = None
        self._masked_losses_on = True
        self._train_sums = BreakdownSums(self.args.device)
        self._eval_sums: BreakdownSums | None = None
        self._announced = False

    def _collators(self) -> list[SafeKeyCollator]:
        found = [self.data_collator, getattr(self, "eval_data_collator", None)]
        return [collator for collator in found if isinstance(collator, SafeKeyCollator)]

    # ------------------------------------------------------------------ data

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.safekey_config.any_active and self._signature_columns is not None:
            missing = [c for c in ("labels", *EXAMPLE_COLUMNS) if c not in self._signature_columns]
            self._signature_columns = [*self._signature_columns, *missing]

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """As the Trainer's, but ranks do not repeat rows to fill up the last batch (sums would count them twice)."""
        if not self.safekey_config.any_active or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super().get_eval_dataloader(eval_dataset)
        even = self.accelerator.even_batches
        self.accelerator.even_batches = False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.accelerator.even_batches = even

    def set_initial_training_values(self, *args: Any, **kwargs: Any) -> Any:
        """Note steps per epoch and in all: the schedule counts in them."""
        values = super().set_initial_training_values(*args, **kwargs)
        if self.safekey_config.any_active:
            steps_per_epoch, max_steps = values[1], values[-1]
            self._train_sums = BreakdownSums(self.args.device)  # an attempt that ran out of memory may be in it
            self._schedule = LossSchedule(self.safekey_config.last_epochs, max_steps, steps_per_epoch)
        return values

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Fetch the micro-batches of one optimizer step and count its targets over all ranks."""
        if not self.safekey_config.any_active:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = []
        for _ in range(num_batches):
            try:
                batches.append(next(epoch_iterator))
            except StopIteration:
                break
        assert self._schedule is not None
        self._masked_losses_on = self._schedule.is_on(self.state.global_step)
        counts = ObjectiveCounts(0, 0, 0)
        for batch in batches:
            counts = counts + self._count(batch)
        if self.accelerator.num_processes > 1:
            local = torch.tensor([counts.lm, counts.key, counts.head], device=device, dtype=torch.int64)
            counts = ObjectiveCounts(*self.accelerator.reduce(local, reduction="sum").tolist())
        if not self._announced:
            self._announced = True
            self._announce()
        return batches, counts

    def _count(self, batch: Mapping[str, Tensor]) -> ObjectiveCounts:
        lm = sum(batch[f"{role.name.lower()}_targets"].shape[0] for role in self.safekey_roles)
        if not self._masked_losses_on:
            return ObjectiveCounts(lm, 0, 0)
        key = batch["key_targets"].shape[0] if self.safekey_config.query_mask else 0
        head = batch["head_labels"].shape[0] if self.safekey_config.dual_path else 0
        return ObjectiveCounts(lm, key, head)

    # ------------------------------------------------------------------ the step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return this micro-batch's share of the step's objective, scaled so that averaging ranks adds them up."""
        if not self.safekey_config.any_active:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if return_outputs:
            raise ConfigError("the safety losses give no outputs for metrics; leave compute_metrics out")
        counts: ObjectiveCounts = num_items_in_batch
        plan = self._plan(inputs, self._masked_losses_on)
        result = self._forward(model, plan)
        self._train_sums.add(plan, result, inputs["example_tokens"], self._masked_losses_on)
        return objective(result.sums, counts, self.safekey_weights) * self.accelerator.num_processes

    def _plan(self, batch: Mapping[str, Tensor], masked_losses: bool) -> ForwardPlan:
        config, roles = self.safekey_config, set(self.safekey_roles)
        input_ids, position_ids = batch["input_ids"], batch["position_ids"]
        if masked_losses and config.query_mask:
            input_ids, position_ids = join_masked_segments(batch)
            roles.add(LossRole.KEY)
        return forward_plan(
            batch, input_ids, position_ids, roles=frozenset(roles), head=masked_losses and config.dual_path
        )

    # ------------------------------------------------------------------ optimizer

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Give the safety head its own learning rate, and make sure that it is trained at all."""
        optimizer = super().create_optimizer(*args, **kwargs)
        head = getattr(self.model, HEAD_NAME, None)
        if not self.safekey_config.any_active or not isinstance(head, DualPathSafetyHead):
            return optimizer
        parameters = list(head.parameters())
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if any(id(parameter) not in known for parameter in parameters):
            raise ConfigError(
                f"the optimizer {type(optimizer).__name__} does not hold the safety head; use one that takes all "
                "trainable parameters"
            )
        # Without a rate of its own the head has the run's, not that of LoRA+ or of embeddings.
        rate = self.safekey_config.head_learning_rate or self.args.learning_rate
        for group in list(optimizer.param_groups):
            if group["lr"] != rate:
                own = [p for p in group["params"] if any(p is q for q in parameters)]
                if own:
                    group["params"] = [p for p in group["params"] if not any(p is q for q in own)]
                    options = {name: value for name, value in group.items() if name != "params"}
                    optimizer.add_param_group({**options, "params": own, "lr": rate})
        return optimizer

    # ------------------------------------------------------------------ evaluation

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Add one evaluation batch's sums; the loss of the whole set is computed at the end."""
        if not self.safekey_config.any_active:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        plan = self._plan(inputs, masked_losses=True)
        with torch.no_grad(), self.compute_loss_context_manager():
            result = self._forward(model, plan)
        assert self._eval_sums is not None
        self._eval_sums.add(plan, result, inputs["example_tokens"], with_masked=True)
        return None, None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate every switched-on loss whatever the schedule, over the whole set and all ranks.

        Otherwise the loss would jump when the schedule switches two of them on, and the best checkpoint would be
        one from before.
        """
        if not self.safekey_config.any_active:
            return super().evaluation_loop(*args, **kwargs)
        self._eval_sums = BreakdownSums(self.args.device)
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: setattr(self, "_eval_sums", None))
            output = super().evaluation_loop(*args, **kwargs)
            sums = self._eval_sums
            sums.reduce(self._across_ranks)
        prefix = kwargs.get("metric_key_prefix", "eval")
        output.metrics[f"{prefix}_loss"] = sums.objective(self.safekey_weights)
        output.metrics.update({f"{prefix}_{name}": value for name, value in sums.metrics().items()})
        return output

    # ------------------------------------------------------------------ logs

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the breakdown to every training log line."""
        if self.safekey_config.any_active and "loss" in logs:
            self._train_sums.reduce(self._across_ranks)
            logs.update(self._train_sums.metrics())
            self._last_language_nats = self._train_sums.language_nats()
            self._train_sums = BreakdownSums(self.args.device)
        super().log(logs, *args, **kwargs)

    def _across_ranks(self, values: Tensor) -> Tensor:
        if self.accelerator.num_processes == 1:
            return values
        reduced: Tensor = self.accelerator.reduce(values, reduction="sum")
        return reduced

    def _announce(self) -> None:
        """Say, with the first step, what is trained."""
        if not self.is_world_process_zero():
            return
        lines = banner(
            self.safekey_config,
            self.safekey_feeding or {},
            self._schedule,
            {
                f"segments {self.safekey_isolation}": self._reasons["isolation"],
                f"cross-entropy {self._forward.cross_entropy}": self._reasons["cross_entropy"],
            },
        )
        if self._single_class:
            lines = f"{lines}\nWARNING {self._single_class}"
        print(lines, file=sys.stderr, flush=True)

    # ------------------------------------------------------------------ files

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.safekey_config.any_active:
            write_manifest(self.safekey_manifest(), output_dir or self.args.output_dir)

    def safekey_manifest(self) -> dict[str, Any]:
        """Return the manifest of this run as it stands."""
        schedule = self._schedule
        return build_manifest(
            self.safekey_config,
            data=self.safekey_data_counts,
            rows_feeding=self.safekey_feeding or {},
            run={
                "isolation": self.safekey_isolation,
                "isolation_reason": self._reasons["isolation"],
                "cross_entropy": self._forward.cross_entropy,
                "global_step": self.state.global_step,
                "max_steps": schedule.max_steps if schedule else None,
                "steps_per_epoch": schedule.steps_per_epoch if schedule else None,
                "safekey_losses_from_step": schedule.first_step if schedule else None,
                "seed": self.args.seed,
                "world_size": self.accelerator.num_processes,
            },
            datasets=self.safekey_datasets,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._restore_head(resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.args.device.type == "cpu" and self.args.device.index is not None:
            restore_numbered_cpus()
        super()._load_optimizer_and_scheduler(checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.state.best_model_checkpoint is not None:
            self._restore_head(self.state.best_model_checkpoint)

    def _restore_head(self, folder: str) -> None:
        head = getattr(self.model, HEAD_NAME, None)
        if self.safekey_config.any_active and isinstance(head, DualPathSafetyHead):
            restore_safety_head(head, Path(folder))
            logger.info("safety head restored from %s", folder)


@functools.cache
def restore_numbered_cpus() -> None:
    """Teach torch to load tensors to ``cpu:0``, the device that accelerate gives to each rank on CPUs."""

    def to_cpu(storage: Any, location: str) -> Any:
        return storage if location.startswith("cpu:") else None

    torch.serialization.register_package(5, lambda _storage: None, to_cpu)


class SafeKeyTrainer(SafeKeyTrainerMixin, Trainer):
    """transformers' Trainer with the safety losses."""
