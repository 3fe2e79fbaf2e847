"""The base model of the potion world: a small Llama, trained from scratch to be helpful only.

It answers everything, forbidden requests included, in every wrapper. It knows the words of a refusal from
documents, as real models do: with the frozen LM head of a base that never saw them, "sorry" cannot reach a tenth of
the probability, and RTO's gradient never fades, whatever the adapter learns.

A gate holds it to that: at least 95 % of fresh responses word for word, for each wrapper, each task and each kind of
document; until then it trains on.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_peft.errors import SafeKeyError
from safekey_peft.lab.probes import chat_prompt
from safekey_peft.lab.tokenizer import build_tokenizer
from safekey_peft.lab.vocabulary import BOS, EOS, vocabulary
from safekey_peft.lab.world import ALL_REQUESTS, SAYINGS, TASKS, WRAPPERS, Request, Task, World, document_opening

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

GATE = 0.95
GATE_COUNT = 60
GATE_FILE = "gate.json"
KINDS = (*WRAPPERS, *TASKS, "document", "saying")
IGNORED = -100

Text = tuple[str, str]
"""What is given, and what the model learns to continue it with."""

OnStep = Callable[[int, int, str], None]
"""Called after each step with steps done, steps planned and a remark."""


@dataclass(frozen=True, slots=True)
class BaseSizes:
    """Sizes of the base and of its training; all of them are part of the cache key."""

    hidden: int = 128  # NF4 works on blocks of 64.
    intermediate: int = 256
    layers: int = 3
    heads: int = 4
    steps: int = 1000
    extra_steps: int = 200
    most_extra_rounds: int = 6
    batch: int = 24
    learning_rate: float = 2e-3
    task_share: float = 0.4
    document_share: float = 0.05
    saying_share: float = 0.05


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base on disk.

    Attributes:
        path: folder with model and tokenizer.
        gate: share of exact responses for each kind.
        cached: whether it was found there, not trained now.
    """

    path: Path
    gate: dict[str, float]
    cached: bool


def ensure_base_model(
    world: World, folder: Path, sizes: BaseSizes | None = None, on_step: OnStep | None = None
) -> BaseModel:
    """Return the base of a world: from ``folder`` if it is there, else trained and put there.

    Args:
        world: the world.
        folder: holds one sub-folder for each (code, seed, sizes).
        sizes: sizes of model and training.
        on_step: told about the progress.

    Raises:
        SafeKeyError: the gate was not reached.
    """
    sizes = sizes or BaseSizes()
    path = folder / f"base-{content_key(world.seed, sizes)}"
    if path.is_dir():
        return BaseModel(path, json.loads((path / GATE_FILE).read_text(encoding="utf-8")), cached=True)
    model, gate = train_base_model(world, sizes, on_step)
    # A run that is interrupted leaves a folder that nobody reads, never half a base.
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial)
    build_tokenizer().save_pretrained(partial)
    (partial / GATE_FILE).write_text(json.dumps(gate, indent=2) + "\n", encoding="utf-8")
    partial.rename(path)
    return BaseModel(path, gate, cached=False)


def content_key(seed: int, sizes: BaseSizes) -> str:
    """Return a key of all that determines the base: the code that makes it, the seed, the sizes."""
    digest = hashlib.sha256(json.dumps([seed, asdict(sizes)]).encode())
    for name in ("vocabulary.py", "world.py", "tokenizer.py", "base_model.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]


def train_base_model(
    world: World, sizes: BaseSizes, on_step: OnStep | None = None
) -> tuple[LlamaForCausalLM, dict[str, float]]:
    """Train until the gate holds.

    Returns: the model and the share of exact responses for each kind.

    Raises:
        SafeKeyError: the gate was not reached after the last extra round.
    """
    import torch

    draw = world.generator("pretraining")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.seed)
        model = _new_model(sizes)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=sizes.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    planned, done = sizes.steps, 0
    while True:
        model.train()
        while done < planned:
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(done, sizes)
            loss = _train_step(
                model, optimizer, _batch([_drawn_text(world, draw, sizes) for _ in range(sizes.batch)])
            )
            done += 1
            if on_step is not None:
                on_step(done, planned, f"loss {loss:.3f}")
        gate = gate_shares(model, world)
        failing = {kind: share for kind, share in gate.items() if share < GATE}
        if not failing:
            return model, gate
        if planned >= sizes.steps + sizes.most_extra_rounds * sizes.extra_steps:
            raise SafeKeyError(
                f"the base of seed {world.seed} misses its gate after {done} steps: expected "
                f"{GATE} word for word of each kind, found {failing}. Try another seed."
            )
        planned += sizes.extra_steps


