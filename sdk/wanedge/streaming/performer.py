"""The performer: the flow-matching solver, and nothing else (paper: "performer")."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wanedge.config import ModelConfig
from wanedge.streaming.cache import BackboneCache, Block, GraphClock, KvSlice
from wanedge.streaming.sampling import Sampler
from wanedge_runtimes.dtypes import finite_check
from wanedge_runtimes.errors import ExecutionError
from wanedge_runtimes.runtime import Call, Executable
from wanedge_runtimes.workspace import Tensor, Workspace

Float32 = NDArray[np.float32]

LATENTS, VELOCITY = "latents", "velocity"  # what the host reads and writes of a step, where it computes the step


@dataclass(frozen=True)
class Latents:
    """One unit's audio [1, Na, La] and video [1, Nv, Lv], noisy or clean, as calls read or write them."""

    audio: Tensor
    video: Tensor


@dataclass(frozen=True)
class HostLatents:
    """Latents on the host: two views of one `flat` array."""

    flat: Float32
    audio: Float32
    video: Float32

    @classmethod
    def zeros(cls, config: ModelConfig) -> Self:
        audio, video = latent_shapes(config)
        flat = np.zeros(math.prod(audio) + math.prod(video), np.float32)
        split = math.prod(audio)
        return cls(flat, flat[:split].reshape(audio), flat[split:].reshape(video))


class MediaWriter:
    """The clean pass: puts finished latents through the backbone at the unit's media slots (t = 0).

    Every pass writes the same slots, so this one leaves exactly the clean keys and values behind.
    """

    def __init__(
        self, graphs: Mapping[str, Executable], block: Block, clock: GraphClock, work: Workspace, latents: Latents
    ) -> None:
        self._clock = clock
        clean = work.constant(np.zeros((1, 1), np.float32))
        self._pass = work.sequence("the clean pass", [_flow_in(graphs, work, block, latents, clean), block.call])

    def commit(self) -> None:
        """The keys and values of the latents join the history (paper; after emission)."""
        self._clock.run(self._pass)


class Performer:
    """Denoises a unit's audio and video together, given the thinker's keys and values in its cache.

    latents: where the finished ones lie; the performer's own, valid until the next unit.
    """

    latents: Latents

    def __init__(
        self, graphs: Mapping[str, Executable], cache: BackboneCache, clock: GraphClock, work: Workspace
    ) -> None:
        self.cache = cache
        block = cache.block(cache.layout.media)
        # t from 1 (noise) to 0 in equal Euler steps (paper: z_t = (1 - t) z_0 + t eps, velocity eps - z_0)
        times = np.linspace(1.0, 0.0, cache.config.flow.steps + 1)
        steps = [(float(t), np.float32(t - after)) for t, after in pairwise(times)]
        resident = work.on_device and "flow_step" in graphs
        self._solver: _Solver = (_DeviceSolver if resident else _HostSolver)(graphs, block, steps, clock, work, cache)
        self.latents = self._solver.latents
        self._writer = MediaWriter(graphs, block, clock, work, self.latents)

    def begin(self, unit: int, sampler: Sampler) -> None:
        """Draw the unit's noise and point the cache at it; on a device before what the host computed is sent."""
        sampler.noise(unit, out=self._solver.noise)
        self.cache.begin(unit)

    def receive(self, unit: int, values: KvSlice) -> None:
        """Take over the thinker's new keys and values of `unit`."""
        self.cache.write(unit, slice(0, self.cache.layout.thought.stop), values)

    def solve(self) -> None:
        """`latents` of the unit begun, from its noise."""
        self._solver.solve()

    def commit(self) -> None:
        """Write the clean keys and values of the unit just solved."""
        self._writer.commit()


