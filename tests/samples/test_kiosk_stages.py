"""A minute of every stage on small networks: losses fall, and what it is about becomes measurable."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples.kiosk.data.pictures.animation import Scene, animate
from samples.kiosk.data.pictures.guide import draw_guide
from samples.kiosk.data.speech.clip import Samples
from samples.kiosk.data.speech.utterances import Utterance
from samples.kiosk.training import audio_encoder, audio_vae, video_encoder, video_vae
from samples.kiosk.training.loop import Plan, Trainer

from tests.configs import mini
from wanedge.config import AudioConfig, VideoConfig

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def voices() -> "audio_vae.Voices":
    """Vowels of a kind: a few harmonics that come and go."""
    rng = np.random.default_rng(0)
    seconds = np.arange(16_000) / 16_000

    def vowel() -> Samples:
        pitch = rng.uniform(90, 200)
        wave = sum(np.sin(2 * np.pi * k * pitch * seconds) / k for k in range(1, 8))
        return (0.1 * wave * np.sin(2 * np.pi * 3 * seconds) ** 2).astype(np.float32)

    clips = [vowel() for _ in range(8)]
    return audio_vae.Voices(dict.fromkeys(audio_vae.SHARES, clips), [vowel()])


def halves(trainer: Trainer[Any], part: str) -> tuple[float, float]:
    """The mean of a loss over the first and over the last tenth of a run."""
    losses: list[float] = []
    original = trainer.stage.losses

    def kept(batch: Any) -> dict[str, Any]:
        parts = original(batch)
        losses.append(float(parts[part].detach()))
        return parts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.stage, "losses", kept)
        trainer.run(say=lambda _: None)
    tenth = max(1, len(losses) // 10)
    return float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:]))


def test_the_audio_vae_learns_to_repeat_what_it_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_vae, "load_voices", voices)
    stage = audio_vae.AudioVaeStage(AudioConfig(channels=32, blocks=2, latent=8))
    first, last = halves(Trainer(stage, Plan(steps=40, rate=3e-3), tmp_path, "audio"), "spectral")
    assert last < 0.75 * first


def test_the_video_vae_learns_the_guides_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [draw_guide(animate(Scene.idle(64), seed)) for seed in range(3)]
    monkeypatch.setattr(video_vae, "guide_clip", lambda number: clips[number % 3])
    stage = video_vae.VideoVaeStage(VideoConfig(height=96, width=160, channels=8, latent=8))
    trainer = Trainer(stage, Plan(steps=50, rate=3e-3, ema=0.8), tmp_path, "video")
    first, last = halves(trainer, "absolute")
    assert last < 0.7 * first


def test_the_eyes_learn_who_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_encoder, "HELD_OUT_CLIPS", 4)
    config = mini(user_video=VideoConfig(height=64, width=96, channels=8))
    stage = video_encoder.VideoEncoderStage(config)
    stage.clips = 12
    first, last = halves(Trainer(stage, Plan(steps=60, rate=3e-3), tmp_path, "video-encoder"), "present")
    assert last < 0.7 * first


def test_the_audio_encoder_learns_a_few_phrases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tones instead of phrases: what matters is that labels, masks and losses fit together."""
    monkeypatch.setattr(audio_encoder, "visitor_utterance", tone)
    monkeypatch.setattr(
        audio_encoder, "background", lambda _split, _seed, count, _sound, _dbfs: np.zeros(count, np.float32)
    )
    monkeypatch.setattr(audio_encoder, "BATCH", 6)
    audio = AudioConfig(channels=24, blocks=2, encoder_layers=1)
    stage = audio_encoder.AudioEncoderStage(mini(audio=audio))
    trainer = Trainer(stage, Plan(steps=60, rate=5e-3, ema=0.8), tmp_path, "audio-encoder")
    first, last = halves(trainer, "intent")
    assert last < 0.7 * first


def tone(_split: str, seed: int, **_: object) -> Utterance:
    high = seed % 2
    wave = 0.2 * np.sin(2 * np.pi * (300 + 900 * high) * np.arange(8000) / 16_000)
    text, intent = (("yes.", "yes"), ("no.", "no"))[high]
    return Utterance(wave.astype(np.float32), 16_000, intent, text, "tone", 0, 8000)
