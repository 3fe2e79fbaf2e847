"""The flags, the plugin's place in the list, and whether switches and data sets belong together."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from safekey_peft.config import (
    FLAG_PREFIX,
    PRESETS,
    SWITCHES,
    SafeKeyConfig,
    build_config,
    preset_losses,
    reject_unknown_flags,
    yaml_text,
)
from safekey_peft.doctor.findings import Findings
from safekey_peft.errors import ConfigError

PLUGIN_NAME = "axolotl_plugins.safekey.SafeKeyPlugin"
DATASET_TYPE = "axolotl_plugins.safekey.dataset"
PRESET_FLAG = f"{FLAG_PREFIX}preset"
FULL_TUNING_KEEP = 0.05
"""DeRTa's fraction of RTO positions in full tuning."""


def check_flags(raw: Mapping[str, Any], findings: Findings) -> tuple[SafeKeyConfig, set[str]]:
    """Note every unknown flag and every wrong value.

    Returns:
        The options as far as they are sound, so that the other checks can go on, and the keys that are not.
    """
    faulty: set[str] = set()
    for key in raw:
        try:
            reject_unknown_flags([key])
        except ConfigError as error:
            faulty.add(key)
            message = str(error).removeprefix("unknown safekey flag: ")
            findings.fault("flags", message, key=key, remedy="Mend its name; `safekey flags` lists all")
    values = {
        name: raw[FLAG_PREFIX + name] for name in SafeKeyConfig.model_fields if raw.get(FLAG_PREFIX + name) is not None
    }
    for name, value in list(values.items()):
        try:
            build_config({name: value}, prefix=FLAG_PREFIX)
        except ConfigError as error:
            faulty.add(FLAG_PREFIX + name)
            del values[name]
            message = str(error).removeprefix(f"{FLAG_PREFIX}{name}: ")[:300]
            findings.fault("flags", message, key=FLAG_PREFIX + name, remedy="See `safekey flags`")
    config = build_config(values, prefix=FLAG_PREFIX)
    findings.facts["losses"] = list(config.active)
    _place_filled_flags(config, findings)
    if not faulty:
        findings.ok("flags", f"losses on: {', '.join(config.active) or 'none'}")
        _check_preset(config, values, findings)
        _check_idle_options(config, values, findings)
        _check_full_tuning(raw, config, values, findings)
    return config, faulty


def _place_filled_flags(config: SafeKeyConfig, findings: Findings) -> None:
    """Give flags that the preset fills the preset's line: findings about them then say where they come from."""
    line = findings.lines.get(PRESET_FLAG)
    if config.preset is not None and line is not None:
        filled = dict.fromkeys((FLAG_PREFIX + name for name in PRESETS[config.preset]), line)
        findings.lines = {**filled, **findings.lines}


def _check_preset(config: SafeKeyConfig, values: Mapping[str, Any], findings: Findings) -> None:
    """Say what the preset filled, and which flags of the file stand before it."""
    if config.preset is None:
        return
    preset, losses = PRESETS[config.preset], preset_losses(config.preset)
    # An option of a loss that is off sets nothing.
    idle = {name for name in preset if loss_of(name) not in (None, *config.active)}
    filled = [f"{name} {yaml_text(value)}" for name, value in preset.items() if name not in {*values, *idle}]
    own = [
        f"{FLAG_PREFIX}{name}: {yaml_text(getattr(config, name))} (preset: {yaml_text(preset[name])})"
        for name in config.departures
    ]
    text = f"{PRESET_FLAG}: {config.preset} sets {', '.join(filled) or 'nothing, all is set beside it'}"
    findings.info("flags", text + (f"; set beside it: {', '.join(own)}" if own else ""), key=PRESET_FLAG)
    if not set(losses) & set(config.active):
        findings.warn(
            "flags",
            f"{PRESET_FLAG}: {config.preset} does nothing: {' and '.join(losses)} are false in the file",
            key=PRESET_FLAG,
            remedy=f"Remove it, or the switches that are to be on: {', '.join(FLAG_PREFIX + loss for loss in losses)}",
        )


def _check_full_tuning(
    raw: Mapping[str, Any], config: SafeKeyConfig, values: Mapping[str, Any], findings: Findings
) -> None:
    if raw.get("adapter") or not config.rto or "rto_keep" in values or config.rto_keep <= FULL_TUNING_KEEP:
        return
    findings.warn(
        "flags",
        f"no adapter, so all weights are tuned, with every RTO position ({FLAG_PREFIX}rto_keep {config.rto_keep:g}, "
        f"as DeRTa does for LoRA); DeRTa keeps {FULL_TUNING_KEEP:g} of them in full tuning",
        key=f"{FLAG_PREFIX}rto",
        remedy=f"Set {FLAG_PREFIX}rto_keep: {FULL_TUNING_KEEP:g}, or to the value that is meant",
    )


