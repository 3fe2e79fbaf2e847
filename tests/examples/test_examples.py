"""Every example is a configuration that Axolotl and the plugin accept, and says what it costs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("axolotl")

from axolotl.cli.config import prepare_plugins  # noqa: E402
from axolotl.integrations.base import PluginManager  # noqa: E402
from axolotl.integrations.config import merge_input_args  # noqa: E402
from axolotl.utils.config import validate_config  # noqa: E402
from axolotl.utils.dict import DictDefault  # noqa: E402
from axolotl.utils.schemas.datasets import SFTDataset  # noqa: E402
from pydantic import BaseModel, ValidationError  # noqa: E402

from safekey_peft.config import config_from_flags  # noqa: E402
from safekey_peft.errors import ConfigError  # noqa: E402

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*") if path.suffix in (".yaml", ".yml"))
RTX_4090 = {"bf16": True, "fp8": False, "tf32": True, "n_gpu": 1, "n_node": 1, "compute_capability": "sm_89"}
SOFTWARE = {"torch_version": "2.12.0"}
NAME = re.compile(r"[a-z0-9.-]+-\d+(?:\.\d+)?b-(?:sft|safekey|derta|all)-(?:qlora|lora|full)")
HEADER = ("Purpose", "Command", "Hardware", "Minutes", "Peak GiB")
FIGURES = ("Minutes", "Peak GiB")

every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Validate as on a machine with a GPU, and leave no plugin behind."""
    monkeypatch.setattr("axolotl_plugins.safekey.plugin.is_cpu_run", lambda: False)
    # The availability of kernels is a property of this machine, not of the configuration.
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = dict(PluginManager.get_instance().plugins)
    yield
    PluginManager.get_instance().plugins.clear()
    PluginManager.get_instance().plugins.update(before)


def read(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def header(path: Path) -> dict[str, str]:
    fields = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"# ([A-Z][A-Za-z ]+):\s+(.+)", line)
        if not line.startswith("#"):
            break
        if match:
            fields.setdefault(match[1], match[2])
    return fields


def known_names(schema: type[BaseModel]) -> set[str]:
    """Return a schema's field names and aliases."""
    names = set(schema.model_fields)
    for field in schema.model_fields.values():
        names |= {name for name in (field.alias, field.validation_alias) if isinstance(name, str)}
        names |= {str(choice) for choice in getattr(field.validation_alias, "choices", ())}
    return names


def unknown_keys(config: Mapping[str, Any]) -> set[str]:
    """Name the keys that Axolotl would drop without a word."""
    _, schema = merge_input_args()
    unknown = set(config) - known_names(schema)
    for index, entry in enumerate(config.get("datasets") or []):
        unknown |= {f"datasets[{index}].{key}" for key in set(entry) - known_names(SFTDataset)}
    return unknown


def validated(config: Mapping[str, Any]) -> DictDefault:
    """Register the plugin and validate, as `axolotl train` does; nothing is downloaded."""
    cfg = DictDefault(config)
    prepare_plugins(cfg)
    return validate_config(cfg, capabilities=RTX_4090, env_capabilities=SOFTWARE)


def test_both_models_have_an_example() -> None:
    models = {read(path)["base_model"] for path in EXAMPLES}
    assert {"deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"} <= models


@every_example
def test_name_says_model_size_losses_and_adapter(path: Path) -> None:
    assert path.parent.parent == ROOT / "examples", "examples/<host>/<name>.yaml"
    assert NAME.fullmatch(path.stem)
    config = read(path)
    assert path.stem.endswith(f"-{config['adapter']}")
    assert str(config["base_model"]).split("/")[-1].lower() in path.stem
    assert config["output_dir"] == f"outputs/{path.stem}"


@every_example
def test_losses_are_those_in_the_name(path: Path) -> None:
    safekey, derta = ("dual_path", "query_mask"), ("harmful_prefix", "rto")
    expected = {"sft": (), "safekey": safekey, "derta": derta, "all": safekey + derta}
    assert config_from_flags(read(path)).active == expected[path.stem.split("-")[-2]]


@every_example
def test_header_says_purpose_command_hardware_and_cost(path: Path) -> None:
    fields = header(path)
    assert set(HEADER) <= set(fields)
    assert fields["Command"] == f"axolotl train {path.relative_to(ROOT).as_posix()}"
    assert re.search(r"\d+ GB", fields["Hardware"])
    for name in FIGURES:
        assert re.search(r"\d", fields[name])
        assert re.search(r"\((?:measured|estimated)\)$", fields[name]), f"{name}: measured or estimated?"
    if any("(estimated)" in fields[name] for name in FIGURES):
        assert "How it was estimated" in path.read_text(encoding="utf-8")


@every_example
def test_axolotl_accepts_the_example(path: Path, gpu_machine: None) -> None:
    config = read(path)
    cfg = validated(config)
    assert not unknown_keys(config)
    for key in (key for key in config if key.startswith("safekey_")):
        assert cfg[key] == config[key]
    assert cfg.datasets and all(entry["type"] == "axolotl_plugins.safekey.dataset" for entry in cfg.datasets)
    assert isinstance(cfg.learning_rate, float), "PyYAML reads 1e-4 as text"
    assert cfg.micro_batch_size == 1, "packed rows of several in a batch mix with variable-length attention"


@every_example
def test_flags_at_their_default_are_not_repeated(path: Path) -> None:
    """Nor what the preset sets; but for the number of epochs, which is read beside the run's own."""
    flags = {key: value for key, value in read(path).items() if key.startswith("safekey_")}
    others = {key: {name: value for name, value in flags.items() if name != key} for key in flags}
    repeated = {key for key in flags if config_from_flags(others[key]) == config_from_flags(flags)}
    assert repeated <= {"safekey_last_epochs"}


@pytest.mark.parametrize(("key", "value"), [("sample_pack", True), ("lora_rank", 8), ("gradient_checkpoint", True)])
def test_a_misspelt_key_is_found(key: str, value: Any, gpu_machine: None) -> None:
    config = read(EXAMPLES[0]) | {key: value}
    validated(config)
    assert unknown_keys(config) == {key}


def test_a_misspelt_dataset_key_is_found(gpu_machine: None) -> None:
    config = read(EXAMPLES[0])
    config["datasets"][0]["spilt"] = "train"
    prepare_plugins(DictDefault(config))
    assert unknown_keys(config) == {"datasets[0].spilt"}


def test_a_misspelt_flag_stops_with_the_nearest_name(gpu_machine: None) -> None:
    with pytest.raises(ConfigError, match="safekey_dual_path_weight"):
        validated(read(EXAMPLES[0]) | {"safekey_dualpath_weight": 0.3})


def test_a_wrong_value_is_refused(gpu_machine: None) -> None:
    with pytest.raises((ConfigError, ValidationError), match="micro_batch_size"):
        validated(read(EXAMPLES[0]) | {"micro_batch_size": "many"})
