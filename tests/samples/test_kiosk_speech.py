"""Claims about the kiosk's speech data: right replies, reproducible sounds, and nothing held out in training."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples.kiosk import tools
from samples.kiosk.data.speech import judge, recordings
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Recipe, audio_hash
from samples.kiosk.data.speech.intents import (
    BEHAVIOURS,
    FIRST_INTENTS,
    HELD_OUT_WORLDS,
    INTENTS,
    TRAINING_WORLDS,
    WORLDS,
    World,
    behaviours,
    expected_reply,
    is_right_reply,
    replied_intent,
    spoken,
)
from samples.kiosk.data.speech.utterances import (
    CLEAN,
    HEARD,
    SOUNDS,
    Sound,
    background,
    guide_utterance,
    visitor_utterance,
)
from samples.kiosk.data.speech.voices import (
    HELD_OUT_VOICES,
    SPLITS,
    TRAINING_VOICES,
    installed,
    recipes,
    side,
    synthesize,
)
from samples.kiosk.training.audio_encoder import WORD_INTENTS
from tokenizers import Tokenizer

from wanedge_export.tokenizer import LOBBY
from wanedge_runtimes.errors import InputError, MissingExtra

INSTALL = "install it with: python -m samples.kiosk.tools"
needs_voices = pytest.mark.skipif(
    not (installed("flite") and installed("espeak-ng")), reason=f"flite or espeak-ng is not installed; {INSTALL}"
)
needs_joe = pytest.mark.skipif(
    not (tools.JOE.exists() and installed("espeak-ng")), reason=f"the guide's voice is not installed; {INSTALL}"
)
needs_recordings = pytest.mark.skipif(
    not recordings.installed(), reason=f"the Asterisk recordings are not installed; {INSTALL}"
)
needs_judge = pytest.mark.skipif(not tools.JUDGE_PYTHON.exists(), reason=f"the judge is not installed; {INSTALL}")

intents = st.sampled_from(sorted(INTENTS))
worlds = st.sampled_from(WORLDS)


# Replies


def test_the_first_version_has_four_intents_and_both_answers_that_depend_on_the_world() -> None:
    assert len(FIRST_INTENTS) == 4
    assert set(FIRST_INTENTS) <= set(INTENTS)
    told = [INTENTS[name].reply for name in FIRST_INTENTS]
    assert any("{name}" in reply for reply in told)
    assert any("{opens}" in reply for reply in told)


def test_every_intent_has_phrasings_enough_and_some_are_held_out() -> None:
    for intent in INTENTS.values():
        assert len(intent.phrasings) >= 8, intent.name
        assert len(intent.held_out) >= 2, intent.name


def test_no_phrase_means_two_things() -> None:
    said = [text for intent in INTENTS.values() for text in (*intent.phrasings, *intent.held_out)]
    assert len({" ".join(judge.words(text)) for text in said}) == len(said)


def test_replies_are_short_and_their_behaviour_is_known() -> None:
    for name in INTENTS:
        reply = expected_reply(name, World())
        assert 3 <= len(spoken(reply).split()) <= 8, reply
        assert set(behaviours(reply)) <= set(BEHAVIOURS), reply


@given(intents, worlds, st.data())
def test_a_right_reply_stays_right_however_it_is_spaced_and_cased(name: str, world: World, data: st.DataObject) -> None:
    reply = expected_reply(name, world)
    at = data.draw(st.integers(0, len(spoken(reply))))
    broken = spoken(reply)[:at] + "  " + spoken(reply)[at:].upper()
    assert is_right_reply(broken, name, world)
    assert is_right_reply(f"(blinks) {broken} (nods)", name, world)


@given(intents, intents, worlds)
def test_a_reply_is_right_for_one_intent_only(name: str, other: str, world: World) -> None:
    assert replied_intent(expected_reply(name, world), world) == name
    assert is_right_reply(expected_reply(name, world), other, world) == (name == other)


def test_half_a_reply_silence_and_another_worlds_reply_are_wrong() -> None:
    reply = expected_reply("opening", World())
    assert not is_right_reply(reply[: len(reply) // 2], "opening", World())
    assert not is_right_reply("(nods)", "opening", World())
    assert not is_right_reply(reply, "opening", World(opens="ten"))
    assert not is_right_reply(expected_reply("greeting", World(name="Anna")), "greeting", World(name="Sam"))
    assert replied_intent("Bananas.", World()) is None


def test_an_unknown_intent_is_named() -> None:
    with pytest.raises(InputError, match="parking"):
        expected_reply("parking", World())


def test_the_world_text_is_short_and_tells_all_that_replies_need() -> None:
    tokenizer = Tokenizer.from_file(str(LOBBY))
    longest = max(len(tokenizer.encode(world.text).ids) for world in WORLDS)
    assert longest <= 20
    assert len({world.text for world in WORLDS}) == len(WORLDS)
    for world in WORLDS:
        assert all(part in world.text for part in (world.name, world.opens, world.closes))


def test_held_out_worlds_are_new_combinations_of_known_parts() -> None:
    assert not set(TRAINING_WORLDS) & set(HELD_OUT_WORLDS)
    assert len(HELD_OUT_WORLDS) >= 15
    for part in ("name", "opens", "closes"):
        assert {getattr(w, part) for w in HELD_OUT_WORLDS} <= {getattr(w, part) for w in TRAINING_WORLDS}


# The split


def test_no_recipe_is_in_two_splits_and_none_is_lost() -> None:
    groups = [{r.fingerprint for name in INTENTS for r in recipes(split, name)} for split in SPLITS]
    assert len(set().union(*groups)) == sum(len(group) for group in groups)
    train, validation = groups[:2]
    per_text = sum(len(voice.settings) for voice in TRAINING_VOICES)
    assert len(train | validation) == per_text * sum(len(intent.phrasings) for intent in INTENTS.values())
    assert 0.02 < len(validation) / len(train) < 0.05


def test_training_hears_no_held_out_voice_and_no_held_out_phrase() -> None:
    voices = {(voice.tool, voice.name) for voice in HELD_OUT_VOICES}
    # An espeak-ng variant is the speaker; the language before it is only the accent.
    speakers = {name.split("+")[-1] for _, name in voices}
    assert sum(tool == "flite" for tool, _ in voices) >= 1
    assert sum(tool == "espeak-ng" for tool, _ in voices) >= 2
    for name, intent in INTENTS.items():
        for recipe in (*recipes("train", name), *recipes("validation", name)):
            assert recipe.voice.split("+")[-1] not in speakers
            assert recipe.text in intent.phrasings


def test_every_intent_can_be_heard_in_every_split() -> None:
    for split in SPLITS:
        assert all(recipes(split, name) for name in INTENTS)


@given(intents, st.sampled_from(SPLITS), st.integers(0, 10**6))
def test_side_agrees_with_the_split_that_a_recipe_was_drawn_from(name: str, split: str, at: int) -> None:
    among = recipes(split, name)
    assert side(among[at % len(among)]) == split


@needs_voices
@pytest.mark.slow
def test_nothing_held_out_sounds_like_anything_in_training() -> None:
    """By the samples themselves, for a phrase that every voice says in every way: another recipe is not enough."""
    phrase = INTENTS["greeting"].phrasings[1]
    voices = [*HELD_OUT_VOICES, *TRAINING_VOICES]
    sounds: dict[str, set[str]] = {}
    for voice in voices:
        for recipe in voice.recipes(phrase):
            sounds.setdefault(audio_hash(synthesize(recipe).pcm), set()).add(side(recipe))
    assert [sides for sides in sounds.values() if len(sides) > 1] == []
    assert set().union(*sounds.values()) >= {"train", "voices"}


@needs_voices
def test_every_voice_is_another_speaker() -> None:
    """A tool may ignore part of a voice's name and speak with a voice that has another name already."""
    phrase = "where is the lift?"
    sounds = [audio_hash(synthesize(voice.recipes(phrase)[0]).pcm) for voice in (*TRAINING_VOICES, *HELD_OUT_VOICES)]
    assert len(set(sounds)) == len(sounds)


