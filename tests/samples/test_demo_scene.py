"""The demo plays what is shipped: the guide's weights, checked, or random ones; and its clip is as described."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from samples.demo.scene import MEDIA, Transcript, scene
from samples.kiosk import tools
from samples.kiosk.data.speech.intents import WORLDS
from samples.kiosk.data.speech.voices import installed

from wanedge_runtimes.errors import InputError

CLIP = MEDIA / "kiosk-visitor.mp4"


def weights(folder: Path, told: str | None) -> Path:
    path = folder / "kiosk-tiny.safetensors"
    path.write_bytes(b"weights")
    if told is not None:
        path.with_suffix(".json").write_text(told)
    return path


def test_without_weights_the_scene_is_random_and_says_so(tmp_path):
    shown = scene(tmp_path / "kiosk-tiny.safetensors")
    assert (shown.model, shown.weights, shown.clip.name) == ("random", None, "visitor.mp4")


def test_shipped_weights_are_streamed_with_their_own_clip_and_world(tmp_path):
    sha256 = hashlib.sha256(b"weights").hexdigest()
    shown = scene(weights(tmp_path, json.dumps({"sha256": sha256, "model": "tiny"})))
    assert (shown.model, shown.sha256, shown.clip.name) == ("kiosk-tiny", sha256, "kiosk-visitor.mp4")
    assert shown.world in {world.text for world in WORLDS if world.held_out}


@pytest.mark.parametrize("told", [None, "{", "[]", "{}", json.dumps({"sha256": "0" * 64})])
def test_weights_that_are_not_the_shipped_ones_are_no_silent_fallback(tmp_path, told):
    with pytest.raises(InputError, match=r"kiosk-tiny\.(json has no SHA-256|safetensors is damaged)") as caught:
        scene(weights(tmp_path, told))
    assert "git checkout" in caught.value.hint


def test_the_kiosks_clip_is_small_and_its_words_are_heard_when_the_transcript_says():
    av = pytest.importorskip("av", reason="needs the extra media")
    transcript = Transcript.read(CLIP.with_suffix(".json"))
    assert CLIP.stat().st_size < 1_000_000
    with av.open(CLIP) as clip:
        assert (clip.streams.video[0].height, clip.streams.video[0].width) == (192, 288)
        rate = clip.streams.audio[0].rate
        sound = np.concatenate([frame.to_ndarray() for frame in clip.decode(audio=0)], axis=1).mean(axis=0)
    assert sound.size / rate == pytest.approx(transcript.seconds, abs=0.1)
    assert len(transcript.said) == 5
    for said in transcript.said:
        start, end = int(said.start_s * rate), int(said.end_s * rate)
        before = sound[start - int(0.4 * rate) : start - int(0.05 * rate)]
        assert np.sqrt(np.mean(sound[start:end] ** 2)) > 20 * np.sqrt(np.mean(before**2)), said.words
    assert "kiosk-visitor.mp4" in (MEDIA / "ATTRIBUTION.md").read_text("utf-8")


@pytest.mark.skipif(
    not (installed("flite") and installed("espeak-ng") and tools.JOE.exists()),
    reason="the voices are not installed; install them with: python -m samples.kiosk.tools",
)
def test_the_committed_transcript_is_the_scripts_and_one_answer_is_cut_into():
    from samples.kiosk.data.make_kiosk_clip import clip_script, transcript

    script = clip_script()
    assert json.loads(CLIP.with_suffix(".json").read_text("utf-8")) == transcript(script)
    assert script.replies[0].cause == "appears"
    assert sum(reply.interrupted_at is not None for reply in script.replies) == 1
    assert script.truth.leaves
    assert script.truth.leaves[0] > max(reply.end_unit for reply in script.replies) * 4
