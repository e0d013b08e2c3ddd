"""Fidelity of face and voice: the bundle's codecs on unknown lines and clips, and drift over a long conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from samples.kiosk.data.speech.clip import Samples
from samples.kiosk.evaluation.conversations import SPEAK, Record, sounds
from samples.kiosk.evaluation.loop import Frames
from samples.kiosk.evaluation.measures import Measures
from samples.kiosk.training.guide_media import HELD_OUT_CLIPS, guide_clip, guide_voice, moved_forward, stoi
from wanedge.bundle import Bundle
from wanedge.config import FRAMES_PER_UNIT, UNIT_MS, AudioConfig
from wanedge_calibration.results import Measure, unmeasured
from wanedge_calibration.statistics import bootstrap, resampled, slope
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Array, Executable, RuntimeOptions

PARTS: Final = ("audio_vae_encoder", "audio_decoder", "video_vae_encoder", "video_decoder")
STOI_THRESHOLD, PSNR_THRESHOLD = ">= 0.90", ">= 30"
Recode = Callable[[Array], Array]


def codecs(bundle: Bundle, variant: str, runtime: str, lines: int | None, advance: Callable[[], None]) -> Measures:
    """STOI of the audio VAE and PSNR of the video VAE, through the bundle's graphs. lines: at most so many; None: all.

    advance is called after each clip. A bundle without encoders gives unmeasured figures.
    """
    chosen = bundle.variant(variant)
    if not set(PARTS) <= set(chosen.graphs):
        return {
            "audio_vae_stoi": unmeasured("STOI", STOI_THRESHOLD),
            "video_vae_psnr_db": unmeasured("dB", PSNR_THRESHOLD),
        }
    engine = open_runtime(runtime, RuntimeOptions(threads=1))
    graphs = {name: engine.load(*bundle.graph(name, chosen)) for name in PARTS}
    scores, errors = [], []
    for pcm in guide_voice().held_out[:lines]:
        scores.append(stoi(pcm, recoded_speech(graphs, pcm, bundle.model.audio)))
        advance()
    for number in range(HELD_OUT_CLIPS):
        clip = guide_clip(number)
        errors.append(float(np.square(recoded_frames(graphs, clip).astype(np.float32) - clip).mean()))
        advance()
    noise = np.array(errors)
    psnr = resampled(lambda i: float(10 * np.log10(255**2 / max(noise[i].mean(), 1e-9))), noise.size)
    return {
        "audio_vae_stoi": bootstrap(lambda values: float(np.mean(values)), scores).measure("STOI", STOI_THRESHOLD),
        "video_vae_psnr_db": psnr.measure("dB", PSNR_THRESHOLD),
    }


def clip_count(lines: int | None) -> int:
    """The number of times that `codecs` advances."""
    return len(guide_voice().held_out[:lines]) + HELD_OUT_CLIPS


def recoded_speech(graphs: dict[str, Executable], pcm: Samples, config: AudioConfig) -> Samples:
    """Reconstruct `pcm` [n] from its latents' means, in time with it."""
    units = moved_forward(pcm, config).reshape(-1, config.samples)
    encode = _stream(graphs["audio_vae_encoder"], "pcm", "mean")
    decode = _stream(graphs["audio_decoder"], "latents", "pcm")
    return np.concatenate([decode(encode(unit[None]))[0] for unit in units])[: pcm.size]


def recoded_frames(graphs: dict[str, Executable], frames: Frames) -> Frames:
    """Reconstruct `frames` [4K, H, W, 3] from their latents' means."""
    encode = _stream(graphs["video_vae_encoder"], "frames", "mean")
    decode = _stream(graphs["video_decoder"], "latents", "frames")
    units = frames.reshape(-1, FRAMES_PER_UNIT, *frames.shape[1:])
    return np.concatenate([decode(encode(unit[None]))[0] for unit in units])


def _stream(graph: Executable, input_name: str, output_name: str) -> Recode:
    """The graph with a state of its own, as a function of one unit."""
    state = graph.new_state()

    def recode(unit: Array) -> Array:
        return graph.run({input_name: unit}, state)[output_name]

    return recode


BLOCKS: Final = 20  # of a conversation: 30 s of ten minutes, long enough to be independent of each other
FEWEST: Final = 6  # blocks with a value, below which no slope is given
NO_TREND: Final = "== 0"


@dataclass(frozen=True)
class Curve:
    """Means of blocks. minutes: the blocks' middles. what: for people. unit: of the values."""

    name: str
    what: str
    unit: str
    minutes: tuple[float, ...]
    values: tuple[float, ...]


def curves(record: Record) -> list[Curve]:
    """The four curves of a long conversation; blocks without a value are left out."""
    speech = [
        level if state == SPEAK and sounds(level) else None
        for level, state in zip(record.level_dbfs, record.states, strict=True)
    ]
    voice = [
        bright if state == SPEAK else None for bright, state in zip(record.brightness_db, record.states, strict=True)
    ]
    hush = [
        level if state != SPEAK and not sounds(level) else None
        for level, state in zip(record.level_dbfs, record.states, strict=True)
    ]
    return [
        _curve("still_psnr", "Still pictures against the first minute's", "dB", record.still_psnr_db),
        _curve("speech_level", "Level of the guide's speech", "dB", speech),
        _curve("speech_brightness", "Power above 2 kHz of the guide's speech", "dB", voice),
        _curve("silence_level", "Level of the guide's silence", "dB", hush),
    ]


def drift(record: Record | None) -> Measures:
    """Each curve's slope a minute, and how many slopes have an interval without 0."""
    results: Measures = {}
    drawn = curves(record) if record is not None else []
    trends = []
    for curve in drawn:
        if len(curve.values) < FEWEST:
            results[f"drift_{curve.name}_per_min"] = unmeasured(f"{curve.unit}/min")
            continue
        fitted = slope(curve.minutes, curve.values).measure(f"{curve.unit}/min")
        results[f"drift_{curve.name}_per_min"] = fitted
        low, high = fitted.low or 0.0, fitted.high or 0.0
        trends.append(not low <= 0 <= high)
    whole = len(trends) == len(drawn) > 0  # a guide that never speaks or never rests proves nothing
    results["drift_curves_with_a_trend"] = (
        Measure(value=sum(trends), unit="curves", n=len(trends), threshold=NO_TREND)
        if whole
        else unmeasured("curves", NO_TREND)
    )
    return results


def _curve(name: str, what: str, unit: str, by_unit: Sequence[float | None]) -> Curve:
    minutes, values = [], []
    for block in np.array_split(np.arange(len(by_unit)), BLOCKS):
        there = [value for k in block if (value := by_unit[k]) is not None]
        if there:
            minutes.append(float(block.mean() + 0.5) * UNIT_MS / 60_000)
            values.append(float(np.mean(there)))
    return Curve(name, what, unit, tuple(minutes), tuple(values))
