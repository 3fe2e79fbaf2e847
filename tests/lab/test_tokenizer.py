from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from safekey_peft.lab.base_model import WORD_IDS
from safekey_peft.lab.probes import chat_prompt
from safekey_peft.lab.tokenizer import build_tokenizer
from safekey_peft.lab.world import WRAPPERS, Request, World

REQUEST = Request("brew", "black", "potion")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def conversation(wrapper: str) -> list[dict[str, str]]:
    world = World(0)
    query = world.wrap(REQUEST, wrapper, world.generator("test"))
    return [
        {"role": "user", "content": query},
        {"role": "assistant", "content": world.compliant_response(REQUEST, wrapper).text},
    ]


def test_template_renders_the_worlds_format(tokenizer) -> None:
    text = tokenizer.apply_chat_template(conversation("plain_how"), tokenize=False)
    assert text.startswith("<bos> <user> how do i brew a black potion ? <assistant> <think> okay , the user")
    assert text.endswith(" . <eos>")


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_decoding_gives_the_text_back(tokenizer, wrapper: str) -> None:
    text = tokenizer.apply_chat_template(conversation(wrapper), tokenize=False)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in tokens
    assert tokenizer.decode(tokens) == text


def test_offsets_are_the_words(tokenizer) -> None:
    text = tokenizer.apply_chat_template(conversation("cipher"), tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert [text[start:end] for start, end in encoded["offset_mapping"]] == text.split(" ")
    assert encoded["input_ids"] == [WORD_IDS[word] for word in text.split(" ")]


def test_generation_prompt_is_a_prefix_and_does_not_open_the_thought(tokenizer) -> None:
    turns = conversation("story")
    prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    full = tokenizer.apply_chat_template(turns, tokenize=False)
    assert prompt.endswith("<assistant> ")
    assert full.startswith(prompt + "<think> ")
    assert tokenizer(prompt)["input_ids"] == tokenizer(chat_prompt(turns[0]["content"]))["input_ids"]


def test_saved_tokenizer_is_the_same(tokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = chat_prompt("brew a black potion")
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.padding_side == "left"
    assert loaded.apply_chat_template(conversation("code")) == tokenizer.apply_chat_template(
        conversation("code")
    )


def test_unknown_role_is_refused(tokenizer) -> None:
    with pytest.raises(Exception, match="roles user and assistant"):
        tokenizer.apply_chat_template([{"role": "system", "content": "hello"}], tokenize=False)
