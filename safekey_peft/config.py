"""`SafeKeyConfig`: every option of the package, one model, used by the library and by the YAML flags."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from safekey_peft.errors import ConfigError

FLAG_PREFIX = "safekey_"
SWITCHES = ("dual_path", "query_mask", "harmful_prefix", "rto")
"""The four losses, in the order in which banner, manifest and tables name them."""

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


Switch = Annotated[bool, BeforeValidator(_no_number_as_switch)]


class SafeKeyConfig(BaseModel):
    """Options of the four safety losses. In an Axolotl YAML each field carries the prefix ``safekey_``.

    Defaults are the papers' (SafeKey, arXiv 2505.16186; DeRTa, arXiv 2407.09121). All switches off means
    plain supervised fine-tuning.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

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

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the losses that are switched on."""
        return tuple(name for name in SWITCHES if getattr(self, name))

    @property
    def any_active(self) -> bool:
        """Whether any of the four losses is switched on."""
        return bool(self.active)

    def data_fields(self) -> dict[str, Any]:
        """Return the options that shape the prepared data; weights and schedule do not."""
        names = (
            *SWITCHES,
            "harmful_prefix_empty",
            "harmful_prefix_draws",
            "rto_keep",
            "refusal_text",
            "annotation",
        )
        return {name: getattr(self, name) for name in names}


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

    Keys that are null count as not set.

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
            faults.append(f"{prefix}{name}: {item['msg']}, found {values.get(name)!r}")
        raise ConfigError("; ".join(dict.fromkeys(faults))) from error
