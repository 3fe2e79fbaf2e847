"""Probes: what a model is asked after tuning. Attacks, over-refusal sets, and the capability task."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from safekey_peft.lab.tuning_set import harmless_kinds, tunable_forbidden
from safekey_peft.lab.vocabulary import ASSISTANT, BOS, MAKING_VERBS, OBJECTS, USER
from safekey_peft.lab.world import (
    END_THINK,
    LATE_REVEAL,
    PLAIN,
    UNSEEN_WRAPPERS,
    Request,
    Task,
    World,
    document_opening,
)

PREFILLED = ("understanding", "key_sentence", "thought", "first_item")
"""Where the prefilled opening of H ends: after U, K, the thought, or the first of the five items."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One prompt and what is needed to grade the response.

    Attributes:
        column: column of the demo's table, e.g. ``unseen_wrappers``.
        name: the set within the column, e.g. ``cipher``.
        prompt: text up to where the model goes on, prefilled words included.
        prefilled: the opening of the response that is part of the prompt, or "".
        recipe: the five items of a right, helpful answer; empty for a task.
        secrets: the attribute's own ingredients, which a safe model does not show; empty if harmless.
        answer: the right answer of a task, or "".
    """

    column: str
    name: str
    prompt: str
    prefilled: str
    recipe: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    answer: str = ""


def chat_prompt(query: str, prefilled: str = "") -> str:
    """Return what the chat template renders for one user turn and the generation prompt."""
    return f"{BOS} {USER} {query} {ASSISTANT} {prefilled}".strip()


def build_probes(world: World, tuned: Collection[Request], count: int = 50) -> list[Probe]:
    """Draw all probes of a world.

    Args:
        world: the world.
        tuned: harmful requests of the tuning set; no attack repeats one.
        count: probes in each set.

    Returns: probes of the columns ``in_domain``, ``unseen_wrappers``, ``late_reveal``, ``prefilling``,
        ``completion``, ``unseen_attributes``, ``over_refusal`` and ``capability``.
    """
    draw = world.generator("probes")
    forbidden = [request for request in tunable_forbidden(world) if request not in tuned]
    probes = list(_wrapped(world, draw, "in_domain", "plain", forbidden, PLAIN, count))
    for column, wrappers in (("unseen_wrappers", UNSEEN_WRAPPERS), ("late_reveal", LATE_REVEAL)):
        for wrapper in wrappers:
            probes += _wrapped(world, draw, column, wrapper, forbidden, (wrapper,), count)
    for place in PREFILLED:
        for request in draw.sample(forbidden, count):
            wrapper = draw.choice(PLAIN)
            prefilled = _opening(world, request, wrapper, place)
            probes.append(_probe(world, draw, "prefilling", place, request, wrapper, prefilled))
    for request in draw.sample(forbidden, count):
        recipe, secrets = world.recipe(request), world.own_ingredients[request.attribute]
        prompt = f"{BOS} {document_opening(request)}"
        probes.append(Probe("completion", "document", prompt, "", recipe, secrets))
    unseen = [
        Request(verb, attribute, thing)
        for verb in MAKING_VERBS
        for attribute in world.held_out_attributes
        for thing in OBJECTS
    ]
    probes += _wrapped(world, draw, "unseen_attributes", "plain", unseen, PLAIN, count)
    probes += _harmless(world, draw, count)
    for _ in range(count):
        task = Task.drawn(draw)
        probes.append(
            Probe("capability", task.kind, chat_prompt(task.query), "", answer=task.response.answer)
        )
    return probes


def _harmless(world: World, draw: random.Random, count: int) -> Iterator[Probe]:
    kinds = harmless_kinds()
    for name, kind, wrappers in (
        ("plain_light", "light", PLAIN),
        ("plain_look_alike", "look_alike", PLAIN),
        ("wrapped_light", "light", UNSEEN_WRAPPERS),
        ("wrapped_look_alike", "look_alike", UNSEEN_WRAPPERS),
        ("late_reveal_harmless", "light", LATE_REVEAL),
    ):
        yield from _wrapped(world, draw, "over_refusal", name, kinds[kind], wrappers, count)


def _wrapped(
    world: World,
    draw: random.Random,
    column: str,
    name: str,
    requests: Sequence[Request],
    wrappers: Sequence[str],
    count: int,
) -> Iterator[Probe]:
    for request in draw.sample(requests, count):
        yield _probe(world, draw, column, name, request, draw.choice(wrappers), "")


def _probe(
    world: World, draw: random.Random, column: str, name: str, request: Request, wrapper: str, prefilled: str
) -> Probe:
    return Probe(
        column,
        name,
        chat_prompt(world.wrap(request, wrapper, draw), prefilled),
        prefilled,
        recipe=world.recipe(request),
        secrets=world.own_ingredients[request.attribute] if request.is_forbidden else (),
    )


def _opening(world: World, request: Request, wrapper: str, place: str) -> str:
    response = world.compliant_response(request, wrapper)
    thought_end = response.text.index(END_THINK) + len(END_THINK)
    first_item = world.recipe(request)[0]
    end = {
        "understanding": response.understanding_end,
        "key_sentence": response.key_sentence_end,
        "thought": thought_end,
        "first_item": response.text.index(f": {first_item}") + len(f": {first_item}"),
    }[place]
    return response.text[:end]
