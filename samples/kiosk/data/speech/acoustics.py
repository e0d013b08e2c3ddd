"""Acoustics between speaker and model: tempo and pitch, the room, the microphone, and the lobby's noise.

Pure functions; whatever is random comes from the generator that is passed in.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import soxr

from samples.kiosk.data.speech.clip import SAMPLE_RATE, Clip, Samples, Spans
from wanedge_runtimes.errors import InputError

Rng = np.random.Generator

_DIRECT_TO_REVERB_DB: Final = (0.0, 12.0)  # a visitor stands 0.5 to 2 m from the microphone
_REFLECTIONS: Final = 6
_FIRST_REFLECTION_S: Final = (0.002, 0.025)
_EQ_KNOTS_HZ: Final = (60.0, 150.0, 400.0, 1000.0, 2500.0, 5000.0, 8000.0)
_EQ_DB: Final = 7.0
_NARROW_SHARE: Final = 0.35  # telephones, Bluetooth
_NARROW_HZ: Final = (3000.0, 7000.0)
_NARROW_DB_AN_OCTAVE: Final = 60.0
_FINER: Final = 4  # times the rate at which a sliding voice is read off between samples
_SILENT_DB: Final = 60.0  # RT60: the time in which the reverberation falls by so much


def resampled(clip: Clip, factor: float) -> Clip:
    """The clip played `factor` times as fast: shorter and higher above 1, longer and lower below. 0.5 to 2."""
    if not 0.5 <= factor <= 2.0:
        raise InputError(f"a speed factor of {factor} is out of range", hint="choose 0.5 to 2")
    pcm = np.asarray(soxr.resample(clip.pcm, SAMPLE_RATE * factor, SAMPLE_RATE), np.float32)
    start, end = round(clip.speech_start / factor), round(clip.speech_end / factor)
    words = np.rint(clip.words / factor).astype(np.int64)
    return Clip(pcm, min(start, pcm.size), min(end, pcm.size), np.minimum(words, pcm.size))


def sliding(clip: Clip, first: float, last: float) -> Clip:
    """The clip played `first` times as fast at its beginning and `last` times at its end: a voice that falls.

    Speed and pitch change evenly from sample to sample. Both factors are 0.5 to 2.
    """
    if not (0.5 <= first <= 2.0 and 0.5 <= last <= 2.0):
        raise InputError(f"speed factors of {first} and {last} are out of range", hint="choose 0.5 to 2")
    places = np.arange(clip.pcm.size + 1)
    speed = np.linspace(first, last, clip.pcm.size)
    when = np.concatenate([[0.0], np.cumsum(1 / speed)])  # at which of the new samples each of the old ones comes
    read = np.interp(np.arange(round(when[-1])), when, places)
    fine = soxr.resample(clip.pcm, SAMPLE_RATE, _FINER * SAMPLE_RATE)
    pcm = np.interp(read * _FINER, np.arange(fine.size), fine).astype(np.float32)

    def moved(at: Spans) -> Spans:
        new: Spans = np.rint(np.interp(at, places, when)).astype(np.int64)
        return np.asarray(np.minimum(new, pcm.size), np.int64)

    start, end = moved(np.array([clip.speech_start, clip.speech_end])).tolist()
    return Clip(pcm, start, end, moved(clip.words))


def room(rng: Rng, rt60_s: float) -> Samples:
    """A room's impulse response: the direct sound at sample 0, a few reflections, an exponential tail. [rt60_s long].

    The direct sound has height 1 and no delay, so speech keeps its start.
    """
    if rt60_s <= 0:
        raise InputError(f"a reverberation time of {rt60_s} s is not a room", hint="choose 0.1 to 1.5 s")
    count = max(2, round(rt60_s * SAMPLE_RATE))
    seconds = np.arange(count) / SAMPLE_RATE
    tail = rng.standard_normal(count) * 10 ** (-_SILENT_DB / 20 * seconds / rt60_s)
    tail[: round(_FIRST_REFLECTION_S[0] * SAMPLE_RATE)] = 0.0
    for _ in range(_REFLECTIONS):
        at = round(rng.uniform(*_FIRST_REFLECTION_S) * SAMPLE_RATE)
        if at < count:
            tail[at] += rng.choice((-1.0, 1.0)) * rng.uniform(2.0, 6.0)
    energy = 10 ** (-rng.uniform(*_DIRECT_TO_REVERB_DB) / 10)
    # A tail that ends before its first reflection is a room without one.
    response = tail * np.sqrt(energy / max(float(np.square(tail).sum()), np.finfo(np.float64).tiny))
    response[0] = 1.0
    return np.asarray(response, np.float32)


def in_room(clip: Clip, response: Samples) -> Clip:
    """The clip as heard in a room; the room rings on after the speech, whose start and end stay where they were."""
    count = clip.pcm.size + response.size - 1
    size = 1 << (count - 1).bit_length()
    heard = np.fft.irfft(np.fft.rfft(clip.pcm, size) * np.fft.rfft(response, size), size)[:count]
    return replace(clip, pcm=heard.astype(np.float32))


def through_microphone(rng: Rng, pcm: Samples) -> Samples:
    """`pcm` [n] as another microphone and line give it: some frequencies stronger, and perhaps no high ones."""
    frequencies = np.fft.rfftfreq(pcm.size, 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequencies, _EQ_KNOTS_HZ[0]))
    gains_db = np.interp(octaves, np.log2(_EQ_KNOTS_HZ), rng.uniform(-_EQ_DB, _EQ_DB, len(_EQ_KNOTS_HZ)))
    if rng.random() < _NARROW_SHARE:
        beyond = np.maximum(0.0, octaves - np.log2(rng.uniform(*_NARROW_HZ)))
        gains_db -= _NARROW_DB_AN_OCTAVE * beyond
    shaped = np.fft.irfft(np.fft.rfft(pcm) * 10 ** (gains_db / 20), pcm.size)
    return np.asarray(shaped, np.float32)


def with_noise(clip: Clip, noise: Samples, snr_db: float) -> Clip:
    """The clip with `noise` [at least as long] added, `snr_db` below the level of its speech."""
    if noise.size < clip.pcm.size:
        raise InputError(
            f"{noise.size} samples of noise for a clip of {clip.pcm.size}", hint="make the noise as long as the clip"
        )
    scale = speech_rms(clip) * 10 ** (-snr_db / 20)
    return replace(clip, pcm=np.asarray(clip.pcm + scale * unit_rms(noise[: clip.pcm.size]), np.float32))


def at_level(clip: Clip, dbfs: float) -> Clip:
    """The clip with its speech at `dbfs` (RMS, decibels below full scale), and peaks cut off at full scale."""
    level = speech_rms(clip)
    if level == 0.0:
        raise InputError("a silent clip has no level to change", hint="pass a clip of speech")
    gain = 10 ** (dbfs / 20) / level
    return replace(clip, pcm=np.asarray(np.clip(clip.pcm * gain, -1.0, 1.0), np.float32))


def speech_rms(clip: Clip) -> float:
    """RMS of the part that is speech."""
    speech = clip.pcm[clip.speech_start : clip.speech_end]
    return float(np.sqrt(np.square(speech, dtype=np.float64).mean())) if speech.size else 0.0


_LOWEST_HZ: Final = 40.0  # nothing below, where microphones hear nothing
_TALKERS: Final = 5  # enough that no single one is understood
_A4_HZ: Final = 440.0
_SCALE: Final = (0, 2, 4, 7, 9)  # major pentatonic, in semitones: any two notes go together
_HARMONICS: Final = 5


def white(rng: Rng, count: int) -> Samples:
    """Noise [count] with the same power at every frequency, RMS 1."""
    return rng.standard_normal(count).astype(np.float32)


def pink(rng: Rng, count: int) -> Samples:
    """Noise [count] that falls 3 dB an octave, as air conditioning and traffic do; RMS 1."""
    frequencies = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count)) / np.sqrt(np.maximum(frequencies, _LOWEST_HZ))
    spectrum[frequencies < _LOWEST_HZ] = 0.0
    return unit_rms(np.fft.irfft(spectrum, count).astype(np.float32))


def babble(rng: Rng, count: int, voices: Sequence[Samples]) -> Samples:
    """Voices talking across each other, [count], RMS 1. voices: clips [n] of any speech. InputError without any."""
    if not voices:
        raise InputError("babble needs at least one voice", hint="pass a few clips of speech")
    mixed = np.zeros(count, np.float32)
    for _ in range(_TALKERS):
        at = -int(rng.integers(0, SAMPLE_RATE))
        while at < count:
            clip = unit_rms(voices[int(rng.integers(len(voices)))])
            first, last = max(at, 0), min(at + clip.size, count)
            if last > first:
                mixed[first:last] += clip[first - at : last - at]
            at += clip.size + int(rng.integers(SAMPLE_RATE // 20, SAMPLE_RATE // 2))
    return unit_rms(mixed)


def music(rng: Rng, count: int) -> Samples:
    """A tune with a bass and a beat, [count], RMS 1: plucked notes of a pentatonic scale in a steady tempo."""
    beat = int(SAMPLE_RATE * 60 / rng.uniform(70, 140))  # samples
    root = _A4_HZ * 2 ** (rng.integers(-9, 3) / 12)
    decay_s = rng.uniform(0.15, 0.6)
    brightness = rng.uniform(0.8, 1.8)  # how fast harmonics fall off
    drum = float(rng.uniform(0.0, 0.6))
    tune = np.zeros(count + 4 * beat, np.float32)
    for at in range(0, count, beat):
        degree = int(rng.integers(len(_SCALE) * 2))
        semitones = _SCALE[degree % len(_SCALE)] + 12 * (degree // len(_SCALE))
        _add(tune, at, _note(root * 2 ** (semitones / 12), 2 * beat, decay_s, brightness))
        if (at // beat) % 2 == 0:
            _add(tune, at, 1.5 * _note(root / 4 * 2 ** (_SCALE[degree % 3] / 12), 2 * beat, 2 * decay_s, 2.0))
        hit = white(rng, beat // 4) * np.exp(-np.arange(beat // 4) / (0.02 * SAMPLE_RATE), dtype=np.float32)
        _add(tune, at, drum * hit)
    return unit_rms(tune[:count])


def unit_rms(pcm: Samples) -> Samples:
    """`pcm` scaled to RMS 1; silence stays silence."""
    level = float(np.sqrt(np.square(pcm, dtype=np.float64).mean())) if pcm.size else 0.0
    return pcm if level == 0.0 else np.asarray(pcm / level, np.float32)


def _note(frequency: float, count: int, decay_s: float, brightness: float) -> Samples:
    seconds = np.arange(count) / SAMPLE_RATE
    partials = [k for k in range(1, _HARMONICS + 1) if k * frequency < SAMPLE_RATE / 2]
    wave = sum((np.sin(2 * np.pi * k * frequency * seconds) / k**brightness for k in partials), np.zeros(count))
    attack = np.minimum(1.0, seconds / 0.005)
    return np.asarray(wave * attack * np.exp(-seconds / decay_s), np.float32)


def _add(into: Samples, at: int, sound: Samples) -> None:
    end = min(into.size, at + sound.size)
    into[at:end] += sound[: end - at]
