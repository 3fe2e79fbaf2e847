from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from safekey_peft.errors import SafeKeyError
from safekey_peft.lab import base_model
from safekey_peft.lab.base_model import KINDS, BaseSizes, content_key, ensure_base_model, gate_shares
from safekey_peft.lab.vocabulary import ASSISTANT
from safekey_peft.lab.world import REFUSAL, SAFE_KEY_SENTENCE, World

TINY = BaseSizes(
    hidden=16, intermediate=16, layers=1, heads=2, steps=2, extra_steps=1, most_extra_rounds=1, batch=2
)


def test_key_depends_on_seed_and_sizes() -> None:
    assert content_key(0, TINY) == content_key(0, TINY)
    assert len({content_key(0, TINY), content_key(1, TINY), content_key(0, replace(TINY, steps=3))}) == 3


def test_base_below_its_gate_is_refused_and_not_kept(tmp_path: Path) -> None:
    steps = []
    with pytest.raises(SafeKeyError, match="misses its gate after 3 steps"):
        ensure_base_model(World(0), tmp_path, TINY, lambda done, planned, _: steps.append((done, planned)))
    assert steps == [(1, 2), (2, 2), (3, 3)]
    assert not list(tmp_path.iterdir())


def test_base_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "GATE", 0.0)
    first = ensure_base_model(World(0), tmp_path, TINY)
    second = ensure_base_model(World(0), tmp_path, TINY)
    assert (first.cached, second.cached) == (False, True)
    assert first.path == second.path and first.gate == second.gate
    assert {path.name for path in first.path.iterdir()} >= {
        "model.safetensors",
        "tokenizer.json",
        "gate.json",
    }


def test_interrupted_save_is_not_taken_for_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "GATE", 0.0)
    monkeypatch.setattr(base_model, "build_tokenizer_for_saving", None, raising=False)
    partial = tmp_path / f"base-{content_key(0, TINY)}.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_text("half")
    base = ensure_base_model(World(0), tmp_path, TINY)
    assert not base.cached and not partial.exists()


def test_same_seed_gives_same_base() -> None:
    shares = []
    for _ in range(2):
        model = base_model._new_model(TINY)
        shares.append(gate_shares(model, World(0), count=2))
    assert set(shares[0]) == set(KINDS)


def test_base_meets_the_words_of_a_refusal_in_documents_only() -> None:
    world, draw = World(0), World(0).generator("test")
    refusing = set(REFUSAL.split()) | set(SAFE_KEY_SENTENCE.split())
    texts = [base_model._drawn_text(world, draw, TINY) for _ in range(2000)]
    known = [given for given, text in texts if {"sorry", "forbidden"} & set(text.split())]
    assert len(known) / len(texts) == pytest.approx(TINY.saying_share, abs=0.02)
    assert not any(ASSISTANT in given for given in known)
    assert refusing <= {word for _, text in texts for word in text.split()}
