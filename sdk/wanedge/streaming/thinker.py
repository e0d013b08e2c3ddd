"""The thinker: sees and hears, decides state and text, and turns latents into media (paper: "thinker")."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from wanedge.config import FRAMES_PER_UNIT
from wanedge.ring import audio_encoder_ring
from wanedge.rope import RopeTable, token_positions
from wanedge.streaming.cache import BackboneCache, Block, GraphClock, KvSlice
from wanedge.streaming.performer import Latents, MediaWriter, not_a_number
from wanedge.streaming.sampling import Sampler
from wanedge.text import Tokenizer
from wanedge.units import UserUnit
from wanedge_runtimes.dtypes import finite_check
from wanedge_runtimes.runtime import Call, Executable, State
from wanedge_runtimes.workspace import CallSequence, StreamWorkspace, Tensor, Workspace

WORLD_ROLE, USER_ROLE, AGENT_ROLE = 0, 1, 2  # rows of the text embedding's second table
_LOUDEST = np.float32(1.0)


@dataclass(frozen=True)
class Thought:
    """What the thinker decided for a unit: the state token and the text tokens."""

    state: int
    text: tuple[int, ...]


class Thinker:
    """Encoders, the short token-causal pass and decoders, over one cache.

    latents: what to decode. own_cache: the clean latents must be written into this cache, too. slots: of how many
        units, in turn, the choices must be kept.
    """

    def __init__(
        self,
        graphs: Mapping[str, Executable],
        cache: BackboneCache,
        tokenizer: Tokenizer,
        clock: GraphClock,
        work: Workspace,
        latents: Latents,
        own_cache: bool,
        slots: int = 1,
    ) -> None:
        self.cache = cache
        config, layout = cache.config, cache.layout
        self._config, self._clock, self._work, self._layout = config, clock, work, layout
        self._text_embed = graphs["text_embed"]
        self.states: dict[str, State] = {
            name: work.new_state(graphs[name])
            for name in ("audio_encoder", "video_encoder", "audio_decoder", "video_decoder")
        }

        user = cache.block(layout.user)
        self._encoders = _Encoders(graphs, self.states, cache, work, user)
        self._thoughts = _Thoughts(graphs, cache, tokenizer, clock, work, user, slots)

        video = config.agent_video
        self._audio = np.zeros((1, config.audio.samples), np.float32)
        self._audio_is_finite = finite_check(self._audio)
        self._frames = np.zeros((1, FRAMES_PER_UNIT, video.height, video.width, 3), np.uint8)
        self._decode = work.sequence(
            "the decoders",
            [
                work.prepare(
                    graphs["audio_decoder"],
                    self.states["audio_decoder"],
                    bound={"latents": latents.audio, "pcm": work.output(self._audio)},
                ),
                work.prepare(
                    graphs["video_decoder"],
                    self.states["video_decoder"],
                    bound={"latents": latents.video, "frames": work.output(self._frames)},
                ),
            ],
        )
        self._writer = MediaWriter(graphs, cache.block(layout.media), clock, work, latents) if own_cache else None

    def prefill(self, ids: list[int]) -> None:
        """Write the world text to the cache (paper v0.3: once, before streaming)."""
        graph = self._text_embed
        call = self._work.prepare(graph, self._work.new_state(graph), {"S": len(ids)})
        call.inputs["ids"][0] = ids
        call.inputs["roles"][:] = WORLD_ROLE
        self._clock.run(call)
        self.cache.write_prefill(call.outputs["embeddings"])

    def observe(self, user: UserUnit, text: list[int], *, stop: bool = False) -> None:
        """Take a unit of the user's; on a device before it is sent.

        text: ids, one per user text slot. stop: choose as after an interruption: the model's stop state, if it has
            one, and no text.
        """
        self._encoders.observe(user, text)
        self._thoughts.observe(stop)
        self.cache.begin(user.index)

    def prepare(self, unit: int) -> None:
        """Compute positions, masks and write indices of a unit before its media are there."""
        self._encoders.prepare(unit)
        self.cache.begin(unit)

    def encode(self) -> None:
        """Encode what was observed into the backbone's next block."""
        self._clock.run(self._encoders.sequence)

    def think(self, unit: int, sampler: Sampler, slot: int = 0) -> None:
        """Run the user block, then choose the state token and the text tokens one by one."""
        self._thoughts.run(unit, sampler, slot)

    def keep_thought(self, sampler: Sampler, slot: int) -> None:
        """On a device with several slots: put what was chosen where the host reads it."""
        self._thoughts.keep(sampler, slot)

    def thought(self, slot: int = 0) -> Thought:
        """What was chosen; on a device valid after `receive`."""
        state, *text = self._thoughts.ids(slot)
        return Thought(state, tuple(text))

    def hand_over(self, unit: int) -> KvSlice:
        """The keys and values this unit added: what a performer with a cache of its own needs."""
        return self.cache.read(unit, slice(0, self._layout.thought.stop))

    def decode(self) -> None:
        """Turn the finished latents into media."""
        self._clock.run(self._decode)

    def media(self, unit: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Audio [samples] and frames [4, H, W, 3] as arrays of their own; on a device valid after `receive`."""
        audio = self._audio[0]
        if not self._audio_is_finite():
            raise not_a_number("audio_decoder", unit)
        # Pictures are whole numbers and cannot show a NaN, which makes them black; the decoder's state can.
        if (name := self.states["video_decoder"].not_finite()) is not None:
            raise not_a_number(f"video_decoder (state {name!r})", unit)
        return np.maximum(np.minimum(audio, _LOUDEST), -_LOUDEST), self._frames[0].copy()

    def commit(self) -> None:
        """Write the clean keys and values of finished latents, where the cache is the thinker's own."""
        if self._writer is not None:
            self._writer.commit()


class _Encoders:
    """What the user sent, encoded straight into the backbone's input."""

    def __init__(
        self,
        graphs: Mapping[str, Executable],
        states: Mapping[str, State],
        cache: BackboneCache,
        work: Workspace,
        block: Block,
    ) -> None:
        config, parts = cache.config, cache.layout.parts
        video, ring = config.user_video, audio_encoder_ring(config)
        half = config.backbone.head_dim // 2
        self._ring, self._hears_whole_ring, self._unit = ring, False, -1
        self._rope = RopeTable(token_positions(0, ring.slots), config.backbone)
        self._ids = np.zeros((1, config.text.user_slots), np.int64)
        self._pcm = np.zeros((1, config.audio.samples), np.float32)
        self._cos, self._sin = np.zeros((2, 1, ring.slots, half), np.float32)
        self._mask = np.zeros((1, 1, ring.slots, ring.capacity), np.bool_)
        self._write_index = np.zeros(1, np.int64)
        self._frames = np.zeros((1, FRAMES_PER_UNIT, video.height, video.width, 3), np.uint8)
        embeddings = block.embeddings
        read = _embedder(
            graphs["text_embed"], work, work.input(self._ids), embeddings[:, parts["user_text"]], USER_ROLE
        )
        hear = work.prepare(
            graphs["audio_encoder"],
            states["audio_encoder"],
            bound={
                "pcm": work.input(self._pcm),
                "cos": work.input(self._cos),
                "sin": work.input(self._sin),
                "mask": work.input(self._mask),
                "write_index": work.input(self._write_index),
                "tokens": embeddings[:, parts["user_audio"]],
            },
        )
        see = work.prepare(
            graphs["video_encoder"],
            states["video_encoder"],
            bound={"frames": work.input(self._frames), "tokens": embeddings[:, parts["user_video"]]},
        )
        self.sequence = work.sequence("the encoders", [read, hear, see])

    def observe(self, user: UserUnit, text: list[int]) -> None:
        self.prepare(user.index)
        self._ids[0] = text
        self._pcm[0] = user.audio
        self._frames[0] = user.frames

    def prepare(self, unit: int) -> None:
        """Everything but the media. Does nothing when that is done already."""
        if unit == self._unit:
            return
        ring = self._ring
        self._rope.write(unit * ring.slots, self._cos[0], self._sin[0])
        whole = unit >= ring.units  # from then on every slot stays visible, until an earlier state is restored
        if not (whole and self._hears_whole_ring):
            self._mask[0, 0] = ring.visible(unit, ring.slots, 0)
            self._hears_whole_ring = whole
        self._write_index[0] = ring.start(unit)
        self._unit = unit


class _Thoughts:
    """The user block, then the state token and the text tokens, each with the head that chooses the next.

    On a device the greedy choice stays there, and all of it is one sequence; a sampled choice is the host's.
    """

    def __init__(
        self,
        graphs: Mapping[str, Executable],
        cache: BackboneCache,
        tokenizer: Tokenizer,
        clock: GraphClock,
        work: Workspace,
        user: Block,
        slots: int,
    ) -> None:
        tokens = cache.layout.thought
        self._clock, self._work, self._graphs, self._tokenizer = clock, work, graphs, tokenizer
        self._user = user
        self._blocks = [cache.block(slice(slot, slot + 1)) for slot in range(tokens.start, tokens.stop)]
        self._logits = (1, 1, cache.config.text.vocabulary)
        self._stop = False
        self._allowed: list[NDArray[np.bool_]] = []  # what each token may be, where the device chooses it
        self._kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(slots)]  # copies behind a greedy choice
        self._chosen = np.zeros((slots, len(self._blocks), 1, 1), np.int64)  # on a device, what came from there
        self._sampled = np.zeros((slots, len(self._blocks), 1, 1), np.int64)  # by the host
        self._source = [self._sampled] * slots
        resident = work.on_device and "text_choice" in graphs
        self._greedy = self._on_device() if resident else None
        self._by_host = None if resident else self._on_host()

    def observe(self, stop: bool) -> None:
        """Before the unit is sent."""
        if stop != self._stop:
            self._stop = stop
            self._allow()

    def run(self, unit: int, sampler: Sampler, slot: int) -> None:
        if self._greedy is not None and sampler.temperature == 0:
            self._source[slot] = self._chosen
            self._clock.run(self._greedy)
            return
        self._source[slot] = self._sampled
        if self._by_host is None:
            self._by_host = self._on_host()
        self._by_host.run(unit, sampler, self._stop, self._sampled[slot])

    def ids(self, slot: int) -> list[int]:
        """What was chosen for the unit of a slot."""
        ids: list[int] = self._source[slot][slot, :, 0, 0].tolist()
        return ids

    def keep(self, sampler: Sampler, slot: int) -> None:
        if self._greedy is not None and sampler.temperature == 0:
            for kept, ids in self._kept[slot]:
                cast(StreamWorkspace, self._work).copy(kept, ids)

    def _allow(self) -> None:
        for number, allowed in enumerate(self._allowed):
            allowed[:] = False
            allowed[..., self._tokenizer.choices(number, self._stop)] = True

    def _on_device(self) -> CallSequence:
        work, choose = self._work, self._graphs["text_choice"]
        before, calls = self._user, [self._user.call]
        self._allowed = [np.zeros(self._logits, np.bool_) for _ in self._blocks]
        self._allow()
        for number, block in enumerate(self._blocks):
            logits, ids = work.scratch("float32", self._logits), self._ids(number)
            bound = {"logits": logits, "allowed": work.input(self._allowed[number]), "ids": ids}
            calls += [
                self._head(before, logits),
                work.prepare(choose, work.new_state(choose), bound=bound),
                _embedder(self._graphs["text_embed"], work, ids, block.embeddings, AGENT_ROLE),
                block.call,
            ]
            before = block
        return work.sequence("the thoughts", calls)

    def _ids(self, number: int) -> Tensor:
        """Where a token is chosen: in what the host reads, or beside it where that must outlast the next choice."""
        work = self._work
        kept = [work.output(chosen[number]) for chosen in self._chosen]
        if len(kept) == 1:
            return kept[0]
        ids = work.scratch("int64", kept[0].shape)
        for copies, tensor in zip(self._kept, kept, strict=True):
            copies.append((tensor, ids))
        return ids

    def _on_host(self) -> "_HostChoice":
        work, before, first = self._work, self._user, [self._user.call]
        tokens: list[_Token] = []
        for number, block in enumerate(self._blocks):
            logits, ids = np.zeros(self._logits, np.float32), np.zeros((1, 1), np.int64)
            head = self._head(before, work.output(logits, f"logits {number}"))
            embed = _embedder(
                self._graphs["text_embed"], work, work.input(ids, f"token {number}"), block.embeddings, AGENT_ROLE
            )
            tokens.append(_Token(work.sequence(f"thought {number}", [*first, head]), logits, ids, finite_check(logits)))
            before, first = block, [embed, block.call]
        last = work.sequence("the last thought", first)
        return _HostChoice(tokens, last, self._tokenizer, self._clock, work)

    def _head(self, block: Block, logits: Tensor) -> Call:
        """Logits after the block's last token."""
        graph = self._graphs["text_head"]
        bound = {"hidden": block.hidden[:, -1:], "logits": logits}
        return self._work.prepare(graph, self._work.new_state(graph), {"S": 1}, bound)


