"""Measure the speech data: how fast it is made, how much there is, how well it is understood, where the words are.

    python -m samples.kiosk.data.speech.measure           # about three minutes; writes out/kiosk/speech.json

The figures in docs/kiosk-data.md come from here.
"""

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from rich.progress import track

from samples.kiosk.data.speech import joe, judge
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Clip, Recipe, audio_hash
from samples.kiosk.data.speech.intents import INTENTS, WORLDS, expected_reply, spoken
from samples.kiosk.data.speech.recordings import HELD_OUT_PROMPTS, prompt, training_prompts
from samples.kiosk.data.speech.voices import HELD_OUT_VOICES, SPLITS, TRAINING_VOICES, Voice, recipes, synthesize
from samples.kiosk.tools import OUT

SEED: Final = 0
PHRASES_PER_VOICE: Final = 8
GAP_S: Final = 0.6  # between phrases that the judge hears in one go


def main() -> None:
    """Write out/kiosk/speech.json and print it."""
    figures = {"recipes": _counts(), "voices": _voices(), "guide": _guide(), "recordings": _recordings()}
    path = OUT / "speech.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


def _counts() -> dict[str, int]:
    return {split: sum(len(recipes(split, intent)) for intent in INTENTS) for split in SPLITS}


def _voices() -> dict[str, dict[str, float]]:
    """For each voice: real-time factor of making it, seconds of a phrase, level, and word error rate."""
    rng = np.random.default_rng(SEED)
    texts = [text for intent in INTENTS.values() for text in intent.phrasings]
    said: dict[str, list[str]] = {}
    clips: dict[str, list[Clip]] = {}
    figures: dict[str, dict[str, float]] = defaultdict(dict)
    for voice in track((*TRAINING_VOICES, *HELD_OUT_VOICES), "voices"):
        name = f"{voice.tool} {voice.name}"
        said[name] = [str(text) for text in rng.choice(texts, PHRASES_PER_VOICE, replace=False)]
        started = time.perf_counter()
        clips[name] = [synthesize(_any_recipe(rng, voice, text)) for text in said[name]]
        spent = time.perf_counter() - started
        seconds = sum(clip.seconds for clip in clips[name])
        figures[name] = {"seconds_per_second": round(seconds / spent, 1), **_levels(clips[name])}
    gap = np.zeros(round(GAP_S * SAMPLE_RATE), np.float32)
    joined = [np.concatenate([part for clip in group for part in (clip.pcm, gap)]) for group in clips.values()]
    for name, text in zip(clips, judge.heard(joined), strict=True):
        figures[name]["word_error_rate"] = round(judge.word_error_rate([" ".join(said[name])], [text]), 3)
    return figures


def _any_recipe(rng: np.random.Generator, voice: Voice, text: str) -> Recipe:
    choices = voice.recipes(text)
    return choices[int(rng.integers(len(choices)))]


def _levels(clips: Sequence[Clip]) -> dict[str, float]:
    speech = np.concatenate([clip.pcm[clip.speech_start : clip.speech_end] for clip in clips])
    spectrum = np.abs(np.fft.rfft(speech)) ** 2
    return {
        "median_s": round(float(np.median([clip.seconds for clip in clips])), 2),
        "rms_dbfs": round(10 * float(np.log10(np.square(speech, dtype=np.float64).mean())), 1),
        "above_4khz_db": round(10 * float(np.log10(spectrum[spectrum.size // 2 :].sum() / spectrum.sum())), 1),
    }


def _guide() -> dict[str, Any]:
    """Every reply that the guide ever gives, in every tempo."""
    texts = sorted({spoken(expected_reply(intent, world)) for intent in INTENTS for world in WORLDS})
    started = time.perf_counter()
    clips = {tempo: [joe.say(joe.joe(text, tempo)) for text in track(texts, "guide")] for tempo in joe.TEMPI}
    spent = time.perf_counter() - started
    utterances = [clip for group in clips.values() for clip in group]
    edge = round(0.25 * SAMPLE_RATE)
    heard = judge.heard([np.pad(clip.pcm, edge) for clip in clips[1.0]])
    return {
        "replies": len(texts),
        "utterances": len(utterances),
        "distinct": len({audio_hash(clip.pcm) for clip in utterances}),
        "seconds_per_second": round(sum(clip.seconds for clip in utterances) / spent, 1),
        "seconds": round(sum(clip.seconds for clip in utterances), 1),
        "longest_s": round(max(clip.seconds for clip in utterances), 2),
        "word_error_rate": round(judge.word_error_rate(texts, heard), 3),
        "misheard": [
            f"{expected} | {actual}"
            for expected, actual in zip(texts, heard, strict=True)
            if judge.word_errors(expected, actual)[0]
        ],
        "words": _word_timing(utterances),
    }


def _word_timing(clips: Sequence[Clip]) -> dict[str, float]:
    """Agreement of the words' spans with the sound."""
    inside, total = 0.0, 0.0
    first, last, gaps = [], [], []
    for clip in clips:
        power = np.square(clip.pcm, dtype=np.float64)
        covered = np.zeros(power.size, bool)
        for start, end in clip.words:
            covered[start:end] = True
        inside, total = inside + power[covered].sum(), total + power.sum()
        first.append(abs(int(clip.words[0, 0]) - clip.speech_start) / SAMPLE_RATE * 1000)
        last.append(abs(int(clip.words[-1, 1]) - clip.speech_end) / SAMPLE_RATE * 1000)
        longest = int(np.argmax(clip.words[1:, 0] - clip.words[:-1, 1]))
        hole = power[clip.words[longest, 1] : clip.words[longest + 1, 0]]
        if hole.size > SAMPLE_RATE // 10:
            gaps.append(10 * np.log10(power[covered].mean() / max(hole.mean(), np.finfo(np.float64).tiny)))
    return {
        "energy_inside": round(inside / total, 4),
        "first_word_off_ms_p95": round(float(np.percentile(first, 95)), 1),
        "last_word_off_ms_p95": round(float(np.percentile(last, 95)), 1),
        "longest_gap_softer_db_median": round(float(np.median(gaps)), 1),
        "gaps": len(gaps),
    }


def _recordings() -> dict[str, Any]:
    clips = [prompt(item.name) for item in HELD_OUT_PROMPTS]
    texts = [item.text for item in HELD_OUT_PROMPTS]
    edge = round(0.25 * SAMPLE_RATE)
    heard = judge.heard([np.pad(clip.pcm, edge) for clip in clips])
    return {
        "held_out": len(clips),
        "held_out_word_error_rate": round(judge.word_error_rate(texts, heard), 3),
        "training": len(training_prompts()),
        "training_minutes": round(sum(prompt(name).seconds for name in training_prompts()) / 60, 1),
    }


if __name__ == "__main__":
    main()
