"""Thinker and performer of neighbouring units at the same time, on two streams of one device."""

from collections.abc import Callable, Iterable, Mapping
from time import perf_counter_ns
from typing import ClassVar

from wanedge.config import ModelConfig
from wanedge.ring import backbone_rings
from wanedge.streaming.cache import BackboneCache, GraphClock
from wanedge.streaming.pair import StagesMs
from wanedge.streaming.performer import Latents, Performer, scratch_latents
from wanedge.streaming.sampling import Sampler
from wanedge.streaming.thinker import Thinker, Thought
from wanedge.text import Tokenizer
from wanedge_runtimes.gpu.schedule import SLOTS, Step, begin_unit, finish_unit
from wanedge_runtimes.runtime import Executable, State
from wanedge_runtimes.workspace import Mark, StreamWorkspace, Tensor, Workspace


def can_overlap(config: ModelConfig, graphs: Mapping[str, Executable], work: Workspace) -> bool:
    """The thinker need not wait for the unit before, there is a stream for each, and the solver stays on the device.

    In a ring of one unit nothing is hidden from the thinker (see visibility.py), so it must wait.
    """
    rings = backbone_rings(config).values()
    lags = config.thinker_lag == 1 and all(ring.units > 1 for ring in rings)
    return lags and work.on_device and work.parallel and "flow_step" in graphs


class OverlappedPair:
    """Thinker and performer with a stream and a cache each, in the order of `gpu.schedule`.

    See `pair.Pair`. The bytes are those of the two in sequence.
    """

    most_begun = 2

    def __init__(
        self,
        graphs: Mapping[str, Executable],
        config: ModelConfig,
        tokenizer: Tokenizer,
        clock: GraphClock,
        work: StreamWorkspace,
    ) -> None:
        beside = work.beside()
        self._streams = {"thinker": work, "performer": beside}
        self._cache = BackboneCache(graphs["backbone"], config, clock, work)
        self.performer = Performer(graphs, BackboneCache(graphs["backbone"], config, clock, beside), clock, beside)
        decoded = scratch_latents(work, config)
        self._latents = [scratch_latents(work, config) for _ in range(SLOTS)]
        self._decoded, self._solved = decoded, self.performer.latents
        self.thinker = Thinker(graphs, self._cache, tokenizer, clock, work, decoded, own_cache=False, slots=SLOTS)
        layout = self._cache.layout
        self._slots = {"thought": slice(0, layout.thought.stop), "media": layout.media}
        self._exchange = {
            name: [self._cache.exchange(slots) for _ in range(SLOTS)] for name, slots in self._slots.items()
        }
        self._marks: dict[str, Mark] = {}
        self._clock = clock
        self._open, self._last = False, -1  # the unit begun last, while the steps that finish it are not started
        self._sampler: Sampler

    def begin(self, unit: int, sampler: Sampler) -> StagesMs:
        started = perf_counter_ns()
        self._sampler = sampler
        self.performer.begin(unit, sampler)
        self._streams["thinker"].send()
        self._run(begin_unit(unit, unfinished=self._open))
        self._open, self._last = True, unit
        return {"encode": (perf_counter_ns() - started) / 1e6}

    def finish(self, unit: int) -> Thought:
        if unit == self._last and self._open:
            self._run(finish_unit(unit))
            self._open = False
        self._clock.unpack(self._streams["thinker"])
        return self.thinker.thought(unit % SLOTS)

    def commit(self) -> None:
        """Nothing waits: the clean pass runs on the performer's stream, behind its solver."""

    def prepare(self, unit: int) -> None:
        """Nothing is ready early: a unit begun before may still read what the arrays hold."""

    def prefill(self, ids: list[int]) -> None:
        self.thinker.prefill(ids)
        self.performer.cache.adopt_prefill(self._cache.read_prefill(), self._cache.prefill_length)

    def caches(self) -> dict[str, tuple[State, ...]]:
        return {"backbone": (self._cache.state, self.performer.cache.state)}

    def adopt(self, prefill_length: int) -> None:
        self._open = False
        for cache in (self._cache, self.performer.cache):
            cache.adopt(prefill_length)

    def _run(self, steps: Iterable[Step]) -> None:
        for step in steps:
            work = self._streams[step.stream]
            for event in step.waits:
                if (mark := self._marks.get(_slot_of(event))) is not None:  # None: before the first unit of a run
                    work.wait(mark)
            self._DO[step.name](self, step.unit)
            if step.records is not None:
                self._marks.setdefault(_slot_of(step.records), work.mark()).record()

    def _think(self, unit: int) -> None:
        self.thinker.encode()
        self.thinker.think(unit, self._sampler, slot=unit % SLOTS)

    def _hand_over(self, unit: int) -> None:
        self.thinker.keep_thought(self._sampler, slot=unit % SLOTS)
        self._cache.put_into(*self._part("thought", unit))

    def _receive(self, unit: int) -> None:
        self._streams["performer"].send()
        self.performer.cache.take_from(*self._part("thought", unit))

    def _solve(self, unit: int) -> None:
        self.performer.solve()
        self._copy("performer", self._latents[unit % SLOTS], self._solved)

    def _commit(self, unit: int) -> None:  # noqa: ARG002
        self.performer.commit()

    def _return(self, unit: int) -> None:
        self.performer.cache.put_into(*self._part("media", unit))

    def _decode(self, unit: int) -> None:
        self._copy("thinker", self._decoded, self._latents[unit % SLOTS])
        self.thinker.decode()
        self._streams["thinker"].fetch()

    def _take(self, unit: int) -> None:
        self._cache.take_from(*self._part("media", unit))

    # Functions and not bound methods, which would keep the pair and its device memory alive until a collection.
    _DO: ClassVar[dict[str, Callable[["OverlappedPair", int], None]]] = {
        "think": _think,
        "hand over": _hand_over,
        "receive": _receive,
        "solve": _solve,
        "commit": _commit,
        "return": _return,
        "decode": _decode,
        "take": _take,
    }

    def _part(self, name: str, unit: int) -> tuple[dict[str, Tensor], int, slice]:
        return self._exchange[name][unit % SLOTS], unit, self._slots[name]

    def _copy(self, stream: str, target: Latents, source: Latents) -> None:
        self._streams[stream].copy(target.audio, source.audio)
        self._streams[stream].copy(target.video, source.video)


def _slot_of(event: str) -> str:
    """An event's name without its unit; the unit after next has the same mark."""
    name, _, unit = event.rpartition(" ")
    return f"{name} {int(unit) % SLOTS}"
