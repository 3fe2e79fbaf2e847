"""Token spans found by walking through the text, without the tokenizer's offset mapping.

Each token is turned back into the bytes it stands for, and the bytes are matched against the text in order.
The place where a token's first byte lands gives the character that decides to which span it belongs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerFast


def reference_token_starts(tokenizer: PreTrainedTokenizerFast, text: str, ids: Sequence[int]) -> list[int]:
    """The character of `text` that holds each token's first byte.

    Args:
        tokenizer: a tokenizer of `tests.tokenizers`.
        text: the rendered conversation.
        ids: its tokens, without special tokens that are not in the text.

    Returns:
        One index per token; a dummy prefix that stands for no character has the index of the character after
        it.

    Raises:
        AssertionError: the tokens are not the text.
    """
    owner = [i for i, character in enumerate(text) for _ in character.encode()]
    data = text.encode()
    owner.append(len(text))
    unknown, skips_space = tokenizer.unk_token_id, not _shows_space(tokenizer)
    starts, at = [], 0
    for position, token_id in enumerate(ids):
        piece = token_bytes(tokenizer, token_id)
        if skips_space:
            while at < len(data) and data[at : at + 1].isspace():
                at += 1
        if token_id == unknown:
            starts.append(owner[at])
            at = _end_of_unknown(tokenizer, data, at, ids[position + 1 :])
        elif data.startswith(piece, at):
            starts.append(owner[at])
            at += len(piece)
        else:  # a dummy prefix: the piece without its leading space, possibly nothing
            assert piece[:1] == b" " and data.startswith(piece[1:], at), (position, piece, data[at : at + 20])
            starts.append(owner[at])
            at += len(piece) - 1
    assert data[at:].strip() == b"" if skips_space else at == len(data), (at, len(data))
    return starts


def reference_spans(
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    ids: Sequence[int],
    char_spans: Mapping[str, tuple[int, int]],
) -> dict[str, tuple[int, int]]:
    """Token spans `[start, end)`: a token belongs to the character span that holds its first character.

    Returns:
        One token span per name. A span no token starts in is empty, `(i, i)`, with i the first token after
        it.
    """
    starts = reference_token_starts(tokenizer, text, ids)
    spans = {}
    for name, (first, end) in char_spans.items():
        inside = [i for i, start in enumerate(starts) if first <= start < end]
        after = next((i for i, start in enumerate(starts) if start >= first), len(starts))
        spans[name] = (inside[0], inside[-1] + 1) if inside else (after, after)
    return spans


def covered_text(
    tokenizer: PreTrainedTokenizerFast, text: str, ids: Sequence[int], span: tuple[int, int]
) -> str:
    """The text from the first character of the span's first token to that of the token after it."""
    starts = [*reference_token_starts(tokenizer, text, ids), len(text)]
    return text[starts[span[0]] : starts[span[1]]]


def token_bytes(tokenizer: PreTrainedTokenizerFast, token_id: int) -> bytes:
    """The bytes of one token as it stands in the middle of a text."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    if token_id in tokenizer.added_tokens_decoder:
        return token.encode()
    decoder = tokenizer.backend_tokenizer.decoder
    if decoder is not None and "ByteLevel" in repr(decoder):
        alphabet = byte_of_character()
        return bytes(alphabet[character] for character in token)
    if len(token) == 6 and token.startswith("<0x"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode() if _shows_space(tokenizer) else token.encode()


@lru_cache
def byte_of_character() -> dict[str, int]:
    """The byte behind each character of a byte-level vocabulary; unprintable bytes start at U+0100."""
    stretches = (("!", "~"), ("¡", "¬"), ("®", "ÿ"))
    printable = [value for first, last in stretches for value in range(ord(first), ord(last) + 1)]
    table = {chr(value): value for value in printable}
    others = [value for value in range(256) if value not in printable]
    return {**table, **{chr(256 + i): value for i, value in enumerate(others)}}


def _shows_space(tokenizer: PreTrainedTokenizerFast) -> bool:
    return tokenizer.backend_tokenizer.decoder is not None


def _end_of_unknown(
    tokenizer: PreTrainedTokenizerFast, data: bytes, at: int, following: Sequence[int]
) -> int:
    """Where the text of an unknown token ends."""
    if not _shows_space(tokenizer):  # one unknown word: letters, or else a run of other signs
        text = data[at:].decode()
        is_word = text[0].isalnum() or text[0] == "_"
        length = next(
            (
                i
                for i, c in enumerate(text)
                if c.isspace() or (c.isalnum() or c == "_") != is_word or (i > 0 and text.startswith("<", i))
            ),
            len(text),
        )
        return at + len(text[:length].encode())
    if not following:
        return len(data)
    found = data.find(token_bytes(tokenizer, following[0]), at + 1)
    assert found >= 0, following[0]
    return found
