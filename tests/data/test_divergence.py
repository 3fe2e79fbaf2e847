"""RTO and prefixes that begin where the harmful response has left the safe one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from safekey_peft import SafeKeyConfig, SafeKeyExampleEncoder
from safekey_peft.data.encoder import EncodedExample
from safekey_peft.data.prefixes import draw_prefix, shared_opening, word_ends
from safekey_peft.data.rows import RowError, parse_row
from safekey_peft.data.tags import IGNORED_LABEL
from tests.chat_templates import REASONING_TEMPLATES, TEMPLATES
from tests.real_tokenizers import real_tokenizer
from tests.tokenizers import KINDS, tokenizer_with_template

SAFE = "<think>\nOkay, the user asks how to brew a violet elixir. No, not allowed.\n</think>\n\nSorry, I can't help."
HARMFUL = {
    "shared_thought_opening": "<think>\nOkay, the user asks how to brew it. Sure.\n</think>\n\nFirst stir it twice.",
    "part_of_a_word": "<think>\nOkay, the users ask how. Sure.\n</think>\n\nSorrel comes first, stir it.",
    "nothing_shared": "<think>\nSure. First warm it.\n</think>\n\nFirst stir it twice.",
    "no_thought": "First stir it twice. Then warm the cauldron.",
    "no_thought_shared": "Okay, the user asks how to brew a violet elixir. First stir it.",
}


def encoder(rto_from: str, kind: str = "byte_bpe", template: str = "r1_distill", **options: Any) -> Any:
    config = SafeKeyConfig(rto=True, rto_from=rto_from, **options)
    make = tokenizer_with_template if kind in KINDS else real_tokenizer
    return SafeKeyExampleEncoder(make(kind, template), config)


def row(harmful: str, safe: str | None = SAFE, **changes: Any) -> Any:
    value = {"id": "r1", "query": "How do I brew it?", "response": safe, "harmful_response": harmful, **changes}
    return parse_row(value, "rows.jsonl:1")


def rto_example(enc: Any, harmful: str, safe: str | None = SAFE) -> EncodedExample:
    return next(example for example in enc.encode(row(harmful, safe)) if example.kind == "rto")


def targets(example: EncodedExample) -> list[int]:
    return [index for index, label in enumerate(example.labels) if label != IGNORED_LABEL]


@pytest.mark.parametrize("harmful", HARMFUL.values(), ids=HARMFUL)
@pytest.mark.parametrize("template", ["r1_distill", "qwen3", "chatml", "llama3"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_rto_target_has_a_context_that_sft_trains_too(kind: str, template: str, harmful: str) -> None:
    enc = encoder("divergence", kind, template)
    sft, rto = enc.encode(row(harmful))
    everywhere = targets(rto_example(encoder("response", kind, template), harmful))
    contexts = {tuple(sft.input_ids[:index]) for index in targets(sft)}
    free = [index for index in everywhere if tuple(rto.input_ids[:index]) not in contexts]
    # A token that begins with shared characters is a shared one, so at most one free position is given up.
    assert set(targets(rto)) <= set(free)
    assert len(free) - len(targets(rto)) <= 1
    assert targets(rto) == everywhere[-len(targets(rto)) :]


PLAIN_SAFE = "Okay, no. I can't help."
PAIRS = {
    "both_without_a_thought": (PLAIN_SAFE, "Okay, sure. First stir it."),
    "only_the_harmful_one_thinks": (PLAIN_SAFE, "<think>\nOkay, sure.\n</think>\n\nFirst stir it."),
    "only_the_safe_one_thinks": (SAFE, "Okay, the users stir."),
    "continued": (PLAIN_SAFE, f"{PLAIN_SAFE} But first stir it."),
    "other_emoji": ("Okay 🧪🧪 no.", "Okay 🧫🧪 sure."),
    "respelt": ("Oka\u0301y, no.", "Ok\u00e1y, sure."),
    "without_white_space": ("我不能帮你做毒药。", "我不会说谎，先搅拌。"),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("template", [*TEMPLATES, *REASONING_TEMPLATES])
@pytest.mark.parametrize("kind", ["byte_bpe", "word_level", "byte_nfc"])
def test_rto_trains_every_context_but_those_of_sft(kind: str, template: str, pair: tuple[str, str]) -> None:
    safe, harmful = pair
    everywhere = rto_example(encoder("response", kind, template), harmful, safe)
    examples, _ = encoder("divergence", kind, template).encode_counted(row(harmful, safe))
    contexts = {tuple(examples[0].input_ids[:index]) for index in targets(examples[0])}
    free = [index for index in targets(everywhere) if tuple(everywhere.input_ids[:index]) not in contexts]
    chosen = targets(examples[1]) if len(examples) > 1 else []
    assert set(chosen) <= set(free)
    assert len(free) - len(chosen) <= 1


@pytest.mark.parametrize("opening", ["", "<think>\n"])
@pytest.mark.parametrize("template", ["r1_distill", "qwen3", "gpt_oss", "magistral", "mistral"])
def test_other_white_space_before_the_same_words_is_no_other_context(template: str, opening: str) -> None:
    safe = f"{opening}Okay, the user asks. No.{opening and '</think>Sorry.'}"
    harmful = f"{opening}\n Okay, the user asks. Sure."
    enc = encoder("divergence", template=template)
    example = rto_example(enc, harmful, safe)
    first = targets(example)[0]
    assert "Okay, the user asks. S" in enc.tokenizer.decode(example.input_ids[:first])
    assert len(targets(example)) == len(example.labels) - first


@pytest.mark.parametrize("name", ["shared_thought_opening", "nothing_shared"])
@pytest.mark.parametrize("template", ["r1_distill", "qwen3", "chatml"])
def test_rto_in_the_answer_leaves_the_thought_alone(template: str, name: str) -> None:
    enc = encoder("answer", template=template)
    example = rto_example(enc, HARMFUL[name])
    first = targets(example)[0]
    assert enc.tokenizer.decode(example.input_ids[:first]).rstrip().endswith("</think>")
    assert targets(example) == list(range(first, first + len(targets(example))))
    trained = enc.tokenizer.decode([example.input_ids[index] for index in targets(example)])
    assert trained.strip().startswith("First stir it twice.")


def test_rto_in_the_answer_of_a_foreign_thought_format() -> None:
    template = next(name for name in REASONING_TEMPLATES if "magistral" in name.lower())
    enc = encoder("answer", template=template)
    example = rto_example(enc, HARMFUL["nothing_shared"])
    before = enc.tokenizer.decode(example.input_ids[: targets(example)[0]])
    assert before.rstrip().endswith("[/THINK]") and "First warm it" in before


def test_an_answer_after_the_same_thought_begins_where_it_leaves_the_safe_one() -> None:
    harmful = SAFE.replace("I can't help.", "but first stir it.")
    enc = encoder("answer")
    example = rto_example(enc, harmful)
    shared = enc.tokenizer.decode(example.input_ids[: targets(example)[0]])
    assert shared.endswith("Sorry, b")  # the first token that differs has a context that both share


def test_a_harmful_response_without_a_thought_is_all_answer() -> None:
    for harmful in (HARMFUL["no_thought"], HARMFUL["no_thought_shared"]):
        answer, divergence = (rto_example(encoder(mode), harmful) for mode in ("answer", "divergence"))
        assert answer == divergence


def test_a_harmful_response_alone_shares_nothing() -> None:
    examples = [rto_example(encoder(mode), HARMFUL["no_thought"], None) for mode in ("response", "divergence")]
    assert examples[0] == examples[1]


def test_a_harmful_thought_that_never_ends_is_dropped_by_name() -> None:
    endless = "<think>\nSure. First warm it."
    with pytest.raises(RowError, match="its thought never ends") as caught:
        encoder("answer").encode(row(endless, None))
    assert caught.value.reason == "no_rto_position"
    examples, faults = encoder("answer").encode_counted(row(endless))
    assert [example.kind for example in examples] == ["sft"]
    assert [fault.reason for fault in faults] == ["no_rto_position"]
    assert targets(rto_example(encoder("divergence"), endless))


def test_a_harmful_response_that_never_leaves_the_safe_one_is_dropped_by_name() -> None:
    examples, faults = encoder("divergence").encode_counted(row("Okay, no.", "Okay, no. I can't help."))
    assert [example.kind for example in examples] == ["sft"]
    assert [fault.reason for fault in faults] == ["no_rto_position"]
    assert "it never leaves the safe response. Mend it, or set safekey_rto_from: response" in str(faults[0])


def test_positions_that_none_are_kept_of_are_named() -> None:
    _, faults = encoder("divergence", rto_keep=1e-9).encode_counted(row(HARMFUL["no_thought"]))
    assert "safekey_rto_keep 1e-09 keeps none of its" in str(faults[0]) and faults[0].reason == "no_rto_position"


def test_the_papers_positions_are_the_default() -> None:
    config = SafeKeyConfig(rto=True, harmful_prefix=True)
    assert (config.rto_from, config.harmful_prefix_from) == ("response", "response")
    example = rto_example(encoder("response"), HARMFUL["shared_thought_opening"])
    end = len(example.labels)
    everything = {index for index in range(targets(example)[0], end)}
    left_out = [example.input_ids[index] for index in sorted(everything - set(targets(example)))]
    assert encoder("response").tokenizer.decode(left_out) == "</think>"


@pytest.mark.parametrize(
    ("harmful", "safe", "shared"),
    [
        ("<think>\nOkay, so", "<think>\nOkay, the", "<think>\nOkay, "),
        ("Okay, so", "<think>\n\n Okay, the", "Okay, "),
        ("<think> okay , i", "<think>\nokay , but", "<think> okay , "),
        ("Sure", "Sorry", "S"),
        ("Sure", "", ""),
        ("Same words", "Same words", "Same words"),
        ("<think>\nOkay, so", "Okay, so", ""),
    ],
)
def test_shared_opening_ignores_tags_and_the_space_around_them(harmful: str, safe: str, shared: str) -> None:
    assert harmful[: shared_opening(harmful, safe)] == shared


@pytest.mark.parametrize("harmful", HARMFUL.values(), ids=HARMFUL)
def test_prefixes_from_divergence_on_are_no_opening_of_the_safe_response(harmful: str) -> None:
    after = shared_opening(harmful, SAFE)
    drawn = {draw_prefix(harmful, 0.0, random.Random(seed), after) for seed in range(400)}
    assert drawn == {harmful[:end] for end in word_ends(harmful) if end > after}
    body = SAFE.removeprefix("<think>\n")
    assert not any(body.startswith(prefix.removeprefix("<think>\n")) for prefix in drawn)


def test_a_harmful_response_that_is_the_safe_one_has_no_harmful_prefix() -> None:
    assert draw_prefix(SAFE, 0.0, random.Random(0), shared_opening(SAFE, SAFE)) == ""


def test_encoder_draws_prefixes_from_divergence_on() -> None:
    harmful = HARMFUL["shared_thought_opening"]
    config = SafeKeyConfig(
        harmful_prefix=True, harmful_prefix_from="divergence", harmful_prefix_empty=0.0, harmful_prefix_draws=30
    )
    enc = SafeKeyExampleEncoder(tokenizer_with_template("byte_bpe", "r1_distill"), config)
    opening = "Okay, the user asks how to brew it."
    for example in enc.encode(row(harmful)):
        assert opening in enc.tokenizer.decode(np.array(example.input_ids))
