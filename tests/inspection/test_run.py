"""A configuration is inspected with its own tokenizer, template, losses and data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.inspection.potions import inspect
from tests.inspection.test_page import Parts

pytest.importorskip("axolotl")

from tests.axolotl.runs import config, potion_rows, write_base, write_rows  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    broken = [*potion_rows(6), {"id": "odd", "query": "brew?", "response": None}]
    entry = {"path": str(write_rows(folder / "test.jsonl", broken)), "type": "axolotl_plugins.safekey.dataset"}
    stock = {"path": str(folder / "train.jsonl"), "type": "chat_template"}
    train = write_rows(folder / "train.jsonl")
    cfg = config(write_base(folder / "base"), train, folder / "out", test_datasets=[entry])
    cfg["datasets"].append(stock)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(cfg), encoding="utf-8")
    return path


def test_data_sets_of_a_run_are_counted_apart(run: Path) -> None:
    done = inspect(run, "--rows", 1)
    assert done.exit_code == 0, done.output
    flat = " ".join(done.stdout.replace("│", " ").split())
    assert "read 31" in flat and "used 30" in flat and "dropped: no_response 1" in flat
    assert "train.jsonl 24 of 24" in flat and "(evaluation) 6 of 7" in flat
    assert "one of Axolotl's own types" in done.stderr


def test_rows_of_a_run_are_shown_as_its_template_renders_them(run: Path) -> None:
    done = inspect(run, "--row", "p1", "--rows", 1)
    assert "⟦X:" in done.stdout and "<|Assistant|><think>" in done.stdout
    assert "⟦U:" in done.stdout and "Okay, the user wants to brew a cursed potion now.⟧" in done.stdout
    assert "⟦KEY:" in done.stdout and "⟦RTO:" in done.stdout


def test_run_with_a_preset_shows_the_losses_that_it_leaves_on(run: Path, tmp_path: Path) -> None:
    cfg = {key: value for key, value in yaml.safe_load(run.read_text()).items() if not key.startswith("safekey_")}
    path = tmp_path / "preset.yaml"
    path.write_text(yaml.safe_dump({**cfg, "safekey_preset": "all", "safekey_query_mask": False}), encoding="utf-8")
    done = inspect(path, "--row", "p1", "--html", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert "⟦RTO:" in done.stdout and "⟦KEY:" not in done.stdout
    meta = Parts((tmp_path / "page.html").read_text(encoding="utf-8")).block("meta")
    assert ["losses", "dual_path, harmful_prefix, rto (preset all but for query_mask)"] in meta["options"]  # type: ignore[index]
    assert ["harmful_prefix_from", "divergence"] in meta["options"]  # type: ignore[index]
    assert ["rto_from", "answer"] in meta["options"]  # type: ignore[index]


def test_shown_tokens_are_those_that_are_prepared_for_training(run: Path) -> None:
    from axolotl_plugins.safekey.preview import load_run
    from safekey_peft.data.preparation import prepare_examples
    from safekey_peft.inspection.survey import InspectedSet, Survey

    preview = load_run(run)
    dataset = preview.datasets[0]
    records, _ = prepare_examples(dataset.rows(), preview.encoder)
    views = Survey([InspectedSet("rows", dataset.rows)], preview.encoder)
    shown = [example for view in views for example in view.examples]
    assert len(shown) == len(records) > 24
    for example, record in zip(shown, records, strict=True):
        texts = "".join(piece for segment in example.segments for piece in segment.pieces)
        assert texts == preview.tokenizer.decode(record["input_ids"], skip_special_tokens=False)
        assert example.tokens == len(record["input_ids"])


def test_page_of_a_run_names_its_options(run: Path, tmp_path: Path) -> None:
    from tests.inspection.test_page import Parts

    done = inspect(run, "--html", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    meta = Parts((tmp_path / "page.html").read_text(encoding="utf-8")).block("meta")
    assert isinstance(meta, dict)
    options = dict(meta["options"])
    assert options["losses"] == "dual_path, query_mask, harmful_prefix, rto"
    assert (options["sequence_len"], options["seed"]) == ("512", "5")
    assert meta["active"] == ["dual_path", "query_mask", "harmful_prefix", "rto"]
    assert [name.rpartition("/")[2] for name, _, _ in meta["sets"]] == ["train.jsonl", "test.jsonl (evaluation)"]


def test_a_configuration_of_stock_types_alone_is_refused(run: Path, tmp_path: Path) -> None:
    cfg = yaml.safe_load(run.read_text(encoding="utf-8"))
    cfg["datasets"], cfg["test_datasets"] = cfg["datasets"][1:], None
    for key in [key for key in cfg if key.startswith("safekey_") or key == "plugins"]:
        del cfg[key]
    path = tmp_path / "stock.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in cfg.items() if value is not None}), encoding="utf-8")
    done = inspect(path)
    assert done.exit_code == 1
    assert "expected a data set of type axolotl_plugins.safekey.dataset" in done.stderr
