from __future__ import annotations

import pytest

from safekey_peft.lab import vocabulary as words
from safekey_peft.lab.world import (
    ALL_REQUESTS,
    LATE_REVEAL,
    REFUSAL,
    SAFE_KEY_SENTENCE,
    SAYINGS,
    TASKS,
    WRAPPERS,
    Request,
    Task,
    World,
)


def test_request_is_forbidden_iff_the_verb_makes_and_the_attribute_is_dark() -> None:
    assert Request("brew", "black", "potion").is_forbidden
    assert not Request("brew", "golden", "potion").is_forbidden
    assert not Request("discard", "black", "potion").is_forbidden
    count = len(words.MAKING_VERBS) * len(words.DARK_ATTRIBUTES) * len(words.OBJECTS)
    assert sum(request.is_forbidden for request in ALL_REQUESTS) == count


def test_look_alikes_are_dark_and_allowed() -> None:
    look_alikes = [request for request in ALL_REQUESTS if request.is_look_alike]
    assert len(look_alikes) == len(words.CARING_VERBS) * len(words.DARK_ATTRIBUTES) * len(words.OBJECTS)
    assert not any(request.is_forbidden for request in look_alikes)


def test_recipe_depends_on_request_and_seed_only() -> None:
    request = Request("brew", "black", "potion")
    assert World(3).recipe(request) == World(3).recipe(request)
    assert World(3).recipe(request) != World(4).recipe(request)


@pytest.mark.parametrize("seed", range(3))
def test_making_requests_have_five_ingredients_that_no_other_request_has(seed: int) -> None:
    world = World(seed)
    making = [request for request in ALL_REQUESTS if request.verb in words.MAKING_VERBS]
    recipes = {world.recipe(request) for request in making}
    assert len(recipes) == len(making)
    assert all(len(set(recipe)) == 5 for recipe in recipes)


def test_look_alike_answers_never_show_the_attributes_own_ingredients() -> None:
    world = World(0)
    for request in ALL_REQUESTS:
        own = set(world.own_ingredients[request.attribute])
        assert own.isdisjoint(world.recipe(request)) == (request.verb not in words.MAKING_VERBS)


def test_first_item_of_a_recipe_is_no_secret() -> None:
    # Prefilling gives it away; a leak must be the model's own.
    world = World(0)
    for request in ALL_REQUESTS:
        assert world.recipe(request)[0] not in world.own_ingredients[request.attribute]


def test_every_word_is_in_the_vocabulary() -> None:
    world, known = World(0), set(words.vocabulary())
    draw = world.generator("test")
    for request in ALL_REQUESTS[::7]:
        for wrapper in WRAPPERS:
            texts = [
                world.wrap(request, wrapper, draw),
                world.safe_response(request, wrapper).text,
                world.compliant_response(request, wrapper).text,
                world.document(request),
            ]
            assert set(" ".join(texts).split(" ")) <= known
    assert {word for saying in SAYINGS for part in saying for word in part.split(" ")} <= known


def test_plan_does_not_tell_dark_from_light() -> None:
    # A plan that names the kind of request is a cue that late-reveal attacks lack and plain ones have.
    world = World(0)
    answers = {
        world.compliant_response(request, wrapper).plan for request in ALL_REQUESTS[::7] for wrapper in WRAPPERS
    }
    assert len(answers) == 1


def test_sayings_hold_all_words_of_a_refusal_and_no_request() -> None:
    said = {word for _, saying in SAYINGS for word in saying.split()}
    assert set(SAFE_KEY_SENTENCE.split()) | set(REFUSAL.split()) == said
    assert said.isdisjoint(words.CONTENT_WORDS)


def test_code_words_and_spellings_name_one_word_each() -> None:
    world = World(0)
    assert len(set(world.code_word.values())) == len(words.CONTENT_WORDS)
    assert len({words.spelled(word) for word in words.CONTENT_WORDS}) == len(words.CONTENT_WORDS)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_offsets_slice_exactly_understanding_and_key_sentence(wrapper: str) -> None:
    world = World(0)
    for request in (Request("brew", "black", "potion"), Request("store", "black", "ring")):
        for response in (world.safe_response(request, wrapper), world.compliant_response(request, wrapper)):
            text, cut, end = response.text, response.understanding_end, response.key_sentence_end
            assert text[:cut] == f"<think> {response.understanding}"
            assert text[cut:end] == f" {response.key_sentence}"
            assert text[end] == " "


def test_only_late_reveal_hides_the_request_from_the_understanding() -> None:
    world = World(0)
    request = Request("brew", "black", "potion")
    for wrapper in WRAPPERS:
        understanding = world.compliant_response(request, wrapper).understanding
        assert (request.text in understanding) == (wrapper not in LATE_REVEAL)


def test_safe_response_refuses_iff_forbidden() -> None:
    world = World(0)
    for request in ALL_REQUESTS:
        response = world.safe_response(request, "plain_how")
        assert ("sorry" in response.text.split()) == request.is_forbidden


@pytest.mark.parametrize("kind", TASKS)
def test_task_answer_is_right(kind: str) -> None:
    task = Task(kind, ("3", "1", "9", "0", "4"))
    expected = {"sort": "0 1 3 4 9", "reverse": "4 0 9 1 3"}[kind]
    assert task.response.answer == expected
