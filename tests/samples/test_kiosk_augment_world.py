"""A conversation in another world: name and hours change everywhere at once, and nothing else does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples.kiosk.data.speech.intents import INTENTS, TRAINING_WORLDS, World, expected_reply
from samples.kiosk.training import augment_world
from samples.kiosk.training.augment_world import WorldAugmentation

from wanedge.config import TINY
from wanedge.text import Tokenizer
from wanedge_export.tokenizer import LOBBY

TOKENIZER = Tokenizer(LOBBY, TINY)
AUGMENT = WorldAugmentation(TOKENIZER)
SLOTS = 2
worlds = st.sampled_from(TRAINING_WORLDS)
seeds = st.integers(0, 2**32)


def written(intents: list[str], world: World, room: int) -> np.ndarray:
    """Replies one after another, `room` empty slots behind each. [K, SLOTS]."""
    ids: list[int] = []
    for intent in intents:
        ids += [*TOKENIZER.encode(expected_reply(intent, world)), *[TOKENIZER.pad] * room]
    ids += [TOKENIZER.pad] * (len(ids) % SLOTS)
    return np.array(ids).reshape(-1, SLOTS)


def decoded(ids: np.ndarray) -> str:
    return TOKENIZER.decode([int(i) for i in ids.ravel() if i not in (TOKENIZER.pad, TOKENIZER.world)])


@given(st.lists(st.sampled_from(tuple(INTENTS)), min_size=1, max_size=5), worlds, seeds)
def test_every_reply_is_that_of_the_new_world(intents: list[str], world: World, seed: int) -> None:
    texts = written(intents, world, room=6)
    given_world = np.array(TOKENIZER.encode_world(world.text, TINY.prefill))
    new_world, new_texts = AUGMENT(np.random.default_rng(seed), given_world, texts)
    text = decoded(new_world)
    name, hours = text.removeprefix("The guide's name is ").removesuffix(".").split(". Open from ")
    opens, closes = hours.split(" to ")
    assert decoded(new_texts) == "".join(expected_reply(i, World(name, opens, closes)) for i in intents)
    assert new_texts.shape == texts.shape
    untouched = [i for i in intents if i not in ("greeting", "opening")]
    if untouched == intents:
        assert np.array_equal(new_texts, texts)


@given(worlds, seeds)
def test_a_world_without_room_for_its_name_leaves_all_as_it_was(world: World, seed: int) -> None:
    texts = written(["greeting", "help"], world, room=0)
    given_world = np.array(TOKENIZER.encode_world(world.text, TINY.prefill))
    new_world, new_texts = AUGMENT(np.random.default_rng(seed), given_world, texts)
    if new_world is given_world:
        assert np.array_equal(new_texts, texts)
        assert expected_reply("greeting", world) in decoded(texts)
    else:
        assert len(decoded(new_texts)) > 0
        assert (new_texts != TOKENIZER.pad).sum() <= (texts != TOKENIZER.pad).sum()


def test_a_world_kept_for_evaluation_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment_world, "UNHEARD_OF_SHARE", 0.0)
    rng = np.random.default_rng(0)
    texts = written(["greeting"], World(), room=6)
    world = np.array(TOKENIZER.encode_world(World().text, TINY.prefill))
    seen = {decoded(AUGMENT(rng, world, texts)[0]) for _ in range(2000)}
    assert seen == {w.text for w in TRAINING_WORLDS}


def test_the_units_that_state_a_fact_are_listed() -> None:
    texts = written(["help", "opening", "yes", "greeting"], World(), room=6)
    found = AUGMENT.fact_units(texts)
    for units, head in ((found["name"], " I am"), (found["hours"], " open at")):
        (unit,) = units
        assert TOKENIZER.encode(head)[0] in texts[unit]
    silent = AUGMENT.fact_units(written(["help", "yes"], World(), room=6))
    assert [len(units) for units in silent.values()] == [0, 0]
