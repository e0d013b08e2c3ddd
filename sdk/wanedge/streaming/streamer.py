"""The streamer: synchronous, deterministic for a seed, free of threads and clocks.

    user unit -> thinker: encode, state, text -> performer: latents -> thinker: decode -> agent unit
                                                                          '-> clean pass, after emission

Calibration, validation and tests use it directly; `Session` feeds it from live media.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from time import perf_counter_ns
from typing import NamedTuple, cast

import numpy as np
from pydantic import Field, FiniteFloat, NonNegativeInt, ValidationError

from wanedge.config import FRAMES_PER_UNIT, UNIT_MS
from wanedge.model import Model
from wanedge.streaming.cache import GraphClock
from wanedge.streaming.overlap import OverlappedPair, can_overlap
from wanedge.streaming.pair import Pair, SequentialPair, StagesMs
from wanedge.streaming.sampling import SEED_BITS, Sampler
from wanedge.text import TextStream
from wanedge.units import AgentUnit, UnitTiming, UserUnit
from wanedge_runtimes.dtypes import is_finite
from wanedge_runtimes.errors import InputError, StateError
from wanedge_runtimes.runtime import Array, State
from wanedge_runtimes.strict import Strict, parse_json
from wanedge_runtimes.workspace import StreamWorkspace, open_workspace

STATE_VERSION = 1
Snapshot = dict[str, dict[str, Array]]


class Streamer:
    """One stream over a loaded model.

    Args:
        model: weights and graphs, shared by any number of streamers.
        world: scene, character and voice, written to the cache once (paper v0.3).
        seed: of the flow noise and of sampled text.
        temperature: of state and text tokens; 0 is greedy.
        own_caches: give thinker and performer a cache each, as on two devices; they then exchange keys, values and
            latents once a unit. The bytes are the same either way.
        overlap: on a GPU, the thinker of a unit may work while the performer of the one before still does; only for a
            model with thinker_lag 1. None: where it can. The bytes are the same either way.
    """

    def __init__(
        self,
        model: Model,
        world: str = "",
        *,
        seed: int = 0,
        temperature: float = 0.0,
        own_caches: bool = False,
        overlap: bool | None = None,
    ) -> None:
        config, graphs = model.config, model.graphs
        self.model = model
        self.config = config
        self._clock = GraphClock()
        self._sampler = Sampler(seed, temperature)
        work = open_workspace(graphs.values())
        if overlap and not can_overlap(config, graphs, work):
            raise InputError(
                f"thinker and performer of '{config.name}' cannot overlap here",
                hint="leave out overlap; it takes thinker_lag 1, a GPU, and a bundle exported by this version",
            )
        if (overlap is None and not own_caches and can_overlap(config, graphs, work)) or overlap:
            self._pair: Pair = OverlappedPair(graphs, config, model.tokenizer, self._clock, cast(StreamWorkspace, work))
        else:
            self._pair = SequentialPair(graphs, config, model.tokenizer, self._clock, work, own_caches)
        self._thinker = self._pair.thinker
        self._begun: deque[_Begun] = deque()
        video = config.user_video
        self._media_shapes = (
            ("audio", (config.audio.samples,), np.float32),
            ("frames", (FRAMES_PER_UNIT, video.height, video.width, 3), np.uint8),
        )
        self._typed: list[int] = []  # the user's text tokens that still wait for a slot
        self._words = TextStream(model.tokenizer)
        self._next = 0
        self._interrupted = False
        self._uncommitted = False
        self._commit_ms = 0.0
        self._pair.prefill(model.tokenizer.encode_world(world, config.prefill))

    @property
    def next_unit(self) -> int:
        """Index of the unit that `step` expects."""
        return self._next

    @property
    def typed_waiting(self) -> int:
        """Typed tokens that still wait for a text slot."""
        return len(self._typed)

    def step(self, user: UserUnit) -> AgentUnit:
        """Answer one unit and write it to the history. Raises InputError and ExecutionError."""
        unit = self.respond(user)
        self.commit()
        return unit

    def respond(self, user: UserUnit) -> AgentUnit:
        """Answer one unit; `commit` (or the next `respond`) does what can wait until after emission."""
        self.begin(user)
        return self.finish()

    def stream(self, users: Iterable[UserUnit]) -> Iterator[AgentUnit]:
        """Answer units that are there already, as fast as it goes; where it can, two of them at a time."""
        for user in users:
            self.begin(user)
            if not self.can_begin:
                yield self.finish()
        while self._begun:
            yield self.finish()

    @property
    def overlaps(self) -> bool:
        """Two units can be in work at a time."""
        return self._pair.most_begun > 1

    @property
    def can_begin(self) -> bool:
        """Another unit may be begun before those that are get finished."""
        return len(self._begun) < self._pair.most_begun

    def begin(self, user: UserUnit) -> None:
        """Start to answer one unit; `finish` waits for the answer. Raises InputError and ExecutionError."""
        if not self.can_begin:
            raise InputError(f"unit {self._begun[0].unit} is begun and not finished", hint="finish() it first")
        self._check(user)
        self.commit()
        started, graph_ns = perf_counter_ns(), self._clock.elapsed_ns
        unit, stages = self._next, {"commit": self._commit_ms}
        self._typed += self.model.tokenizer.encode(user.text) if user.text else []
        slots = self.config.text.user_slots
        typed, self._typed = self._typed[:slots], self._typed[slots:]
        stop, self._interrupted = self._interrupted, False
        self._thinker.observe(user, typed + [self.model.tokenizer.pad] * (slots - len(typed)), stop=stop)
        stages |= self._pair.begin(unit, self._sampler)
        self._begun.append(_Begun(unit, started, graph_ns, stages))
        self._next = unit + 1

    def finish(self) -> AgentUnit:
        """The answer to the unit that was begun first. Raises ExecutionError."""
        if not self._begun:
            raise InputError("no unit was begun", hint="begin(user) before each finish()")
        unit, started, graph_ns, stages = self._begun.popleft()
        waiting = perf_counter_ns()
        try:
            thought = self._pair.finish(unit)
            audio, frames = self._thinker.media(unit)
        except BaseException:
            self._begun.clear()
            self._next = unit  # where a state that is restored, or an operator, looks for what failed
            raise
        self._uncommitted = True
        words = self._words.push(list(thought.text))
        finished = perf_counter_ns()
        stages["decode"] = stages.get("decode", 0.0) + (finished - waiting) / 1e6
        return AgentUnit(
            index=unit,
            start_ms=unit * UNIT_MS,
            end_ms=(unit + 1) * UNIT_MS,
            audio=audio,
            frames=frames,
            text=words,
            tokens=thought.text,
            state=self.model.tokenizer.states[thought.state],
            timing=UnitTiming(
                commit_ms=stages["commit"],
                encode_ms=stages.get("encode", 0.0),
                thinker_ms=stages.get("thinker", 0.0),
                performer_ms=stages.get("performer", 0.0),
                decode_ms=stages["decode"],
                graph_ms=(self._clock.elapsed_ns - graph_ns) / 1e6,
                latency_ms=(finished - started) / 1e6,
            ),
        )

    def interrupt(self) -> None:
        """Make the next unit's thought that of an interrupted agent: its stop state and no text."""
        self._interrupted = True

    def reset(self, world: str = "", seed: int | None = None) -> None:
        """Begin again at unit 0 on the same buffers, with another world text and seed (None: the same seed).

        Raises InputError when the world text is too long or the seed is none; nothing is changed then.
        """
        ids = self.model.tokenizer.encode_world(world, self.config.prefill)
        self._sampler = Sampler(self._sampler.seed if seed is None else seed, self._sampler.temperature)
        for alike in self._states().values():
            for state in alike:
                state.reset()
        self._typed, self._words.pending = [], []
        self._next, self._uncommitted, self._interrupted, self._commit_ms = 0, False, False, 0.0
        self._begun.clear()
        self._pair.adopt(0)
        self._pair.prefill(ids)

    def commit(self) -> None:
        """The clean pass of the last unit: its keys and values join the history. Does nothing when done already."""
        if not self._uncommitted:
            return
        started = perf_counter_ns()
        self._pair.commit()
        self._uncommitted = False
        self._pair.prepare(self._next)
        self._commit_ms = (perf_counter_ns() - started) / 1e6

    def snapshot(self) -> tuple[Snapshot, dict[str, str]]:
        """Everything that the next unit depends on: tensors by component, and text metadata.

        A streamer restored from it, in any process with the same graphs, continues with the same bytes. Raises
        StateError while a unit is begun and not finished.
        """
        if self._begun:
            raise StateError(f"unit {self._begun[0].unit} is begun and not finished", hint="finish() it first")
        self.commit()
        tensors = {name: states[0].snapshot() for name, states in self._states().items()}
        about = {
            "version": STATE_VERSION,
            "model": self.config.name,
            "next_unit": self._next,
            "prefill_length": self._thinker.cache.prefill_length,
            "seed": self._sampler.seed,
            "temperature": self._sampler.temperature,
            "typed": self._typed,
            "words": self._words.pending,
            "interrupted": self._interrupted,
        }
        return tensors, {"streamer": json.dumps(about)}

    def restore(self, tensors: Mapping[str, Mapping[str, Array]], metadata: Mapping[str, str]) -> None:
        """The opposite of `snapshot`; the seed and the world text come from it, too. Raises StateError."""
        about = self._read_about(metadata)
        states = self._states()
        if tensors.keys() != states.keys():
            raise StateError(
                f"the saved state holds {sorted(tensors)}, this streamer needs {sorted(states)}",
                hint="restore it into a streamer with the same model and the same own_caches",
            )
        for name, alike in states.items():
            for state in alike:
                state.restore(tensors[name])
        self._sampler = Sampler(about.seed, about.temperature)
        self._typed, self._words.pending = list(about.typed), list(about.words)
        self._next, self._uncommitted, self._interrupted = about.next_unit, False, about.interrupted
        self._begun.clear()
        self._pair.adopt(about.prefill_length)

    def _states(self) -> dict[str, tuple[State, ...]]:
        """By the name in a snapshot: the states that hold the same."""
        return {**{name: (state,) for name, state in self._thinker.states.items()}, **self._pair.caches()}

    def _read_about(self, metadata: Mapping[str, str]) -> "_About":
        hint = "use a file written by Session.save, with the bundle and the wanedge version that saved it"
        try:
            content = parse_json(metadata["streamer"])
            version, model = content["version"], content["model"]
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"the saved state was not written by a streamer ({error})", hint=hint) from error
        if version != STATE_VERSION or model != self.config.name:
            raise StateError(
                f"the saved state is version {version} of model '{model}', "
                f"this is version {STATE_VERSION} of '{self.config.name}'",
                hint="restore it with the bundle and the wanedge version that saved it",
            )
        try:
            about = _About.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise StateError(f"the saved state is not valid: {where}: {first['msg']}", hint=hint) from error
        unknown = [token for token in (*about.typed, *about.words) if token >= self.config.text.vocabulary]
        if unknown or about.prefill_length > self.config.prefill:
            raise StateError(
                f"the saved state is not this model's: tokens {unknown[:3]}, prefill of {about.prefill_length} slots",
                hint=hint,
            )
        return about

    def _check(self, user: UserUnit) -> None:
        for name, shape, dtype in self._media_shapes:
            array = getattr(user, name)
            if array.shape != shape or array.dtype != dtype:
                raise InputError(
                    f"{name} of unit {user.index} is {array.dtype} {array.shape}, "
                    f"the model takes {np.dtype(dtype)} {shape}",
                    hint="push media of any size and rate through Session, or resize before Streamer.step",
                )
        if user.index != self._next:
            raise InputError(
                f"unit {user.index} was given, unit {self._next} is next",
                hint="give every unit once and in order; fill a gap with silence",
            )
        if not is_finite(user.audio):
            raise InputError(
                f"audio of unit {user.index} holds NaN or infinity", hint="check the capture device or the decoder"
            )


class _About(Strict, strict=True):
    """What a snapshot says beside its tensors. words: the tokens of an unfinished character."""

    version: int
    model: str
    next_unit: int = Field(ge=0)
    prefill_length: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**SEED_BITS)
    temperature: FiniteFloat = Field(ge=0)
    typed: list[NonNegativeInt]
    words: list[NonNegativeInt]
    interrupted: bool = False


class _Begun(NamedTuple):
    """A unit that is being answered. started, graph_ns: clocks when it was begun."""

    unit: int
    started: int
    graph_ns: int
    stages_ms: StagesMs
