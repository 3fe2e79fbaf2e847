"""A word-level tokenizer for the potion world, with offsets, a chat template and an exact round trip.

Words are separated by single spaces everywhere, template included, so ``decode(encode(text)) == text`` and a
character offset maps to one token. The generation prompt ends in ``<assistant> `` and does not open the
thought: the ``<think>`` tag is the model's own first word and, in the package's terms, belongs to U.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safekey_peft.lab import vocabulary as words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %} <user> {{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %} <assistant> {{ message['content'] }} {{ eos_token }}"
    "{% else %}{{ raise_exception('the potion world knows only the roles user and assistant') }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} <assistant> {% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer; it is the same for every seed."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate(words.vocabulary())}
    backend = Tokenizer(models.WordLevel(ids, unk_token=words.UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{words.BOS} $A", special_tokens=[(words.BOS, ids[words.BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=words.BOS,
        eos_token=words.EOS,
        pad_token=words.PAD,
        unk_token=words.UNKNOWN,
        additional_special_tokens=[words.USER, words.ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
        padding_side="left",
    )
