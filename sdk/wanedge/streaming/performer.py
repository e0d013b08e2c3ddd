"""The performer: the flow-matching solver, and nothing else (paper: "performer")."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wanedge.config import ModelConfig
from wanedge.streaming.cache import BackboneCache, GraphClock, KvSlice
from wanedge.streaming.sampling import Sampler
from wanedge_runtimes.runtime import Executable

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Latents:
    """One unit's audio [1, Na, La] and video [1, Nv, Lv], noisy or clean: two views of one `flat` array."""

    flat: Float32
    audio: Float32
    video: Float32

    @classmethod
    def zeros(cls, config: ModelConfig) -> Self:
        audio = (1, config.audio.tokens, config.audio.latent)
        video = (1, config.agent_video.tokens, config.agent_video.latent)
        flat = np.zeros(math.prod(audio) + math.prod(video), np.float32)
        split = math.prod(audio)
        return cls(flat, flat[:split].reshape(audio), flat[split:].reshape(video))


class MediaWriter:
    """Puts latents through the backbone at the unit's media slots: noisy (a velocity comes out) or clean (t = 0).

    Every pass writes the same slots, so the clean pass leaves exactly the clean keys and values behind.
    """

    def __init__(self, graphs: Mapping[str, Executable], cache: BackboneCache, clock: GraphClock) -> None:
        self._cache, self._clock = cache, clock
        self._block = cache.block(cache.layout.media)
        self.latents, self.velocity = Latents.zeros(cache.config), Latents.zeros(cache.config)
        flow_in, flow_out = graphs["flow_in"], graphs["flow_out"]
        self._flow_in = flow_in.prepare(
            flow_in.new_state(),
            bound={
                "audio": self.latents.audio,
                "video": self.latents.video,
                "embeddings": self._block.embeddings,
            },
        )
        self._flow_out = flow_out.prepare(
            flow_out.new_state(),
            bound={
                "hidden": self._block.hidden,
                "audio_velocity": self.velocity.audio,
                "video_velocity": self.velocity.video,
            },
        )

    def predict(self, t: float) -> None:
        """`velocity` of `latents` at time t."""
        self._pass(t)
        self._clock.run(self._flow_out)

    def commit(self) -> None:
        """The clean pass: the keys and values of `latents` join the history (paper; after emission)."""
        self._pass(0.0)

    def _pass(self, t: float) -> None:
        self._flow_in.inputs["t"][0, 0] = t
        self._clock.run(self._flow_in)
        self._cache.run(self._block)


class Performer:
    """Denoises a unit's audio and video together, given the thinker's keys and values in its cache."""

    def __init__(self, graphs: Mapping[str, Executable], cache: BackboneCache, clock: GraphClock) -> None:
        self.cache = cache
        self._writer = MediaWriter(graphs, cache, clock)
        # t from 1 (noise) to 0 in equal Euler steps (paper: z_t = (1 - t) z_0 + t eps, velocity eps - z_0)
        times = np.linspace(1.0, 0.0, cache.config.flow.steps + 1)
        self._steps = [(float(t), np.float32(t - after)) for t, after in pairwise(times)]

    def receive(self, unit: int, values: KvSlice) -> None:
        """Take over the thinker's new keys and values of `unit`."""
        self.cache.write(unit, slice(0, self.cache.layout.thought.stop), values)

    def solve(self, unit: int, sampler: Sampler) -> Latents:
        """Latents of `unit` from the sampler's noise; the performer's own, valid until the next unit."""
        z, velocity = self._writer.latents.flat, self._writer.velocity.flat
        sampler.noise(unit, out=z)
        self.cache.begin(unit)
        for t, step in self._steps:
            self._writer.predict(t)
            np.multiply(velocity, step, out=velocity)
            np.subtract(z, velocity, out=z)
        return self._writer.latents

    def commit(self) -> None:
        """Write the clean keys and values of the unit just solved."""
        self._writer.commit()