@needs_voices
def test_the_training_generator_never_draws_what_evaluation_draws() -> None:
    trained = {audio_hash(visitor_utterance("train", seed, ["greeting"], CLEAN).pcm) for seed in range(60)}
    for split in ("validation", "voices", "phrasings"):
        held = {audio_hash(visitor_utterance(split, seed, ["greeting"], CLEAN).pcm) for seed in range(20)}
        assert len(held) > 5
        assert not trained & held


@needs_recordings
@pytest.mark.slow
def test_no_training_recording_is_a_held_out_one_in_another_encoding() -> None:
    """The same take encoded twice has other bytes, so waveforms are compared: normalised cross-correlation."""
    training = [recordings.prompt(name).pcm for name in recordings.training_prompts()]
    assert len(training) > 400
    # Held-out prompts are short, and so would be their copies.
    training = [pcm for pcm in training if pcm.size < 2 * SAMPLE_RATE]
    size = 1 << 16
    spectra = [np.fft.rfft(pcm / np.linalg.norm(pcm), size) for pcm in training]
    for held in recordings.HELD_OUT_PROMPTS:
        pcm = recordings.prompt(held.name).pcm
        own = np.conj(np.fft.rfft(pcm / np.linalg.norm(pcm), size))
        assert np.abs(np.fft.irfft(own * np.conj(own), size)).max() > 0.99  # the measure itself finds a copy
        assert max(float(np.abs(np.fft.irfft(s * own, size)).max()) for s in spectra) < 0.9, held.name


# Utterances


@needs_voices
@pytest.mark.parametrize("split", ["train", "voices"])
def test_an_utterance_is_that_of_its_seed(split: Literal["train", "voices"]) -> None:
    one, same, other = (visitor_utterance(split, seed) for seed in (5, 5, 6))
    assert np.array_equal(one.pcm, same.pcm)
    assert not np.array_equal(one.pcm, other.pcm)
    assert one.pcm.dtype == np.float32
    assert np.abs(one.pcm).max() <= 1.0
    assert 0 <= one.speech_start < one.speech_end <= one.pcm.size
    assert one.text in INTENTS[one.intent].phrasings