@dataclass(frozen=True)
class _Token:
    """One thought slot: what runs up to its logits [1, 1, V], the id [1, 1] that goes on, and the logits' check."""

    sequence: CallSequence
    logits: NDArray[np.float32]
    ids: NDArray[np.int64]
    is_finite: Callable[[], bool]


class _HostChoice:
    """Tokens that the host chooses from logits, one by one."""

    def __init__(
        self, tokens: list[_Token], last: CallSequence, tokenizer: Tokenizer, clock: GraphClock, work: Workspace
    ) -> None:
        self._last, self._tokenizer, self._clock, self._work = last, tokenizer, clock, work
        self._tokens = [(number, token, f"logits {number}", f"token {number}") for number, token in enumerate(tokens)]

    def run(self, unit: int, sampler: Sampler, stop: bool, chosen: NDArray[np.int64]) -> None:
        for number, token, logits, ids in self._tokens:
            self._clock.run(token.sequence)
            self._clock.wait(self._work, logits)
            if not token.is_finite():  # the largest of them would be NaN, and chosen
                raise not_a_number("text_head", unit)
            choices = self._tokenizer.choices(number, stop)
            choice = sampler.choose(token.logits[0, 0], choices, unit, number)
            chosen[number, 0, 0] = token.ids[0, 0] = choice
            self._work.send(ids)
        self._clock.run(self._last)


def _embedder(graph: Executable, work: Workspace, ids: Tensor, embeddings: Tensor, role: int) -> Call:
    tokens = ids.shape[1]
    bound = {
        "ids": ids,
        "roles": work.constant(np.full((1, tokens), role, np.int64)),
        "embeddings": embeddings,
    }
    return work.prepare(graph, work.new_state(graph), {"S": tokens}, bound)
