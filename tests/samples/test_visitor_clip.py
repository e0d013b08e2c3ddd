"""The shipped clip is what its transcript and its attribution say."""

from pathlib import Path

import numpy as np
import pytest
from samples.demo.scene import Transcript

av = pytest.importorskip("av", reason="needs the extra media")
MEDIA = Path(__file__).parents[2] / "samples" / "media"


@pytest.fixture(scope="module")
def transcript() -> Transcript:
    return Transcript.read(MEDIA / "visitor.json")


@pytest.fixture(scope="module")
def sound() -> tuple[np.ndarray, int]:
    with av.open(MEDIA / "visitor.mp4") as clip:
        rate = clip.streams.audio[0].rate
        return np.concatenate([f.to_ndarray() for f in clip.decode(audio=0)], axis=1).mean(axis=0), rate


def level_db(samples: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(samples**2)) + 1e-9))


def test_every_sentence_is_heard_when_the_transcript_says(transcript, sound):
    samples, rate = sound
    for said in transcript.said:
        start, end = int(said.start_s * rate), int(said.end_s * rate)
        before = samples[start - int(0.4 * rate) : start - int(0.05 * rate)]
        assert level_db(samples[start:end]) > level_db(before) + 15, said.words


def test_the_clip_is_twenty_seconds_of_moving_picture(transcript, sound):
    with av.open(MEDIA / "visitor.mp4") as clip:
        frames = [f.to_ndarray(format="rgb24") for f in clip.decode(video=0)]
        assert clip.streams.video[0].average_rate == 25
    assert len(frames) == 25 * transcript.seconds
    assert frames[0].shape == (192, 320, 3)
    assert len(sound[0]) / sound[1] == pytest.approx(transcript.seconds, abs=0.05)
    apart = [np.abs(frames[i].astype(int) - frames[i + 25]).mean() for i in range(0, len(frames) - 25, 25)]
    assert min(apart) > 1  # of 255: a person never sits quite still for a second


def test_the_clip_is_small_and_names_its_authors_and_licence():
    assert (MEDIA / "visitor.mp4").stat().st_size < 1_500_000
    attribution = (MEDIA / "ATTRIBUTION.md").read_text(encoding="utf-8")
    with av.open(MEDIA / "visitor.mp4") as clip:
        inside = " ".join(clip.metadata.values())
    for author in ("Joao Eriberto Mota Filho", "Allison Smith"):
        assert author in attribution
        assert author in inside
    assert "Creative Commons Attribution-ShareAlike 4.0 International" in attribution
    assert "CC BY-SA 4.0" in inside
