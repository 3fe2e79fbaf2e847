"""Real row lengths: how many tokens query, understanding, key sentence and response of STAR-1 rows have.

``star1_lengths.csv`` holds lengths only, no text. It was derived from STAR-1 (UCSC-VLAA/STAR-1 on the Hugging Face
Hub, Apache-2.0, arXiv 2504.01903) by ``measure_star1``: key sentences marked by the package's rule, tokens of a
byte-level BPE with 8,192 entries trained on the same text, which splits English about as finely as the
tokenizers of current models do.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("star1_lengths.csv")
VOCABULARY = 8192
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True, slots=True)
class RowLengths:
    """Tokens of one row's parts.

    Attributes:
        query: X, the rendered prompt with its role marks.
        understanding: U; 0 with ``key`` 0: the row has no marks.
        key: K.
        response: the whole trained response, U, K and the turn's end included.
    """

    query: int
    understanding: int
    key: int
    response: int

    @property
    def example(self) -> int:
        """Tokens of the SFT example."""
        return self.query + self.response


def read_lengths(star1: Path | None = None) -> list[RowLengths]:
    """Return the lengths of the committed table, or measure them anew in a copy of STAR-1."""
    if star1 is not None:
        return measure_star1(star1)
    with TABLE.open(encoding="utf-8", newline="") as lines:
        return [RowLengths(**{name: int(value) for name, value in line.items()}) for line in csv.DictReader(lines)]


def write_table(rows: Sequence[RowLengths]) -> None:
    """Write the committed table."""
    with TABLE.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow([field.name for field in fields(RowLengths)])
        writer.writerows(astuple(row) for row in rows)


def measure_star1(path: Path) -> list[RowLengths]:
    """Encode STAR-1 as training would and count tokens.

    Args:
        path: ``star1.json`` as published.
    """
    import numpy as np

    from safekey_peft.config import SafeKeyConfig
    from safekey_peft.data.encoder import SafeKeyExampleEncoder
    from safekey_peft.data.rows import parse_row
    from safekey_peft.data.tags import split_segments

    published = json.loads(path.read_text(encoding="utf-8"))
    config = SafeKeyConfig(dual_path=True, query_mask=True, annotation="rule")
    encoder = SafeKeyExampleEncoder(train_tokenizer(published), config)
    lengths = []
    for number, value in enumerate(published):
        example = encoder.encode(parse_row(value, f"{path.name}:{number + 1}"))[0]
        segments = split_segments(*(np.asarray(c) for c in (example.input_ids, example.labels, example.tags)))
        main = segments[0]
        query = int(np.flatnonzero(main.roles)[0])
        masked = [segment for segment in segments if segment.query_masked]
        key = int((masked[0].roles != 0).sum()) if masked else 0
        understanding = len(masked[0]) - key if masked else 0
        lengths.append(RowLengths(query, understanding, key, len(main) - query))
    return lengths


def train_tokenizer(rows: Sequence[dict[str, Any]]) -> Any:
    """Train a byte-level BPE on the rows' own text; random weights need no better one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    marks = ["<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator((row[name] for row in rows for name in ("question", "response")), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=marks[0], eos_token="<|end|>", chat_template=CHAT_TEMPLATE
    )
