"""The tuned models that the laboratory compares, as data: losses, and what changes in the tuning set.

Every variant sees the same rows in the same number of epochs, with the same adapter and learning rate; it
differs in what stands here and in nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from safekey_peft.config import SafeKeyConfig, build_config
from safekey_peft.errors import ConfigError
from safekey_peft.lab.tuning_set import TuningSizes

# The world's vocabulary is lower case.
REFUSAL_FLAG: Mapping[str, Any] = {"refusal_text": "sorry"}
WORLD_FLAGS: Mapping[str, Any] = {
    # In this world weights of 1 from the first epoch on work best; the package's defaults are the papers'.
    "dual_path_weight": 1.0,
    "query_mask_weight": 1.0,
    "rto_weight": 1.0,
    "last_epochs": "all",
    **REFUSAL_FLAG,
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of the comparison.

    Attributes:
        name: what users type.
        title: heading in tables.
        losses: the switches that are on.
        flags: further fields of ``SafeKeyConfig``, over ``WORLD_FLAGS``.
        preset: a preset of ``SafeKeyConfig`` in place of ``losses`` and ``WORLD_FLAGS``.
        tuning: changed fields of ``TuningSizes``.
        trained: False for the base itself.
        preferences: whether DPO follows the training.
    """

    name: str
    title: str
    losses: tuple[str, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    tuning: Mapping[str, int] = field(default_factory=dict)
    trained: bool = True
    preferences: bool = False

    def config(self) -> SafeKeyConfig:
        """Return the validated options.

        Raises:
            ConfigError: a flag is unknown or has a wrong value.
        """
        return build_config(self.options())

    def options(self) -> dict[str, Any]:
        """Return what a user would set for it, by the fields of ``SafeKeyConfig``; nothing for plain SFT."""
        if self.preset is not None:
            return {"preset": self.preset, **REFUSAL_FLAG, **self.flags}
        if not self.losses:
            return dict(self.flags)
        return {**dict.fromkeys(self.losses, True), **WORLD_FLAGS, **self.flags}

    def sizes(self) -> TuningSizes:
        """Return the sizes of this variant's tuning set."""
        return TuningSizes(**self.tuning)


HEAD, MASK, PREFIX, RTO = (("dual_path",), ("query_mask",), ("harmful_prefix",), ("rto",))
SMALL = {"dual_path_weight": 0.2, "query_mask_weight": 0.2}
SAFEKEY, DERTA = HEAD + MASK, PREFIX + RTO

TABLE = (
    Variant("base", "base", trained=False),
    Variant("sft", "SFT"),
    Variant("query_mask", "query mask", MASK),
    Variant("head", "head", HEAD),
    Variant("safekey", "SafeKey", SAFEKEY),
    Variant("prefix", "prefix", PREFIX),
    Variant("rto", "RTO", RTO),
    Variant("derta", "DeRTa", DERTA),
    Variant("all", "all", preset="all"),
)

PAPERS = {"rto_from": "response", "harmful_prefix_from": "response", "harmful_prefix_empty": 0.3333}

ABLATIONS = (
    Variant("head-detached", "head, detached", HEAD, {"dual_path_detach": True}),
    Variant("head-theta-0", "head, context path only (θ 0)", HEAD, {"dual_path_theta": 0.0}),
    Variant("head-theta-1", "head, understanding path only (θ 1)", HEAD, {"dual_path_theta": 1.0}),
    Variant("safekey-detached", "SafeKey, head detached", SAFEKEY, {"dual_path_detach": True}),
    Variant("safekey-weights-0.2", "SafeKey, weights 0.2", SAFEKEY, SMALL),
    Variant("safekey-last-2", "SafeKey, last 2 epochs", SAFEKEY, {"last_epochs": 2}),
    Variant("safekey-paper", "SafeKey, weights 0.2, last 2 epochs", preset="safekey"),
    Variant("rto-keep-0.05", "RTO, keep 0.05", RTO, {"rto_keep": 0.05}),
    Variant("rto-keep-0.5", "RTO, keep 0.5", RTO, {"rto_keep": 0.5}),
    Variant("prefix-empty-0", "prefix, none empty", PREFIX, {"harmful_prefix_empty": 0.0}),
    Variant("prefix-empty-0.6667", "prefix, 2/3 empty", PREFIX, {"harmful_prefix_empty": 0.6667}),
    Variant("derta-answer", "DeRTa, RTO in the answer", DERTA, {"rto_from": "answer"}),
    Variant("all-papers", "all, RTO and prefixes as in DeRTa", preset="all", flags=PAPERS),
    Variant("all-rto-response", "all, RTO in all of H", preset="all", flags={"rto_from": "response"}),
    Variant("all-rto-divergence", "all, RTO where H has left R", preset="all", flags={"rto_from": "divergence"}),
    Variant("all-prefix-response", "all, any prefix", preset="all", flags={"harmful_prefix_from": "response"}),
    Variant("all-empty-0.3333", "all, 1/3 empty", preset="all", flags={"harmful_prefix_empty": 0.3333}),
    Variant("all-draws-2", "all, two prefixes a row", preset="all", flags={"harmful_prefix_draws": 2}),
    Variant("all-no-head", "all, no head", preset="all", flags={"dual_path": False}),
    Variant("all-no-mask", "all, no query mask", preset="all", flags={"query_mask": False}),
    Variant("all-weights-0.2", "all, SafeKey weights 0.2", preset="all", flags=SMALL),
    Variant("all-last-2", "all, SafeKey in the last 2 epochs", preset="all", flags={"last_epochs": 2}),
    Variant("dpo", "SFT, then DPO", preferences=True),
    *(
        replace(parent, name=f"{parent.name}-{name}", title=f"{parent.title}, {title}", tuning=tuning)
        for parent in TABLE
        if parent.name in ("sft", "safekey", "derta", "all")
        for name, title, tuning in (
            ("wrapped-0", "no harmless wrapped rows", {"harmless_wrapped": 0}),
            ("harmful-25", "25 harmful rows", {"harmful_plain": 25}),
            ("harmful-50", "50 harmful rows", {"harmful_plain": 50}),
        )
    ),
)  # fmt: skip
"""One change each, but for ``all-papers``: what the preset ``all`` changes of DeRTa. The table's own values (θ 0.5,
weight 1, all epochs, keep 1, 100 harmless wrapped and 100 harmful rows) are the table's variants."""

VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in TABLE + ABLATIONS}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "table": tuple(variant.name for variant in TABLE),
    "all-of-the-table": tuple(variant.name for variant in TABLE),
    "ablations": tuple(variant.name for variant in ABLATIONS),
    "everything": tuple(VARIANTS),
}


def choose_variants(names: Iterable[str]) -> tuple[Variant, ...]:
    """Return the variants of some names and groups, each once, in the order of the tables.

    Raises:
        ConfigError: names every one that does not exist, and the nearest that does.
    """
    chosen: set[str] = set()
    faults = []
    for name in names:
        if name not in GROUPS and name not in VARIANTS:
            near = get_close_matches(name, [*GROUPS, *VARIANTS], n=1, cutoff=0.0)[0]
            faults.append(f"{name!r} is no variant, did you mean {near!r}?")
        chosen.update(GROUPS.get(name, (name,)))
    if faults or not chosen:
        raise ConfigError(" ".join(faults or ["no variant was named."]) + " `safekey lab --list` shows all.")
    return tuple(variant for name, variant in VARIANTS.items() if name in chosen)
