"""Streaming is guilty until it equals the offline run: the whole system, unit by unit against all at once."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.configs import mini
from tests.media import user_units
from wanedge.config import FlowConfig, ModelConfig
from wanedge.streaming import Streamer
from wanedge.streaming.performer import HostLatents
from wanedge.streaming.sampling import Sampler
from wanedge.text import Tokenizer
from wanedge.units import AgentUnit
from wanedge_export.model import ReferenceModel
from wanedge_export.model.offline import Clip, Offline, forward_clip
from wanedge_export.tokenizer import LOBBY
from wanedge_export.torch_runtime import torch_model
from wanedge_runtimes.runtime import Call
from wanedge_runtimes.wrapped import WrappedCall, WrappedExecutable

UNITS = 13  # the global ring of 5 units wraps twice, the local one six times
WORLD = "A bright lobby."
TYPED = {2: "Where is the lift?", 7: "Hi"}

# float32 sums in another order: eager attention over a ring of slots against one over the sequence.
TOLERANCE: dict[str, Any] = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(scope="module", params=[0, 1], ids=["thinker_lag=0", "thinker_lag=1"])
def system(request: pytest.FixtureRequest) -> tuple[ReferenceModel, Tokenizer]:
    # One Euler step from t = 1, so that latents = noise - velocity shows the velocity itself.
    config = mini(flow=FlowConfig(steps=1), thinker_lag=request.param)
    return ReferenceModel(config, seed=3), Tokenizer(LOBBY, config)


@pytest.fixture(scope="module")
def streamed(system: tuple[ReferenceModel, Tokenizer]) -> tuple[list[AgentUnit], torch.Tensor, torch.Tensor]:
    """Agent units and the clean latents that the performer made, [1, K * N, L] each."""
    model, tokenizer = system
    decoded: dict[str, list[torch.Tensor]] = {"audio_decoder": [], "video_decoder": []}
    streamed = torch_model(model, tokenizer)
    graphs = dict(streamed.graphs)
    for name, latents in decoded.items():
        graphs[name] = WrappedExecutable(graphs[name], partial(_reads, latents))
    streamer = Streamer(replace(streamed, graphs=graphs), WORLD, seed=5)
    agents = [streamer.respond(user) for user in user_units(model.config, UNITS, text=TYPED)]
    return agents, torch.cat(decoded["audio_decoder"], dim=1), torch.cat(decoded["video_decoder"], dim=1)


def _reads(to: list[torch.Tensor], call: Call, *_: object) -> "_Reads":
    return _Reads(call, to)


class _Reads(WrappedCall):
    """A decoder that keeps the latents it was given."""

    def __init__(self, call: Call, to: list[torch.Tensor]) -> None:
        super().__init__(call)
        self._to = to

    def run(self) -> None:
        self._to.append(torch.from_numpy(self.inputs["latents"].copy()))
        self.call.run()


def clip_of(
    model: ReferenceModel, tokenizer: Tokenizer, streamed: tuple[list[AgentUnit], torch.Tensor, torch.Tensor]
) -> Clip:
    config = model.config
    agents, audio, video = streamed
    users = list(user_units(config, UNITS, text=TYPED))
    noise = [HostLatents.zeros(config) for _ in range(UNITS)]
    for unit, latents in enumerate(noise):
        Sampler(seed=5).noise(unit, out=latents.flat)
    state_ids = {name: token for token, name in tokenizer.states.items()}
    return Clip(
        world=torch.tensor([tokenizer.encode_world(WORLD, config.prefill)]),
        user_text=torch.tensor([typed_slots(config, tokenizer)]),
        pcm=torch.from_numpy(np.concatenate([u.audio for u in users])[None]),
        frames=torch.from_numpy(np.concatenate([u.frames for u in users])[None]),
        thoughts=torch.tensor([[i for a in agents for i in (state_ids[a.state], *a.tokens)]]),
        audio=audio,
        video=video,
        noisy_audio=torch.from_numpy(np.concatenate([n.audio for n in noise], axis=1)),
        noisy_video=torch.from_numpy(np.concatenate([n.video for n in noise], axis=1)),
        t=torch.ones(UNITS),
    )


def typed_slots(config: ModelConfig, tokenizer: Tokenizer) -> list[int]:
    """User text ids of all units: typed tokens wait until slots are free."""
    waiting: list[int] = []
    slots: list[int] = []
    for unit in range(UNITS):
        waiting += tokenizer.encode(TYPED.get(unit, ""))
        taken, waiting = waiting[: config.text.user_slots], waiting[config.text.user_slots :]
        slots += taken + [tokenizer.pad] * (config.text.user_slots - len(taken))
    return slots


@pytest.fixture(scope="module")
def offline(system, streamed) -> Offline:
    model, tokenizer = system
    with torch.no_grad():
        return forward_clip(model, clip_of(model, tokenizer, streamed))


def test_state_and_text_tokens_are_those_that_the_offline_logits_choose(system, streamed, offline) -> None:
    _, tokenizer = system
    for unit, agent in enumerate(streamed[0]):
        state = tokenizer.state_choices[offline.logits[unit, 0].numpy()[tokenizer.state_choices].argmax()]
        assert tokenizer.states[int(state)] == agent.state
        for number, token in enumerate(agent.tokens):
            logits = offline.logits[unit, 1 + number].numpy()[tokenizer.text_choices]
            assert int(tokenizer.text_choices[logits.argmax()]) == token


def test_latents_are_noise_minus_the_offline_velocity(system, streamed, offline) -> None:
    model, tokenizer = system
    clip = clip_of(model, tokenizer, streamed)
    audio = clip.noisy_audio - offline.audio_velocity.reshape(clip.noisy_audio.shape)
    video = clip.noisy_video - offline.video_velocity.reshape(clip.noisy_video.shape)
    torch.testing.assert_close(streamed[1], audio, **TOLERANCE)
    torch.testing.assert_close(streamed[2], video, **TOLERANCE)


def test_decoders_give_the_same_media_for_the_whole_clip(system, streamed) -> None:
    model, _ = system
    agents, audio, video = streamed
    with torch.no_grad():
        pcm = model.audio_decoder({"latents": audio}, {})[0]["pcm"][0]
        frames = model.video_decoder({"latents": video}, {})[0]["frames"][0]
    torch.testing.assert_close(torch.from_numpy(np.concatenate([a.audio for a in agents])), pcm, **TOLERANCE)
    difference = np.concatenate([a.frames for a in agents]).astype(int) - frames.numpy().astype(int)
    assert np.abs(difference).max() <= 1  # a level of uint8 where rounding meets a tie


@pytest.mark.slow
def test_the_offline_run_is_causal_exactly(system, streamed) -> None:
    """Changing unit 6's input changes no output before unit 6, bit for bit, and changes it from there on."""
    model, tokenizer = system
    clip, changed = clip_of(model, tokenizer, streamed), 6
    samples = model.config.audio.samples
    pcm, frames = clip.pcm.clone(), clip.frames.clone()
    pcm[:, changed * samples : (changed + 1) * samples] += 0.1
    frames[:, changed * 4 : (changed + 1) * 4] ^= 0x55
    with torch.no_grad():
        before = forward_clip(model, clip)
        after = forward_clip(model, Clip(**{**vars(clip), "pcm": pcm, "frames": frames}))
    for name in ("hidden", "logits", "audio_velocity", "video_velocity"):
        a, b = getattr(before, name), getattr(after, name)
        assert torch.equal(a[:changed], b[:changed]), name
        assert all(not torch.equal(x, y) for x, y in zip(a[changed:], b[changed:], strict=True)), name