def _check_idle_options(config: SafeKeyConfig, values: Mapping[str, Any], findings: Findings) -> None:
    for loss in config.active:
        if getattr(config, f"{loss}_weight", 1.0) == 0:
            findings.warn(
                "flags",
                f"{FLAG_PREFIX}{loss} is on, but its weight is 0: it is not trained",
                key=f"{FLAG_PREFIX}{loss}_weight",
                remedy=f"Give it a weight, or set {FLAG_PREFIX}{loss}: false",
            )
    for name in values:
        owner = loss_of(name)
        if owner is not None and owner not in config.active:
            findings.warn(
                "flags",
                f"{FLAG_PREFIX}{name} is set, but {FLAG_PREFIX}{owner} is off: it does nothing",
                key=FLAG_PREFIX + name,
                remedy=f"Set {FLAG_PREFIX}{owner}: true, or remove it",
            )


def loss_of(name: str) -> str | None:
    """Return the one loss that a field of ``SafeKeyConfig`` is an option of; None: of several, or a switch itself."""
    owners = {"refusal_text": "rto", "head_learning_rate": "dual_path"}
    return owners.get(name) or next((loss for loss in SWITCHES if name.startswith(f"{loss}_")), None)


def dataset_entries(raw: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the entries of ``datasets:`` and ``test_datasets:`` with their keys, as far as they are mappings."""
    found = []
    for name in ("datasets", "test_datasets"):
        entries = raw.get(name)
        if isinstance(entries, list):
            found += [(f"{name}[{i}]", entry) for i, entry in enumerate(entries) if isinstance(entry, Mapping)]
    return found


def is_ours(entry: Mapping[str, Any]) -> bool:
    """Whether an entry has our dataset type."""
    return str(entry.get("type") or "").split(":")[0] == DATASET_TYPE


def with_plugin(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys with our plugin listed, in place of its misspelling: the other checks go on as if it were."""
    listed = raw.get("plugins")
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    if PLUGIN_NAME in names:
        return dict(raw)
    near = _misspelt(names)
    mended = [PLUGIN_NAME if name == near else name for name in names] if near else [*names, PLUGIN_NAME]
    return {**raw, "plugins": mended}


def _misspelt(names: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(PLUGIN_NAME, names, n=1, cutoff=0.75)), None)


def check_plugin_and_types(
    raw: Mapping[str, Any], config: SafeKeyConfig, findings: Findings, *, faulty: Collection[str] = ()
) -> None:
    """Check that plugin, switches and dataset type come together: each without the others trains plain SFT.

    Args:
        raw: the YAML's keys.
        config: the options as far as they are sound.
        findings: receives the findings.
        faulty: flags that are at fault, so that what is switched on is not known.
    """
    listed = raw.get("plugins")
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    ours = [key for key, entry in dataset_entries(raw) if is_ours(entry)]
    training = [key for key in ours if key.startswith("datasets")]
    flags = [key for key in raw if str(key).startswith(FLAG_PREFIX)]
    if listed is not None and not isinstance(listed, list):
        findings.fault(
            "plugin",
            f"plugins: expected a list, found {type(listed).__name__}",
            key="plugins",
            remedy=f"Write `plugins: [{PLUGIN_NAME}]`",
        )
    elif PLUGIN_NAME not in names:
        near = _misspelt(names)
        found = f"the misspelt {near!r}" if near else "it is not listed"
        findings.fault(
            "plugin",
            f"expected the plugin {PLUGIN_NAME}, {'found ' if near else ''}{found}: Axolotl would train plain SFT "
            f"{'and drop the flags' if flags else 'or refuse the dataset type'}",
            key=f"plugins[{names.index(near)}]" if near else "plugins",
            remedy=f"{'Write' if near else 'Add'} `plugins: [{PLUGIN_NAME}]`",
        )
    else:
        findings.ok("plugin", f"{PLUGIN_NAME} is listed", key="plugins")
    _check_misspelt_types(raw, findings)
    if config.any_active and not training:
        findings.fault(
            "dataset_type",
            f"{', '.join(config.active)} switched on, but no data set of datasets: has the type {DATASET_TYPE}",
            key="datasets",
            remedy=f"Set `type: {DATASET_TYPE}` for the data set that has marks or harmful responses",
        )
    elif not config.any_active and faulty:
        findings.skip("losses", f"of {' and '.join(sorted(faulty))}: it is not known what is switched on")
    elif not config.any_active and ours:
        findings.warn(
            "dataset_type",
            "all four losses are off: rows of our type train as plain SFT",
            key=ours[0],
            remedy="Choose a safekey_preset, or set safekey_dual_path, safekey_query_mask, safekey_harmful_prefix or "
            "safekey_rto to true",
        )
    elif ours:
        findings.ok("dataset_type", f"{len(ours)} of {len(dataset_entries(raw))} data sets have our type")


def _check_misspelt_types(raw: Mapping[str, Any], findings: Findings) -> None:
    for key, entry in dataset_entries(raw):
        kind = str(entry.get("type") or "")
        if "safekey" in kind.lower() and not is_ours(entry):
            findings.fault(
                "dataset_type",
                f"expected the type {DATASET_TYPE}, found {kind!r:.80}",
                key=f"{key}.type",
                remedy=f"Set `type: {DATASET_TYPE}`",
            )