@needs_voices
def test_utterances_keep_to_the_intents_asked_for() -> None:
    said = {visitor_utterance("train", seed, FIRST_INTENTS, CLEAN).intent for seed in range(30)}
    assert said == set(FIRST_INTENTS)


@needs_recordings
def test_real_recordings_take_turns() -> None:
    count = len(recordings.HELD_OUT_PROMPTS)
    heard = [visitor_utterance("real", seed, conditions=CLEAN) for seed in range(count)]
    assert len({audio_hash(one.pcm) for one in heard}) == count
    assert {one.intent for one in heard} <= set(INTENTS)
    assert all(0.2 < one.pcm.size / SAMPLE_RATE < 3 for one in heard)


@needs_voices
def test_phrases_can_be_asked_for_by_their_length() -> None:
    said = [visitor_utterance("train", seed, WORD_INTENTS, CLEAN, most_words=1).text for seed in range(20)]
    assert all(" " not in text for text in said)
    assert len(set(said)) > 5
    with pytest.raises(InputError, match="nothing to choose from"):
        visitor_utterance("train", 0, ["toilets"], CLEAN, most_words=1)


@needs_voices
@pytest.mark.parametrize("sound", SOUNDS)
def test_a_background_is_as_loud_as_asked(sound: Sound) -> None:
    heard = background("train", 7, 2 * SAMPLE_RATE, sound, -40.0)
    assert heard.shape == (2 * SAMPLE_RATE,)
    level = np.square(heard, dtype=np.float64).mean()
    assert level == 0.0 if sound == "silence" else 10 * np.log10(level) == pytest.approx(-40.0, abs=0.3)


def test_a_split_that_does_not_exist_is_named() -> None:
    with pytest.raises(InputError, match=HEARD[-1]):
        visitor_utterance("test", 0)  # type: ignore[arg-type]


@needs_joe
def test_the_guide_says_every_word_in_order_and_behaviour_takes_no_time() -> None:
    text = "(waves) Hello! I am Joe. (smiles)"
    said = guide_utterance(text)
    assert [word.text for word in said.words] == text.split()
    waves, hello, *_, smiles = said.words
    assert waves.start == waves.end == hello.start
    assert smiles.start == smiles.end == said.speech_end
    starts = [word.start for word in said.words]
    assert starts == sorted(starts)
    assert np.array_equal(said.pcm, guide_utterance(text).pcm)


@needs_joe
@pytest.mark.parametrize("intent", ["greeting", "opening", "toilets", "information", "no"])
def test_the_guides_words_are_where_the_sound_is(intent: str) -> None:
    said = guide_utterance(expected_reply(intent, World()))
    spans = [(word.start, word.end) for word in said.words if not word.text.startswith("(")]
    assert len(spans) == len(spoken(said.text).split())
    assert abs(spans[0][0] - said.speech_start) < 0.05 * SAMPLE_RATE
    assert abs(spans[-1][1] - said.speech_end) < 0.12 * SAMPLE_RATE
    power = np.square(said.pcm, dtype=np.float64)
    inside = sum(power[start:end].sum() for start, end in spans)
    assert inside / power.sum() > 0.95
    assert all(end > start for start, end in spans)


@needs_joe
def test_the_guide_cannot_say_what_has_no_words() -> None:
    with pytest.raises(InputError, match="no words"):
        guide_utterance("(nods)")


# Tools that are missing, and the judge


def test_a_missing_tool_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingExtra, match=r"flite(.|\n)*python -m samples\.kiosk\.tools"):
        synthesize(Recipe("flite", "slt", "hello."))


def test_a_missing_judge_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(judge, "JUDGE_PYTHON", tmp_path / "python")
    with pytest.raises(MissingExtra, match=r"samples\.kiosk\.tools"):
        judge.heard([np.zeros(1600, np.float32)])


@pytest.mark.parametrize(
    ("told", "got", "errors"),
    [
        ("We are open from nine to six.", "we're open from 9 to 6", 0),
        ("The exit is straight ahead.", "The exit straight ahead", 1),
        ("Goodbye!", "Good bye", 2),
        ("Hello! I am Joe.", "", 4),
        ("Yes.", "Yes, yes.", 1),
    ],
)
def test_word_errors_are_counted(told: str, got: str, errors: int) -> None:
    assert judge.word_errors(told, got)[0] == errors


@needs_joe
@needs_judge
@pytest.mark.slow
def test_whisper_understands_the_guide() -> None:
    texts = [spoken(expected_reply(intent, World())) for intent in ("greeting", "opening", "exit", "thanks")]
    heard = judge.heard([np.pad(guide_utterance(text).pcm, 4000) for text in texts])
    assert judge.word_error_rate(texts, heard) <= 0.1, json.dumps(dict(zip(texts, heard, strict=True)))
