"""What a run says with its first step: losses, weights, rows."""

from __future__ import annotations

from collections.abc import Mapping

from safekey_peft.config import SafeKeyConfig
from safekey_peft.hosts.schedule import LossSchedule


def banner(
    config: SafeKeyConfig,
    feeding: Mapping[str, int],
    schedule: LossSchedule | None,
    choices: Mapping[str, str],
) -> str:
    """Return the banner, a line per active loss and per choice made for the model.

    Args:
        config: the run's options.
        feeding: training rows that feed each loss.
        schedule: when the two SafeKey losses are on.
        choices: what was chosen → why.
    """
    weights = {
        "dual_path": f"weight {config.dual_path_weight:g}, θ {config.dual_path_theta:g}",
        "query_mask": f"weight {config.query_mask_weight:g}",
        "harmful_prefix": f"empty share {config.harmful_prefix_empty:g}, from {config.harmful_prefix_from}",
        "rto": f"weight {config.rto_weight:g}, keep {config.rto_keep:g}, from {config.rto_from}",
    }
    lines = ["safekey: training with " + ", ".join(config.active) + config.preset_note]
    for loss in config.active:
        when = ""
        if loss in ("dual_path", "query_mask") and schedule is not None and schedule.first_step:
            when = f", on from step {schedule.first_step} of {schedule.max_steps}"
        lines.append(f"  {loss:<15} {weights[loss]}, fed by {feeding.get(loss, 0)} rows{when}")
    return "\n".join([*lines, *(f"  {choice} ({reason})" for choice, reason in choices.items())])
