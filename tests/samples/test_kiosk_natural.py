"""Claims about the natural voices and the microphones: only training hears them, and they change what they should."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples.kiosk import tools
from samples.kiosk.data.speech import kokoro
from samples.kiosk.data.speech.acoustics import through_microphone, white
from samples.kiosk.data.speech.clip import SAMPLE_RATE
from samples.kiosk.data.speech.intents import INTENTS
from samples.kiosk.data.speech.kokoro import EVERYBODY, SHORT_PHRASES_ONLY, VOICES, natural_recipes, say_naturally
from samples.kiosk.data.speech.utterances import CLEAN, visitor_utterance
from samples.kiosk.data.speech.voices import SPLITS, installed, recipes

from wanedge_runtimes.errors import MissingExtra

needs_kokoro = pytest.mark.skipif(
    not (tools.KOKORO_VOICES.exists() and installed("espeak-ng")),
    reason="Kokoro is not installed; install it with: python -m samples.kiosk.tools --natural",
)


def test_natural_voices_say_every_training_phrase_and_no_held_out_one() -> None:
    for name, intent in INTENTS.items():
        said = natural_recipes(name)
        assert {recipe.text for recipe in said} == set(intent.phrasings)
        assert not {recipe.text for recipe in said} & set(intent.held_out)
    assert {recipe.voice for name in INTENTS for recipe in natural_recipes(name)} == {*VOICES, *SHORT_PHRASES_ONLY}


def test_every_voice_says_a_word_alone_in_two_manners() -> None:
    five = [recipe for recipe in natural_recipes("counter five") if recipe.text == "five."]
    slow = [recipe for recipe in five if recipe.settings]
    assert {recipe.voice for recipe in slow} == set(EVERYBODY)
    assert len({recipe.fingerprint for recipe in five}) == len(five) > len(slow)


def test_no_natural_recipe_is_in_a_split() -> None:
    natural = {recipe.fingerprint for name in INTENTS for recipe in natural_recipes(name)}
    assert not natural & {r.fingerprint for split in SPLITS for name in INTENTS for r in recipes(split, name)}


def test_without_the_model_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kokoro, "KOKORO_VOCABULARY", tmp_path / "vocab.json")
    monkeypatch.setattr(kokoro, "called", lambda _command, _stdin: b"h\xc9\x99l\xcb\x88o\xca\x8a")
    with pytest.raises(MissingExtra) as error:
        say_naturally(natural_recipes("yes")[0])
    assert "samples.kiosk.tools --natural" in str(error.value.hint)


@needs_kokoro
def test_a_natural_voice_says_its_phrase() -> None:
    said = visitor_utterance("natural", 3, conditions=CLEAN)
    again = visitor_utterance("natural", 3, conditions=CLEAN)
    assert said.voice.startswith("kokoro ")
    assert np.array_equal(said.pcm, again.pcm)
    assert 0.15 < (said.speech_end - said.speech_start) / SAMPLE_RATE < 4


@pytest.mark.skipif(not installed("flite"), reason="flite is not installed; run: python -m samples.kiosk.tools")
def test_one_synthesiser_can_be_asked_for() -> None:
    said = {visitor_utterance("train", seed, conditions=CLEAN, tool="flite").voice.split()[0] for seed in range(8)}
    assert said == {"flite"}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(2, SAMPLE_RATE))
def test_a_microphone_keeps_length_time_and_rough_level(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    pcm = white(rng, count)
    heard = through_microphone(rng, pcm)
    assert heard.shape == pcm.shape
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() <= 10 ** (7.0 / 20) * np.abs(np.fft.rfft(pcm)).sum()  # no frequency gains over 7 dB
    if count > SAMPLE_RATE // 4:
        assert -12 < 10 * np.log10(np.square(heard).mean() / np.square(pcm).mean()) < 8


def test_some_microphones_hear_no_high_frequencies() -> None:
    def high(seed: int) -> float:
        rng = np.random.default_rng(seed)
        spectrum = np.abs(np.fft.rfft(through_microphone(rng, white(rng, SAMPLE_RATE))))
        return float(spectrum[7500:].mean() / spectrum[500:2000].mean())

    dark = sum(high(seed) < 0.1 for seed in range(200))
    assert 10 < dark < 70
