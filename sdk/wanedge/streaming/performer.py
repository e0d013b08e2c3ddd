"""The performer: the flow-matching solver, and nothing else (paper: "performer")."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wanedge.streaming.cache import BackboneCache, GraphClock, KvSlice
from wanedge_runtimes.runtime import Executable

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Latents:
    """One unit's audio [1, Na, La] and video [1, Nv, Lv], noisy or clean."""

    audio: Float32
    video: Float32


class MediaWriter:
    """Puts latents through the backbone at the unit's media slots: noisy (a velocity comes out) or clean (t = 0).

    Every pass writes the same slots, so the clean pass leaves exactly the clean keys and values behind.
    """

    def __init__(self, graphs: Mapping[str, Executable], cache: BackboneCache, clock: GraphClock) -> None:
        self._cache, self._clock = cache, clock
        layout = cache.layout
        self._slots = layout.media
        self._block = cache.block(layout.media.stop - layout.media.start)
        flow_in, flow_out = graphs["flow_in"], graphs["flow_out"]
        self._flow_in = flow_in.prepare(flow_in.new_state(), bound={"embeddings": self._block.embeddings})
        self._flow_out = flow_out.prepare(flow_out.new_state(), bound={"hidden": self._block.hidden})
        self.latents = Latents(self._flow_in.inputs["audio"], self._flow_in.inputs["video"])
        self.velocity = Latents(self._flow_out.outputs["audio_velocity"], self._flow_out.outputs["video_velocity"])

    def aim(self, unit: int) -> None:
        self._cache.aim(self._block, unit, self._slots)

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
        self._times = np.linspace(1.0, 0.0, cache.config.flow.steps + 1)

    def receive(self, unit: int, values: KvSlice) -> None:
        """Take over the thinker's new keys and values of `unit`."""
        self.cache.write(unit, slice(0, self.cache.layout.thought.stop), values)

    def solve(self, unit: int, noise: Latents) -> Latents:
        """Latents of `unit` from `noise`; the arrays are the performer's own and valid until the next unit."""
        z, velocity = self._writer.latents, self._writer.velocity
        z.audio[:], z.video[:] = noise.audio, noise.video
        self._writer.aim(unit)
        for t, following in zip(self._times[:-1], self._times[1:], strict=True):
            self._writer.predict(float(t))
            step = np.float32(t - following)
            for latents, slope in ((z.audio, velocity.audio), (z.video, velocity.video)):
                np.multiply(slope, step, out=slope)
                np.subtract(latents, slope, out=latents)
        return z

    def commit(self) -> None:
        """Write the clean keys and values of the unit just solved."""
        self._writer.commit()
