"""Sounds of a lobby that are not addressed to the guide: noise, babble of voices, music. All from a seed."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples
from wanedge_runtimes.errors import InputError

Rng = np.random.Generator

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
