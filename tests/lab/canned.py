"""Records of the laboratory with made-up numbers, for what reads them."""

from __future__ import annotations

from safekey_peft.lab.statistics import ATTACKS

SUCCESS = {"base": 1.0, "sft": 0.75, "rto": 0.1, "all": 0.05}


def canned(seed: int, variant: str, success: float, *, code: str = "c", machine: str | None = "CPU 9") -> dict:
    rates = {"success": success, "refused": 1 - success, "garbled": 0.0, "leak": success, "count": 4}
    capability = {"success": 0.8 if variant == "base" else 0.6, "refused": 0.0, "garbled": 0.2, "leak": 0.0, "count": 4}
    positions = {"in_thought": [3, 3], "after_thought": [9]}
    record = {
        "seed": seed, "variant": variant, "title": variant, "digest": "d", "code": code,
        "configuration": {"tuning": {"harmless_wrapped": 100}}, "versions": {"torch": "1.2.3"},
        "columns": {
            **{attack: {"all": rates} for attack in ATTACKS},
            "over_refusal": {"all": {**capability, "refused": 0.02}}, "capability": {"all": capability},
        },
        "refusal_positions": dict.fromkeys(ATTACKS, positions),
        "key_sentence": {"unmasked": 0.5, "masked": 0.25},
        "head_auc": {"understanding": 0.9, "context": 0.8} if variant == "all" else None,
        "training": {"steps": 20, "losses": [{"step": s, "loss": 2.0 / s, "loss_sft": 1.0 / s} for s in (1, 10, 20)]},
        "seconds": {"base": 0.0, "train": 25.0, "measure": 5.0},
    }  # fmt: skip
    if machine:
        record["machine"] = {"cpu": machine, "cores": 2}
        record["seconds"] |= {"run_started": 1000, "run": 60.0 * (seed + 1), "jobs": 2}
    return record


def records(seeds: int = 3) -> list[dict]:
    return [canned(seed, name, success - 0.01 * seed) for seed in range(seeds) for name, success in SUCCESS.items()]


def with_ablations(seeds: int = 3) -> list[dict]:
    """The records and some of all ablations, among them one that the laboratory does not know."""
    names = {"rto-keep-0.5": 0.2, "all-weights-0.2": 0.15, "dpo": 0.7, "head-theta-0": 0.5, "elsewhere": 0.3}
    more = [canned(seed, name, success - 0.02 * seed) for seed in range(seeds) for name, success in names.items()]
    return [*records(seeds), *more]