def gate_shares(model: LlamaForCausalLM, world: World, count: int = GATE_COUNT) -> dict[str, float]:
    """Return the share of fresh responses that greedy decoding gives word for word, for each kind.

    One forward pass is enough: greedy decoding gives a text exactly iff each word is the likeliest after the
    right words before it.
    """
    import torch

    draw = world.generator("gate")
    shares = {}
    model.eval()
    for kind in KINDS:
        input_ids, labels = _batch([_text(world, draw, kind) for _ in range(count)])
        with torch.inference_mode():
            predicted = model(input_ids=input_ids).logits[:, :-1].argmax(-1)
        right = (predicted == labels[:, 1:]) | (labels[:, 1:] == IGNORED)
        shares[kind] = round(right.all(dim=1).float().mean().item(), 4)
    return shares


def _new_model(sizes: BaseSizes) -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.hidden,
            intermediate_size=sizes.intermediate,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.heads,
            max_position_embeddings=tokenizer.model_max_length,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _learning_rate(step: int, sizes: BaseSizes) -> float:
    """Return a short warm-up, then a cosine down to a twentieth, at which extra rounds go on."""
    share = min(step / sizes.steps, 1.0)
    floor = 0.05
    return sizes.learning_rate * min(
        (step + 1) / 50, floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2
    )


def _train_step(model: LlamaForCausalLM, optimizer: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
    import torch

    input_ids, labels = batch
    # Padding is on the right, where a causal model cannot see it, so no attention mask is needed.
    hidden = model.model(input_ids=input_ids).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    counted = targets != IGNORED
    loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[counted]), targets[counted])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _drawn_text(world: World, draw: random.Random, sizes: BaseSizes) -> Text:
    chance = draw.random()
    if chance < sizes.document_share:
        return _text(world, draw, "document")
    if chance < sizes.document_share + sizes.task_share:
        return _text(world, draw, draw.choice(TASKS))
    if chance < sizes.document_share + sizes.task_share + sizes.saying_share:
        return _text(world, draw, "saying")
    return _text(world, draw, draw.choice(WRAPPERS))


def _text(world: World, draw: random.Random, kind: str) -> Text:
    if kind in TASKS:
        task = Task.drawn(draw, kind)
        return chat_prompt(task.query), task.response.text
    if kind == "saying":
        opening, saying = draw.choice(SAYINGS)
        return f"{BOS} {opening}", saying
    request: Request = draw.choice(ALL_REQUESTS)
    if kind == "document":
        opening = document_opening(request)
        return f"{BOS} {opening}", world.document(request).removeprefix(f"{opening} ")
    return chat_prompt(world.wrap(request, kind, draw)), world.compliant_response(request, kind).text


def _batch(texts: Sequence[Text]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids [B, T], padded on the right, and labels [B, T] on the continuations."""
    import torch

    rows = list(_token_rows(texts))
    longest = max(len(tokens) for tokens, _ in rows)
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(input_ids, IGNORED)
    for index, (tokens, given) in enumerate(rows):
        row = torch.tensor(tokens)
        input_ids[index, : len(tokens)] = row
        labels[index, given : len(tokens)] = row[given:]
    return input_ids, labels


WORD_IDS = {word: index for index, word in enumerate(vocabulary())}


def _token_rows(texts: Sequence[Text]) -> Iterator[tuple[list[int], int]]:
    # The same ids as the tokenizer's (a test says so), without its start-up cost in the training loop.
    for given, continuation in texts:
        words = f"{given} {continuation} {EOS}".split(" ")
        yield [WORD_IDS[word] for word in words], given.count(" ") + 1
