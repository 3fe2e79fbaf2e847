"""What the README says is what the package does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from safekey_peft.config import FLAG_PREFIX, PRESETS, SafeKeyConfig, config_from_flags, flag_names
from safekey_peft.data.key_sentence.rule import mark_key_sentence
from safekey_peft.data.rows import parse_row

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    page
    for page in [
        *ROOT.glob("*.md"),
        *(ROOT / "safekey_peft").rglob("*.md"),
        *(ROOT / "axolotl_plugins").rglob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)
HOST_PLUGIN = ROOT / "axolotl_plugins" / "safekey"

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_flags_table_is_the_configuration() -> None:
    table = re.findall(rf"^\| `({FLAG_PREFIX}\w+)` \| `(.*?)` \| (.+) \|$", README, flags=re.MULTILINE)
    written = {flag: yaml.safe_load(default) for flag, default, _ in table}
    assert list(written) == list(flag_names())
    assert written == {FLAG_PREFIX + name: field.default for name, field in SafeKeyConfig.model_fields.items()}
    assert all(len(meaning) > 10 for _, _, meaning in table)


def test_choices_of_a_flag_are_all_named() -> None:
    for name, choices in {
        "preset": tuple(PRESETS),
        "harmful_prefix_from": ("response", "divergence"),
        "rto_from": ("response", "divergence", "answer"),
        "annotation": ("given", "rule"),
        "cross_entropy": ("auto", "logits", "fused"),
        "isolation": ("auto", "packed", "rows"),
        "last_epochs": ("all",),
    }.items():
        line = next(line for line in README.splitlines() if line.startswith(f"| `{FLAG_PREFIX}{name}`"))
        for choice in choices:
            assert f"`{choice}`" in line
            config_from_flags({FLAG_PREFIX + name: choice})


def test_presets_table_is_what_the_presets_set() -> None:
    [names] = re.findall(rf"^\| `{FLAG_PREFIX}…` ((?:\| `\w+` )+)\|$", README, flags=re.MULTILINE)
    written: dict[str, dict[str, object]] = {name: {} for name in re.findall(r"`(\w+)`", names)}
    for field, cells in re.findall(r"^\| `(\w+)` \| ((?:`\S+`|–)(?: \| (?:`\S+`|–))+) \|$", README, re.MULTILINE):
        for preset, cell in zip(written.values(), cells.split(" | "), strict=True):
            if cell != "–":
                preset[field] = yaml.safe_load(cell.strip("`"))
    assert written == PRESETS


def test_papers_settings_in_the_core_page_are_the_presets() -> None:
    page = (ROOT / "safekey_peft/core/README.md").read_text(encoding="utf-8")
    table = page.partition("## Paper → configuration")[2].partition("\n## ")[0].partition("|---|")[2]
    table = "\n".join(line for line in table.splitlines() if "no preset sets" not in line)
    safekey, _, derta = table.partition("| DeRTa |")
    for name, rows in (("safekey", safekey), ("derta", derta)):
        said = {key: yaml.safe_load(value) for key, value in re.findall(rf"`{FLAG_PREFIX}(\w+): (\S+)`", rows)}
        assert said == {key: value for key, value in PRESETS[name].items() if value is not True}


def test_flags_command_prints_every_flag_and_preset() -> None:
    from click.testing import CliRunner

    from safekey_peft.cli.flags import main
    from safekey_peft.config import yaml_text

    result = CliRunner().invoke(main, env={"COLUMNS": "200"})
    assert result.exit_code == 0
    flags, _, presets = result.output.partition(f"{FLAG_PREFIX}preset sets")
    lines = [re.findall(r"[^\s│]+", line) for line in flags.splitlines()]
    for name, field in SafeKeyConfig.model_fields.items():
        assert [FLAG_PREFIX + name, yaml_text(field.default)] in [line[:2] for line in lines]
    cells = [[cell.strip() for cell in line.split("│")[1:5]] for line in presets.splitlines() if "│" in line]
    rows = {flag: values for flag, *values in cells}
    for name in {name for preset in PRESETS.values() for name in preset}:
        expected = [yaml_text(preset[name]) if name in preset else "" for preset in PRESETS.values()]
        assert rows[FLAG_PREFIX + name] == expected


@every_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= targets


def test_the_two_commands_are_named() -> None:
    assert "    make demo\n    make test\n" in README


@every_page
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [link.split("#")[0] for link in links if not re.match(r"https?:|mailto:|#", link)]
    assert not [link for link in local if not (page.parent / link).exists()]


@every_page
def test_named_tests_exist(page: Path) -> None:
    """A page that points to `tests/….py::test_…` points to a test that is there."""
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", page.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


@every_page
def test_python_blocks_compile(page: Path) -> None:
    for number, block in enumerate(blocks("python", page.read_text(encoding="utf-8"))):
        compile(block, f"{page.name}[{number}]", "exec")


def test_example_row_is_a_row_with_the_marks_of_the_rule() -> None:
    [block] = blocks("json")
    row = parse_row(json.loads(block), "README.md")
    assert row.response is not None and row.harmful_response is not None and not row.extra
    marks = mark_key_sentence(row.response)
    assert marks is not None
    assert (row.understanding_end, row.key_sentence_end) == (marks.understanding_end, marks.key_sentence_end)


def test_yaml_diff_adds_the_plugin_its_type_and_known_flags() -> None:
    [block] = blocks("diff")
    lines = block.splitlines()
    before = yaml.safe_load("\n".join(line[1:] for line in lines if not line.startswith("+")))
    after = yaml.safe_load("\n".join(line[1:] for line in lines if not line.startswith("-")))
    assert "plugins" not in before and not config_from_flags(before).any_active
    [plugin] = after["plugins"]
    module, _, name = plugin.rpartition(".")
    assert module == "axolotl_plugins.safekey" and f"class {name}(" in (HOST_PLUGIN / "plugin.py").read_text("utf-8")
    assert after["datasets"][0]["type"] == f"{module}.dataset" and (HOST_PLUGIN / "dataset.py").is_file()
    assert len(config_from_flags(after).active) == 4


def test_files_and_metrics_of_a_run_are_named_rightly() -> None:
    pytest.importorskip("torch")
    from safekey_peft.hosts.manifest import MANIFEST_FILE
    from safekey_peft.model.head_files import HEAD_FILE

    assert MANIFEST_FILE in README and HEAD_FILE in README
    source = (ROOT / "safekey_peft/hosts/metrics.py").read_text(encoding="utf-8")
    metrics = re.findall(r'^ +"((?:loss|acc|tokens)_\w+)": \(', source, flags=re.MULTILINE)
    assert len(metrics) == 10
    assert not [name for name in metrics if f"{name}`" not in README]


def test_library_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand, on a tiny model in the place of the published one."""
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.model_zoo import tiny_model
    from tests.tokenizers import tokenizer_with_template

    tokenizer = tokenizer_with_template("byte_bpe", "r1_distill")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name: tokenizer)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda name: tiny_model("qwen2", len(tokenizer)))
    monkeypatch.chdir(tmp_path)
    row = json.loads(blocks("json")[0])
    rows = [{**row, "id": str(number), "is_harmful": number % 2 == 0} for number in range(6)]
    Path("train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    load, train = blocks("python")
    exec(compile(train, "README.md[train]", "exec"), {})  # noqa: S102
    assert "6 rows read, 6 used" in capsys.readouterr().out
    manifest = json.loads(Path("outputs/run/safekey_manifest.json").read_text(encoding="utf-8"))
    assert manifest["rows"]["used"] == 6 and len(manifest["losses"]) == 4

    names: dict[str, object] = {}
    exec(compile(load, "README.md[load]", "exec"), names)  # noqa: S102
    written = {path.name for path in Path("outputs/run").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "safekey_head.safetensors"} <= written
    assert names["head"].understanding.in_features == names["base"].config.hidden_size  # type: ignore[attr-defined]