class _HostSolver:
    """Euler steps on the host: a velocity comes out of the graphs, latents go in again."""

    def __init__(
        self,
        graphs: Mapping[str, Executable],
        block: Block,
        steps: list[tuple[float, np.float32]],
        clock: GraphClock,
        work: Workspace,
        cache: BackboneCache,
    ) -> None:
        self._clock, self._work, self._steps = clock, work, steps
        self._z, self._velocity = HostLatents.zeros(cache.config), HostLatents.zeros(cache.config)
        self._t = np.zeros((1, 1), np.float32)
        self._is_finite = finite_check(self._z.flat)
        self.noise = self._z.flat
        self.latents = Latents(work.input(self._z.audio, LATENTS), work.input(self._z.video, LATENTS))
        velocity = Latents(work.output(self._velocity.audio, VELOCITY), work.output(self._velocity.video, VELOCITY))
        calls = [
            _flow_in(graphs, work, block, self.latents, work.input(self._t, LATENTS)),
            block.call,
            _flow_out(graphs, work, block, velocity),
        ]
        self._predict = work.sequence("the solver", calls)

    def solve(self) -> None:
        z, velocity, work = self._z.flat, self._velocity.flat, self._work
        for t, step in self._steps:
            self._t[0, 0] = t
            work.send(LATENTS)
            self._clock.run(self._predict)
            self._clock.wait(work, VELOCITY)
            np.multiply(velocity, step, out=velocity)
            np.subtract(z, velocity, out=z)
        if not self._is_finite():
            raise not_a_number("flow_out")
        work.send(LATENTS)


class _DeviceSolver:
    """Every Euler step is a graph, so that all of them are one sequence and nothing comes back to the host."""

    def __init__(
        self,
        graphs: Mapping[str, Executable],
        block: Block,
        steps: list[tuple[float, np.float32]],
        clock: GraphClock,
        work: Workspace,
        cache: BackboneCache,
    ) -> None:
        self._clock = clock
        noise = HostLatents.zeros(cache.config)
        self.noise = noise.flat
        z = Latents(work.input(noise.audio), work.input(noise.video))
        velocity, graph = scratch_latents(work, cache.config), graphs["flow_step"]
        calls: list[Call] = []
        for t, step in steps:
            after = scratch_latents(work, cache.config)
            bound = {
                "audio": z.audio,
                "video": z.video,
                "audio_velocity": velocity.audio,
                "video_velocity": velocity.video,
                "step": work.constant(np.full((1, 1), step, np.float32)),
                "next_audio": after.audio,
                "next_video": after.video,
            }
            calls += [
                _flow_in(graphs, work, block, z, work.constant(np.full((1, 1), t, np.float32))),
                block.call,
                _flow_out(graphs, work, block, velocity),
                work.prepare(graph, work.new_state(graph), bound=bound),
            ]
            z = after
        self.latents = z
        self._sequence = work.sequence("the solver", calls)

    def solve(self) -> None:
        self._clock.run(self._sequence)


_Solver = _HostSolver | _DeviceSolver


def not_a_number(component: str, unit: int | None = None) -> ExecutionError:
    """Return the error of a component whose output is NaN or infinity, which must not reach anybody as an answer."""
    where = "" if unit is None else f" in unit {unit}"
    return ExecutionError(
        f"{component} gave NaN or infinity{where}",
        hint="find the first bad tensor with `wanedge validate`, or restore an earlier state",
    )


def latent_shapes(config: ModelConfig) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Of audio and of video."""
    audio, video = config.audio, config.agent_video
    return (1, audio.tokens, audio.latent), (1, video.tokens, video.latent)


def scratch_latents(work: Workspace, config: ModelConfig) -> Latents:
    """Room for latents that only calls read and write."""
    audio, video = latent_shapes(config)
    return Latents(work.scratch("float32", audio), work.scratch("float32", video))


def _flow_in(graphs: Mapping[str, Executable], work: Workspace, block: Block, z: Latents, t: Tensor) -> Call:
    graph = graphs["flow_in"]
    bound = {"audio": z.audio, "video": z.video, "t": t, "embeddings": block.embeddings}
    return work.prepare(graph, work.new_state(graph), bound=bound)


def _flow_out(graphs: Mapping[str, Executable], work: Workspace, block: Block, velocity: Latents) -> Call:
    graph = graphs["flow_out"]
    bound = {"hidden": block.hidden, "audio_velocity": velocity.audio, "video_velocity": velocity.video}
    return work.prepare(graph, work.new_state(graph), bound=bound)
