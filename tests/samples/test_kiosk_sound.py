"""Claims about the kiosk's sounds: clips and their cache, rooms, noise, level."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples.kiosk.data.speech.acoustics import (
    at_level,
    babble,
    in_room,
    music,
    pink,
    resampled,
    room,
    sliding,
    speech_rms,
    unit_rms,
    white,
    with_noise,
)
from samples.kiosk.data.speech.clip import (
    MARGIN,
    SAMPLE_RATE,
    Clip,
    ClipCache,
    Recipe,
    envelope,
    speech_bounds,
    trimmed,
)

from wanedge_runtimes.errors import InputError

seeds = st.integers(0, 2**32 - 1)


def tone(seconds: float = 0.5, before: float = 0.0, after: float = 0.0, hz: float = 440.0) -> np.ndarray:
    sound = 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)
    return np.pad(sound, (round(before * SAMPLE_RATE), round(after * SAMPLE_RATE))).astype(np.float32)


# Clips and their cache


def test_trimming_keeps_the_speech_and_tells_where_it_is() -> None:
    clip = trimmed(tone(0.5, before=0.3, after=0.2))
    assert clip.pcm.size == SAMPLE_RATE // 2 + 2 * MARGIN
    assert (clip.speech_start, clip.speech_end) == (MARGIN, MARGIN + SAMPLE_RATE // 2)


@given(st.floats(0.05, 1.0), st.floats(0.0, 0.5), st.floats(0.0, 0.5))
@settings(max_examples=40)
def test_speech_bounds_hold_the_speech_and_little_more(length: float, before: float, after: float) -> None:
    start, end = speech_bounds(tone(length, before, after))
    frame = SAMPLE_RATE // 100
    assert abs(start - before * SAMPLE_RATE) <= frame
    assert abs(end - (before + length) * SAMPLE_RATE) <= 2 * frame


@pytest.mark.parametrize("pcm", [np.zeros(0, np.float32), np.zeros(8000, np.float32)])
def test_silence_cannot_be_trimmed(pcm: np.ndarray) -> None:
    with pytest.raises(InputError, match="no speech"):
        trimmed(pcm)


def test_the_cache_makes_a_clip_once_and_gives_the_same_samples_first_and_later(tmp_path: Path) -> None:
    made: list[Recipe] = []

    def make(recipe: Recipe) -> Clip:
        made.append(recipe)
        return trimmed(tone(), np.array([[0, 100], [100, 7000]]))

    recipe = Recipe("flite", "slt", "hello.")
    first = ClipCache(tmp_path).get(recipe, make)
    later = ClipCache(tmp_path).get(recipe, make)
    assert made == [recipe]
    assert np.array_equal(first.pcm, later.pcm)
    assert np.array_equal(first.words, later.words)
    assert (first.speech_start, first.speech_end) == (later.speech_start, later.speech_end)


def test_a_synthesiser_that_fails_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    def fails(_recipe: Recipe) -> Clip:
        return trimmed(np.zeros(800, np.float32))

    with pytest.raises(InputError):
        ClipCache(tmp_path).get(Recipe("flite", "slt", "."), fails)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@given(st.lists(st.text(min_size=1, max_size=4), min_size=3, max_size=3), st.floats(0.5, 2.0), st.integers(0, 3))
def test_whatever_changes_in_a_recipe_changes_its_key(parts: list[str], value: float, which: int) -> None:
    tool, voice, text = parts
    changed = [tool, voice, text]
    setting = value
    if which < 3:
        changed[which] += "x"
    else:
        setting += 0.25
    one = Recipe(tool, voice, text, (("speed", value),))
    other = Recipe(changed[0], changed[1], changed[2], (("speed", setting),))
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == Recipe(tool, voice, text, (("speed", value),)).fingerprint


# Rooms, noise, level


@given(st.floats(0.7, 1.4))
@settings(max_examples=20, deadline=None)
def test_faster_is_shorter_and_higher(factor: float) -> None:
    clip = trimmed(tone(0.5, hz=400.0))
    changed = resampled(clip, factor)
    assert changed.pcm.size == pytest.approx(clip.pcm.size / factor, abs=2)
    spectrum = np.abs(np.fft.rfft(changed.pcm))
    assert np.argmax(spectrum) * SAMPLE_RATE / changed.pcm.size == pytest.approx(400 * factor, rel=0.02)
    assert 0 <= changed.speech_start < changed.speech_end <= changed.pcm.size


@given(st.floats(0.6, 1.6), st.floats(0.6, 1.6))
@settings(max_examples=20, deadline=None)
def test_a_voice_slides_from_one_pitch_to_another(first: float, last: float) -> None:
    clip = trimmed(tone(0.5, hz=400.0))
    changed = sliding(clip, first, last)
    # The mean of 1 / speed over the clip; for equal speeds it is 1 / speed.
    longer = 1 / first if abs(last - first) < 1e-6 else np.log(last / first) / (last - first)
    assert changed.pcm.size == pytest.approx(clip.pcm.size * longer, rel=0.001, abs=2)
    assert 0 <= changed.speech_start < changed.speech_end <= changed.pcm.size
    speech = changed.pcm[changed.speech_start : changed.speech_end]
    for piece, factor in ((speech[:1000], first), (speech[-1000:], last)):
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(piece.size), 16 * piece.size))
        peak = np.argmax(spectrum) * SAMPLE_RATE / (16 * piece.size)
        assert peak == pytest.approx(400 * factor, rel=0.12)  # within 60 ms it goes on sliding


def test_a_slide_that_is_none_changes_nothing() -> None:
    clip = trimmed(tone(0.5, hz=400.0))
    still = sliding(clip, 1.0, 1.0)
    assert np.abs(still.pcm[200:-200] - clip.pcm[200:-200]).max() < 0.01
    assert (still.speech_start, still.speech_end) == (clip.speech_start, clip.speech_end)


@given(seeds, st.floats(0.1, 0.8))
@settings(max_examples=20, deadline=None)
def test_a_room_decays_by_60_db_in_its_reverberation_time_and_does_not_delay(seed: int, rt60: float) -> None:
    response = room(np.random.default_rng(seed), rt60)
    assert response[0] == np.abs(response).max() == 1.0
    # The tail's level falls linearly in decibels; between a quarter and three quarters it loses half of 60 dB.
    quarter = response.size // 4
    early, late = (np.square(response[at : at + quarter // 2]).mean() for at in (quarter, 3 * quarter))
    assert 10 * np.log10(early / late) == pytest.approx(30.0, abs=4.0)


@given(seeds, st.floats(0.1, 0.5))
@settings(max_examples=20, deadline=None)
def test_speech_in_a_room_is_the_convolution_with_it(seed: int, rt60: float) -> None:
    clip = trimmed(tone(0.1))
    response = room(np.random.default_rng(seed), rt60)
    heard = in_room(clip, response)
    assert np.allclose(heard.pcm, np.convolve(clip.pcm, response), atol=1e-3)
    assert (heard.speech_start, heard.speech_end) == (clip.speech_start, clip.speech_end)


Maker = Callable[[np.random.Generator, int], np.ndarray]  # a sound of so many samples


@given(seeds, st.floats(-5.0, 40.0), st.sampled_from([white, pink, music]))
@settings(max_examples=30, deadline=None)
def test_noise_is_as_loud_as_asked(seed: int, snr_db: float, maker: Maker) -> None:
    clip = trimmed(tone(0.5))
    noise = maker(np.random.default_rng(seed), clip.pcm.size)
    added = with_noise(clip, noise, snr_db).pcm - clip.pcm
    measured = 20 * np.log10(speech_rms(clip) / np.sqrt(np.square(added, dtype=np.float64).mean()))
    assert measured == pytest.approx(snr_db, abs=0.1)


@given(st.floats(-50.0, -14.0))
@settings(max_examples=20, deadline=None)
def test_level_is_that_of_the_speech(dbfs: float) -> None:
    assert 20 * np.log10(speech_rms(at_level(trimmed(tone()), dbfs))) == pytest.approx(dbfs, abs=0.01)


def test_a_level_beyond_full_scale_is_cut_off_not_wrapped() -> None:
    assert np.abs(at_level(trimmed(tone()), 6.0).pcm).max() == 1.0


@pytest.mark.parametrize("maker", [white, pink, music])
def test_a_sound_is_that_of_its_seed(maker: Maker) -> None:
    one, same, other = (maker(np.random.default_rng(seed), SAMPLE_RATE) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.isfinite(one).all()
    assert np.square(one).mean() == pytest.approx(1.0, rel=0.05)


def test_pink_noise_falls_three_decibels_an_octave() -> None:
    spectrum = np.square(np.abs(np.fft.rfft(pink(np.random.default_rng(0), 16 * SAMPLE_RATE))))
    at = spectrum.size / (SAMPLE_RATE / 2)  # bins per Hz
    bands = [spectrum[round(f * at) : round(2 * f * at)].mean() for f in (250, 500, 1000, 2000)]
    assert 10 * np.log10(np.array(bands[:-1]) / bands[1:]) == pytest.approx([3.0] * 3, abs=0.5)


def test_babble_fills_the_time_and_needs_a_voice() -> None:
    rng = np.random.default_rng(1)
    mixed = babble(rng, 3 * SAMPLE_RATE, [tone(0.4, hz=300.0), tone(0.7, hz=500.0)])
    per_second = np.square(mixed.reshape(3, -1)).mean(axis=1)
    assert per_second.min() > 0.2
    with pytest.raises(InputError, match="voice"):
        babble(rng, SAMPLE_RATE, [])


def test_unit_rms_leaves_silence_silent() -> None:
    assert not unit_rms(np.zeros(100, np.float32)).any()


def test_the_envelope_is_closed_in_silence_and_open_in_speech() -> None:
    opening = envelope(tone(0.4, before=0.4, after=0.2))
    assert opening.shape == (25,)
    assert opening[:10].max() == 0.0
    assert opening[10:20].min() > 0.9
    assert opening[20:].max() == 0.0
