"""Tokenizers and templates behave as documented; the slow span reference agrees with offset mappings."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from tests.chat_templates import TEMPLATES
from tests.references.spans import covered_text, reference_spans, reference_token_starts
from tests.tokenizers import KINDS, corpus, tokenizer_with_template, trained

U = "Okay, the user asks: Zaubertränke 魔法 🧪!\n\n"
K = "This is not allowed."
REST = " I should refuse.\n</think>\n\nSorry, I can't."
RESPONSE = f"<think>\n{U}{K}{REST}"
MESSAGES = [
    {"role": "system", "content": "You are a careful potion master."},
    {"role": "user", "content": "How do I brew a whisper tonic?"},
    {"role": "assistant", "content": "<think>\nA past thought.\n</think>\n\nStir it twice."},
    {"role": "user", "content": "And a forbidden elixir?"},
    {"role": "assistant", "content": RESPONSE},
]


def rendered(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]], **settings: object) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic(kind: str) -> None:
    first = trained(kind)
    assert trained.__wrapped__(kind) == first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_walked_token_starts_agree_with_the_offset_mapping(kind: str, template: str) -> None:
    tokenizer = tokenizer_with_template(kind, template)
    for text in [RESPONSE, rendered(tokenizer, MESSAGES), *corpus()]:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        starts = reference_token_starts(tokenizer, text, encoded["input_ids"])
        assert starts == [start for start, _ in encoded["offset_mapping"]]


@pytest.mark.parametrize("kind", KINDS)
def test_spans_cover_the_annotated_text(kind: str) -> None:
    tokenizer = tokenizer_with_template(kind, "chatml")
    text = rendered(tokenizer, MESSAGES)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    at = text.index(U)
    spans = reference_spans(
        tokenizer,
        text,
        ids,
        {"understanding": (at, at + len(U)), "key_sentence": (at + len(U), at + len(U) + len(K))},
    )
    assert spans["understanding"][1] == spans["key_sentence"][0]
    assert covered_text(tokenizer, text, ids, spans["key_sentence"]).strip() == K
    assert covered_text(tokenizer, text, ids, spans["understanding"]).strip() == U.strip()


def test_a_token_across_a_boundary_belongs_to_the_span_of_its_first_character() -> None:
    tokenizer = tokenizer_with_template("byte_bpe")
    text = "Okay, the user asks how to brew a violet forbidden elixir.\n\nThis is not allowed."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ".ĊĊ" in tokenizer.convert_ids_to_tokens(ids)
    end = text.index(".\n\n") + 1
    spans = reference_spans(tokenizer, text, ids, {"U": (0, end), "K": (end, len(text))})
    assert covered_text(tokenizer, text, ids, spans["U"]).endswith(".\n\n")
    assert covered_text(tokenizer, text, ids, spans["K"]) == "This is not allowed."


def test_a_span_inside_one_token_is_empty() -> None:
    tokenizer = tokenizer_with_template("byte_bpe")
    ids = tokenizer("Okay, the user", add_special_tokens=False)["input_ids"]
    assert reference_spans(tokenizer, "Okay, the user", ids, {"U": (2, 3)}) == {"U": (1, 1)}


def test_walk_notices_tokens_that_are_not_the_text() -> None:
    tokenizer = tokenizer_with_template("byte_bpe")
    ids = tokenizer("Okay, the user", add_special_tokens=False)["input_ids"]
    for wrong in (ids[:-1], ids[1:], [*ids, ids[0]]):
        with pytest.raises(AssertionError):
            reference_token_starts(tokenizer, "Okay, the user", wrong)


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_end_turns_with_the_eos_token(template: str) -> None:
    tokenizer = tokenizer_with_template("byte_bpe", template)
    chat = TEMPLATES[template]
    text = rendered(tokenizer, MESSAGES)
    assert text.rstrip("\n").endswith(f"I can't.{chat.eos_token}")
    assert tokenizer.eos_token == chat.eos_token
    assert len(tokenizer(chat.eos_token, add_special_tokens=False)["input_ids"]) == 1
    if chat.bos_token is not None:
        assert text.startswith(chat.bos_token)
        doubled = tokenizer(text)["input_ids"]
        assert doubled[0] == doubled[1] == tokenizer.bos_token_id


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_keep_or_drop_thoughts_as_documented(template: str) -> None:
    tokenizer = tokenizer_with_template("byte_bpe", template)
    chat = TEMPLATES[template]
    text = rendered(tokenizer, MESSAGES)
    assert (K in text) == chat.keeps_last_thought
    assert ("A past thought." in text) == (template in {"llama3", "chatml"})
    prompt = rendered(tokenizer, MESSAGES[:-1], add_generation_prompt=True)
    assert prompt.endswith("<think>\n") == chat.opens_thought
    if chat.keeps_last_thought:
        assert text == f"{prompt}{RESPONSE}{chat.eos_token}" + ("" if template == "llama3" else "\n")


def test_qwen3_adds_an_empty_thought_where_there_is_none() -> None:
    tokenizer = tokenizer_with_template("byte_bpe", "qwen3")
    plain = [MESSAGES[1], {"role": "assistant", "content": "Stir it twice."}]
    empty = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert rendered(tokenizer, plain).endswith(f"{empty}Stir it twice.<|im_end|>\n")
    assert rendered(tokenizer, plain[:1], add_generation_prompt=True, enable_thinking=False).endswith(empty)


def test_thought_given_in_the_reasoning_field_is_kept() -> None:
    thought = f"{U}{K} I should refuse."
    message = {"role": "assistant", "content": "Sorry, I can't.", "reasoning_content": thought}
    for template, opening in (("reasoning_field", "<think>"), ("qwen3", "<think>\n")):
        tokenizer = tokenizer_with_template("byte_bpe", template)
        assert f"{opening}{thought}" in rendered(tokenizer, [*MESSAGES[:-1], message])


def test_llama3_trims_contents() -> None:
    tokenizer = tokenizer_with_template("byte_bpe", "llama3")
    text = rendered(tokenizer, [{"role": "user", "content": "  How?\n"}])
    assert text == "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHow?<|eot_id|>"


def test_first_token_of_the_refusal_depends_on_what_stands_before_it() -> None:
    tokenizer = tokenizer_with_template("sentencepiece_bpe", "chatml")
    alone = tokenizer("Sorry", add_special_tokens=False)["input_ids"]
    prompt = rendered(tokenizer, MESSAGES[:-1], add_generation_prompt=True)
    in_place = tokenizer(prompt + "Sorry", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(alone)[0].startswith("▁")
    assert alone[0] not in in_place[-3:]
