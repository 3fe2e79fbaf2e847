"""`SafeKeyConfig`: every option of the package, one model, used by the library and by the YAML flags."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from safekey_peft.errors import ConfigError

FLAG_PREFIX = "safekey_"
SWITCHES = ("dual_path", "query_mask", "harmful_prefix", "rto")
"""The four losses, in the order in which banner, manifest and tables name them."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # SafeKey, arXiv 2505.16186, and the defaults of its released train/sft.py.
    "safekey": {
        "dual_path": True,  # --safety_gate
        "query_mask": True,  # --key_sentence_prediction
        "dual_path_weight": 0.2,  # gate_weight
        "query_mask_weight": 0.2,  # key_sentence_weight
        "dual_path_theta": 0.5,  # gate_theta
        "dual_path_detach": False,  # detach_safety_gate is an ablation
        "last_epochs": 2,  # last_k_epoch, of 5 epochs
    },
    # DeRTa, arXiv 2407.09121, appendix A, and its released scripts.
    "derta": {
        "harmful_prefix": True,
        "rto": True,
        "rto_weight": 1.0,  # RTO and SFT targets are one cross-entropy
        "harmful_prefix_empty": 0.3333,  # generate_training_data.py: k = 0 on every third row
        "harmful_prefix_draws": 1,  # one k a row
        "harmful_prefix_from": "response",
        "rto_from": "response",  # "at every position"
        "rto_keep": 1.0,  # LoRA: 'a 0% dropout rate for the "Sorry" token'; full tuning: 95%, which is 0.05 here
        "refusal_text": "Sorry",
    },
    # Neither paper trains all four; where they contradict each other, the values that served best in the potion world.
    "all": {
        "dual_path": True,
        "query_mask": True,
        "harmful_prefix": True,
        "rto": True,
        "dual_path_weight": 1.0,  # the potion world
        "query_mask_weight": 1.0,  # the potion world
        "dual_path_theta": 0.5,  # SafeKey
        "dual_path_detach": False,  # SafeKey
        "last_epochs": "all",  # the potion world
        "rto_weight": 1.0,  # DeRTa
        "harmful_prefix_empty": 0.5,  # the potion world: K needs rows that begin with U
        "harmful_prefix_draws": 1,  # DeRTa
        "harmful_prefix_from": "divergence",  # the potion world: a shared opening is no harmful prefix
        "rto_keep": 1.0,  # DeRTa, LoRA
        "rto_from": "answer",  # the potion world: in the thought RTO contradicts U, K and the prefix
        "refusal_text": "Sorry",  # DeRTa
    },
}
"""What ``preset`` fills, where it is not set. Each holds every value that it stands for, those of today's defaults
too, so that another default changes no preset. Of losses that it does not name a preset says nothing."""

Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _no_number_as_switch(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _visible(value: str) -> str:
    if not value.strip():
        raise ValueError("expected text, found only white space")
    return value


def _known_preset(value: Any) -> Any:
    if isinstance(value, str) and value in PRESETS:
        return value
    near = difflib.get_close_matches(str(value).lower(), PRESETS, n=1, cutoff=0.5)
    raise ValueError(f"expected one of {', '.join(PRESETS)}{f' (did you mean {near[0]!r}?)' if near else ''}")


Switch = Annotated[bool, BeforeValidator(_no_number_as_switch)]
PresetName = Annotated[Literal["safekey", "derta", "all"], BeforeValidator(_known_preset)]


class SafeKeyConfig(BaseModel):
    """Options of the four safety losses. In an Axolotl YAML each field carries the prefix ``safekey_``.

    Defaults are the papers' (SafeKey, arXiv 2505.16186; DeRTa, arXiv 2407.09121). All switches off means
    plain supervised fine-tuning. ``preset`` fills the fields that are not set, see ``PRESETS``; the instance holds
    every value resolved, and its ``model_dump()`` gives the same instance again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    preset: PresetName | None = Field(
        default=None,
        description="Fills the flags that are not set: `safekey` or `derta` (each paper's settings), `all` (four "
        "losses).",
    )

    dual_path: Switch = Field(default=False, description="Switch: dual-path safety head (SafeKey).")
    query_mask: Switch = Field(default=False, description="Switch: query-mask modelling of the key sentence (SafeKey).")
    harmful_prefix: Switch = Field(default=False, description="Switch: MLE with a harmful prefix (DeRTa).")
    rto: Switch = Field(default=False, description="Switch: Reinforced Transition Optimization (DeRTa).")

    dual_path_weight: Weight = Field(default=0.2, description="Weight of the safety head's loss, ≥ 0.")
    query_mask_weight: Weight = Field(default=0.2, description="Weight of the masked key-sentence loss, ≥ 0.")
    rto_weight: Weight = Field(default=1.0, description="Weight of an RTO target beside an SFT target, ≥ 0.")
    dual_path_theta: Share = Field(default=0.5, description="Share θ of the understanding path in the head's loss.")
    dual_path_detach: Switch = Field(
        default=False, description="Ablation: the head's gradient does not reach the model."
    )
    last_epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["all"] = Field(
        default=2, description="The two SafeKey losses are on in the last N epochs (fractions allowed); `all`: always."
    )
    harmful_prefix_empty: Share = Field(default=0.3333, description="Share of rows whose prefix is empty (k = 0).")
    harmful_prefix_draws: Annotated[int, Field(ge=1, strict=True)] = Field(
        default=1, description="Examples per row with a harmful response, each with its own k."
    )
    harmful_prefix_from: Literal["response", "divergence"] = Field(
        default="response",
        description="Where prefixes may end: after any word of H (`response`, DeRTa), or only after words with which H "
        "has left the safe response (`divergence`).",
    )
    rto_from: Literal["response", "divergence", "answer"] = Field(
        default="response",
        description="Where RTO begins: with H (`response`, DeRTa), where H has left the safe response (`divergence`), "
        "or then and after H's thought (`answer`).",
    )
    rto_keep: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=1.0, description="Fraction of RTO positions that are kept (paper: 1.0 for LoRA, 0.05 for full tuning)."
    )
    refusal_text: Annotated[str, Field(strict=True), AfterValidator(_visible)] = Field(
        default="Sorry", description="RTO's target is the first token of this text as a response starts with it."
    )
    annotation: Literal["given", "rule"] = Field(
        default="given", description="`given`: marks only from the data; `rule`: rows without marks are annotated."
    )
    head_learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Learning rate of the safety head; null: the run's."
    )
    cross_entropy: Literal["auto", "logits", "fused"] = Field(
        default="auto", description="How token losses are computed; `auto` decides by vocabulary, tokens and device."
    )
    isolation: Literal["auto", "packed", "rows"] = Field(
        default="auto", description="Segments packed into one row, or as separate rows; `auto` probes the model."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        name = values.get("preset") if isinstance(values, Mapping) else None
        if not isinstance(name, str) or name not in PRESETS:
            return values
        filled = {key: value for key, value in PRESETS[name].items() if values.get(key) is None}
        return {**values, **filled}

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the losses that are switched on."""
        return tuple(name for name in SWITCHES if getattr(self, name))

    @property
    def any_active(self) -> bool:
        """Whether any of the four losses is switched on."""
        return bool(self.active)

    @property
    def departures(self) -> tuple[str, ...]:
        """Names of the preset's fields that have another value here."""
        preset = PRESETS[self.preset] if self.preset else {}
        return tuple(name for name, value in preset.items() if getattr(self, name) != value)

    @property
    def preset_note(self) -> str:
        """How logs name the preset, e.g. ``" (preset all but for rto_weight)"``; empty without one."""
        if self.preset is None:
            return ""
        own = f" but for {', '.join(self.departures)}" if self.departures else ""
        return f" (preset {self.preset}{own})"

    def data_fields(self) -> dict[str, Any]:
        """Return the options that shape the prepared data; weights and schedule do not."""
        names = (
            *SWITCHES,
            "harmful_prefix_empty",
            "harmful_prefix_draws",
            "harmful_prefix_from",
            "rto_from",
            "rto_keep",
            "refusal_text",
            "annotation",
        )
        return {name: getattr(self, name) for name in names}


def preset_losses(name: str) -> tuple[str, ...]:
    """Return the losses that a preset switches on."""
    return tuple(loss for loss in SWITCHES if PRESETS[name].get(loss))


def yaml_text(value: Any) -> str:
    """Return a flag's value as a YAML file writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def flag_names() -> tuple[str, ...]:
    """Return all YAML flags, e.g. ``safekey_dual_path``."""
    return tuple(FLAG_PREFIX + name for name in SafeKeyConfig.model_fields)


def reject_unknown_flags(keys: Iterable[object]) -> None:
    """Stop on ``safekey_*`` keys that do not exist, naming the nearest one that does.

    Raises:
        ConfigError: lists every unknown flag at once.
    """
    known = flag_names()
    folded = {name.replace("_", "").lower(): name for name in known}
    faults = []
    for key in keys:
        text = str(key)
        shape = text.replace("-", "_").lower()
        if text in known:
            continue
        if not shape.startswith(("safekey", "safe_key")):
            # The prefix itself may be misspelt; the host would drop the key without a word.
            match = difflib.get_close_matches(shape, known, n=1, cutoff=0.88)
            if match:
                faults.append(f"{text!r} is not a flag, did you mean {match[0]!r}?")
            continue
        near = folded.get(shape.replace("_", ""))
        if near is None:
            match = difflib.get_close_matches(shape.replace("safe_key", "safekey"), known, n=1, cutoff=0.0)
            near = match[0]
        faults.append(f"{text!r} is not a flag, did you mean {near!r}?")
    if faults:
        raise ConfigError("unknown safekey flag: " + " ".join(faults))


def config_from_flags(flags: Mapping[str, Any]) -> SafeKeyConfig:
    """Build the configuration from a mapping that holds ``safekey_*`` keys among others.

    Keys that are null count as not set: the preset fills them, or else the default holds.

    Raises:
        ConfigError: unknown flags or wrong values, all faults at once, each with its flag's name.
    """
    reject_unknown_flags(flags)
    values = {
        name: flags[FLAG_PREFIX + name]
        for name in SafeKeyConfig.model_fields
        if flags.get(FLAG_PREFIX + name) is not None
    }
    return build_config(values, prefix=FLAG_PREFIX)


def build_config(values: Mapping[str, Any], prefix: str = "") -> SafeKeyConfig:
    """Validate options and turn pydantic's report into one line per fault.

    Raises:
        ConfigError: all faults at once.
    """
    from pydantic import ValidationError

    try:
        return SafeKeyConfig(**values)
    except ValidationError as error:
        faults = []
        for item in error.errors():
            name = str(item["loc"][0]) if item["loc"] else "options"
            message = str(item["msg"]).removeprefix("Value error, ")
            faults.append(f"{prefix}{name}: {message}, found {values.get(name)!r}")
        raise ConfigError("; ".join(dict.fromkeys(faults))) from error
