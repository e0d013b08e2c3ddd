"""The bundle's own codecs on speech and pictures of the guide that were never trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from samples.kiosk.data.speech.clip import Samples
from samples.kiosk.evaluation.loop import Frames
from samples.kiosk.evaluation.measures import Measures
from samples.kiosk.training.guide_media import HELD_OUT_CLIPS, guide_clip, guide_voice, moved_forward, stoi
from wanedge.bundle import Bundle
from wanedge.config import FRAMES_PER_UNIT, AudioConfig
from wanedge_calibration.results import unmeasured
from wanedge_calibration.statistics import bootstrap, resampled
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Array, Executable, RuntimeOptions

PARTS: Final = ("audio_vae_encoder", "audio_decoder", "video_vae_encoder", "video_decoder")
STOI_BAR, PSNR_BAR = ">= 0.90", ">= 30"
Recode = Callable[[Array], Array]


def codecs(bundle: Bundle, variant: str, runtime: str, lines: int | None, advance: Callable[[], None]) -> Measures:
    """STOI of the audio VAE and PSNR of the video VAE, through the bundle's graphs. lines: at most so many; None: all.

    advance is called after each clip. A bundle without encoders gives unmeasured figures.
    """
    chosen = bundle.variant(variant)
    if not set(PARTS) <= set(chosen.graphs):
        return {"audio_vae_stoi": unmeasured("STOI", STOI_BAR), "video_vae_psnr_db": unmeasured("dB", PSNR_BAR)}
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
        "audio_vae_stoi": bootstrap(lambda values: float(np.mean(values)), scores).measure("STOI", STOI_BAR),
        "video_vae_psnr_db": psnr.measure("dB", PSNR_BAR),
    }


def clip_count(lines: int | None) -> int:
    """How often `codecs` advances."""
    return len(guide_voice().held_out[:lines]) + HELD_OUT_CLIPS


def recoded_speech(graphs: dict[str, Executable], pcm: Samples, config: AudioConfig) -> Samples:
    """What the decoder makes of the means of `pcm` [n], in time with it."""
    units = moved_forward(pcm, config).reshape(-1, config.samples)
    encode = _stream(graphs["audio_vae_encoder"], "pcm", "mean")
    decode = _stream(graphs["audio_decoder"], "latents", "pcm")
    return np.concatenate([decode(encode(unit[None]))[0] for unit in units])[: pcm.size]


def recoded_frames(graphs: dict[str, Executable], frames: Frames) -> Frames:
    """What the decoder makes of the means of `frames` [4K, H, W, 3]."""
    encode = _stream(graphs["video_vae_encoder"], "frames", "mean")
    decode = _stream(graphs["video_decoder"], "latents", "frames")
    units = frames.reshape(-1, FRAMES_PER_UNIT, *frames.shape[1:])
    return np.concatenate([decode(encode(unit[None]))[0] for unit in units])


def _stream(graph: Executable, taken: str, given: str) -> Recode:
    """The graph with a state of its own, as a function of one unit."""
    state = graph.new_state()

    def recode(unit: Array) -> Array:
        return graph.run({taken: unit}, state)[given]

    return recode
