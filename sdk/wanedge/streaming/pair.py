"""Thinker and performer one after the other, which is how the CPU runs them, and how one stream of a GPU does."""

from collections.abc import Mapping
from time import perf_counter_ns
from typing import Protocol

from wanedge.config import ModelConfig
from wanedge.streaming.cache import BackboneCache, GraphClock
from wanedge.streaming.performer import Performer
from wanedge.streaming.sampling import Sampler
from wanedge.streaming.thinker import Thinker, Thought
from wanedge.text import Tokenizer
from wanedge_runtimes.runtime import Executable, State
from wanedge_runtimes.workspace import Workspace

StagesMs = dict[str, float]


class Pair(Protocol):
    """A thinker and a performer, and the order in which they answer a unit.

    most_begun: units that may be begun and not finished.
    """

    thinker: Thinker
    most_begun: int

    def begin(self, unit: int, sampler: Sampler) -> StagesMs:
        """Start the unit that the thinker observed. Returns what its stages took, in ms of the calling thread."""

    def finish(self, unit: int) -> Thought:
        """Wait for a unit begun, in their order; then `thinker.media` is its own."""

    def commit(self) -> None:
        """Write the clean keys and values of the unit finished last, where that could wait until now."""

    def prepare(self, unit: int) -> None:
        """Compute what the next unit needs and its media do not decide, so that its answer need not wait for that."""

    def prefill(self, ids: list[int]) -> None:
        """Write the world text to every cache."""

    def caches(self) -> dict[str, tuple[State, ...]]:
        """The backbone's states by the names that they have in a snapshot; those that hold the same have one name."""

    def adopt(self, prefill_length: int) -> None:
        """Take over states that were reset or restored."""


class SequentialPair:
    """See `Pair`. own_caches: a cache for each, as on two devices."""

    most_begun = 1

    def __init__(
        self,
        graphs: Mapping[str, Executable],
        config: ModelConfig,
        tokenizer: Tokenizer,
        clock: GraphClock,
        work: Workspace,
        own_caches: bool,
    ) -> None:
        self._work, self._clock, self._own_caches = work, clock, own_caches
        cache = BackboneCache(graphs["backbone"], config, clock, work)
        other = BackboneCache(graphs["backbone"], config, clock, work) if own_caches else cache
        self._caches = (cache, other) if own_caches else (cache,)
        self._performer = Performer(graphs, other, clock, work)
        self.thinker = Thinker(graphs, cache, tokenizer, clock, work, self._performer.latents, own_cache=own_caches)

    def begin(self, unit: int, sampler: Sampler) -> StagesMs:
        thinker, performer, started = self.thinker, self._performer, perf_counter_ns()
        performer.begin(unit, sampler)
        self._work.send()
        thinker.encode()
        encoded = perf_counter_ns()
        thinker.think(unit, sampler)
        if self._own_caches:
            performer.receive(unit, thinker.hand_over(unit))
        thought = perf_counter_ns()
        performer.solve()
        performed = perf_counter_ns()
        thinker.decode()
        return {
            "encode": (encoded - started) / 1e6,
            "thinker": (thought - encoded) / 1e6,
            "performer": (performed - thought) / 1e6,
            "decode": (perf_counter_ns() - performed) / 1e6,
        }

    def finish(self, unit: int) -> Thought:  # noqa: ARG002  # there is only one
        self._clock.wait(self._work)
        return self.thinker.thought()

    def commit(self) -> None:
        self._performer.commit()
        self.thinker.commit()

    def prepare(self, unit: int) -> None:
        self.thinker.prepare(unit)
        self._performer.cache.begin(unit)

    def prefill(self, ids: list[int]) -> None:
        self.thinker.prefill(ids)
        if self._own_caches:
            cache = self.thinker.cache
            self._caches[-1].adopt_prefill(cache.read_prefill(), cache.prefill_length)

    def caches(self) -> dict[str, tuple[State, ...]]:
        names = ("backbone", "backbone.performer")
        return {name: (cache.state,) for name, cache in zip(names, self._caches, strict=False)}

    def adopt(self, prefill_length: int) -> None:
        for cache in self._caches:
            cache.adopt(prefill_length)
