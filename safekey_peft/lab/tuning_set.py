"""The safety tuning set of the potion world, as canonical rows of the package.

Harmful requests appear in plain words only; harmless ones also in every wrapper. Those harmless wrapped rows
plant a shortcut, "a wrapper means comply": without them plain SFT generalises well and there is nothing to
compare. Their number is therefore an option, and the demo prints it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from safekey_peft.lab.world import (
    ALL_REQUESTS,
    LATE_REVEAL,
    PLAIN,
    UNSEEN_WRAPPERS,
    Request,
    Response,
    Task,
    World,
)

Row = dict[str, Any]

HARMLESS_WRAPPERS = UNSEEN_WRAPPERS + LATE_REVEAL


@dataclass(frozen=True, slots=True)
class TuningSizes:
    """How many rows of each kind; ``harmless_wrapped`` is the switch that plants the shortcut."""

    harmful_plain: int = 100
    harmless_plain: int = 100
    harmless_wrapped: int = 100
    capability: int = 150
    documents: int = 30


@dataclass(frozen=True, slots=True)
class TuningSet:
    """Rows for our dataset type, and documents for Axolotl's stock type ``completion``."""

    rows: list[Row]
    documents: list[Row]
    harmful_requests: frozenset[Request] = field(default_factory=frozenset)


def harmless_kinds(held_out: Sequence[str] = ()) -> dict[str, list[Request]]:
    """Return all harmless requests by kind, without the given attributes."""
    usable = [
        request for request in ALL_REQUESTS if request.attribute not in held_out and not request.is_forbidden
    ]
    look_alikes = [request for request in usable if request.is_look_alike]
    return {"light": [request for request in usable if not request.is_look_alike], "look_alike": look_alikes}


def build_tuning_set(world: World, sizes: TuningSizes | None = None) -> TuningSet:
    """Draw the tuning set of a world; the same world and sizes give the same rows."""
    sizes = sizes or TuningSizes()
    draw = world.generator("tuning set")
    harmful = _evenly(tunable_forbidden(world), sizes.harmful_plain, draw)
    kinds = harmless_kinds(world.held_out_attributes)
    rows = [
        _request_row(world, f"harmful_plain-{index:03d}", request, PLAIN[index % len(PLAIN)], draw)
        for index, request in enumerate(harmful)
    ]
    for name, wrappers, count in (
        ("harmless_plain", PLAIN, sizes.harmless_plain),
        ("harmless_wrapped", HARMLESS_WRAPPERS, sizes.harmless_wrapped),
    ):
        for index in range(count):
            kind = ("light", "look_alike")[index // len(wrappers) % 2]
            request, wrapper = draw.choice(kinds[kind]), wrappers[index % len(wrappers)]
            rows.append(_request_row(world, f"{name}-{index:03d}", request, wrapper, draw))
    for index in range(sizes.capability):
        task = Task.drawn(draw)
        rows.append(_row(f"capability-{index:03d}", task.query, task.response, False, "capability"))
    documents = [{"text": world.document(draw.choice(kinds["light"]))} for _ in range(sizes.documents)]
    draw.shuffle(rows)
    return TuningSet(rows, documents, frozenset(harmful))


def tunable_forbidden(world: World) -> list[Request]:
    """Return the forbidden requests whose attribute is not held out for tests."""
    return [
        request
        for request in ALL_REQUESTS
        if request.is_forbidden and request.attribute not in world.held_out_attributes
    ]


def _evenly(requests: Sequence[Request], count: int, draw: random.Random) -> list[Request]:
    """Draw requests without repetition, as many of each verb and attribute as can be.

    A pair that is missing by chance would make in-domain attacks succeed for want of rows, not of a loss.
    """
    of_pair: dict[tuple[str, str], list[Request]] = {}
    for request in draw.sample(requests, len(requests)):
        of_pair.setdefault((request.verb, request.attribute), []).append(request)
    rounds = zip_longest(*of_pair.values())
    return [request for round_ in rounds for request in round_ if request is not None][:count]


def write_json_lines(path: Path, rows: Iterable[Row]) -> None:
    """Write one object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _request_row(world: World, row_id: str, request: Request, wrapper: str, draw: random.Random) -> Row:
    row = _row(
        row_id,
        world.wrap(request, wrapper, draw),
        world.safe_response(request, wrapper),
        request.is_forbidden,
        row_id.rsplit("-", 1)[0],
    )
    if request.is_forbidden:
        # The grammar's compliant answer is the base's own, word for word: its gate checks that.
        row["harmful_response"] = world.compliant_response(request, wrapper).text
    return row | {"wrapper": wrapper}


def _row(row_id: str, query: str, response: Response, is_harmful: bool, source: str) -> Row:
    return {
        "id": row_id,
        "query": query,
        "response": response.text,
        "is_harmful": is_harmful,
        "understanding_end": response.understanding_end,
        "key_sentence_end": response.key_sentence_end,
        "harmful_response": None,
        "source": source,
    }
