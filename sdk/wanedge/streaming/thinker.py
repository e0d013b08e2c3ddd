"""The thinker: sees and hears, decides state and text, and turns latents into media (paper: "thinker")."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wanedge.layout import RopeTable, audio_encoder_ring, token_positions
from wanedge.streaming.cache import BackboneCache, Block, GraphClock, KvSlice
from wanedge.streaming.performer import Latents, MediaWriter
from wanedge.streaming.sampling import Sampler
from wanedge.text import Tokenizer
from wanedge.units import UserUnit
from wanedge_runtimes.errors import ExecutionError
from wanedge_runtimes.runtime import Call, Executable, State

WORLD_ROLE, USER_ROLE, AGENT_ROLE = 0, 1, 2  # rows of the text embedding's second table


@dataclass(frozen=True)
class Thought:
    """What the thinker decided for a unit: the state token and the text tokens."""

    state: int
    text: tuple[int, ...]


class Thinker:
    """Encoders, the short token-causal pass and decoders, over one cache."""

    def __init__(
        self,
        graphs: Mapping[str, Executable],
        cache: BackboneCache,
        tokenizer: Tokenizer,
        clock: GraphClock,
        shares_cache: bool,
    ) -> None:
        self.cache = cache
        config = cache.config
        self._config, self._tokenizer, self._clock = config, tokenizer, clock
        self.states: dict[str, State] = {
            name: graphs[name].new_state()
            for name in ("audio_encoder", "video_encoder", "audio_decoder", "video_decoder")
        }
        layout = cache.layout
        self._layout = layout
        self._text_embed = graphs["text_embed"]

        # The encoders write their tokens straight into the backbone's input.
        self._user = cache.block(layout.user)
        embeddings = self._user.embeddings
        self._audio_ring = audio_encoder_ring(config)
        self._hears_whole_ring = False
        self._rope = RopeTable(token_positions(0, self._audio_ring.slots), config.backbone)
        self._hear = graphs["audio_encoder"].prepare(
            self.states["audio_encoder"], bound={"tokens": embeddings[:, layout.parts["user_audio"]]}
        )
        self._see = graphs["video_encoder"].prepare(
            self.states["video_encoder"], bound={"tokens": embeddings[:, layout.parts["user_video"]]}
        )
        self._read = self._embedder(config.text.user_slots, embeddings[:, layout.parts["user_text"]], USER_ROLE)

        # The state token and the text tokens, one by one, each with the head that chooses the next.
        self._tokens = [self._token(slot) for slot in range(layout.thought.start, layout.thought.stop)]
        blocks = [self._user, *(token.block for token in self._tokens[:-1])]
        self._heads = [_head(graphs["text_head"], block) for block in blocks]

        self._speak = graphs["audio_decoder"].prepare(self.states["audio_decoder"])
        self._show = graphs["video_decoder"].prepare(self.states["video_decoder"])
        # With a cache of its own the thinker must write the clean latents into it, too.
        self._writer = None if shares_cache else MediaWriter(graphs, cache, clock)

    def prefill(self, ids: list[int]) -> None:
        """Write the world text to the cache (paper v0.3: once, before streaming)."""
        call = self._text_embed.prepare(self._text_embed.new_state(), {"S": len(ids)})
        call.inputs["ids"][0] = ids
        call.inputs["roles"][:] = WORLD_ROLE
        self._clock.run(call)
        self.cache.write_prefill(call.outputs["embeddings"])

    def observe(self, user: UserUnit, text: list[int]) -> None:
        """Encode the visitor's unit into the backbone's next block. text: ids, one per user text slot."""
        self._read.inputs["ids"][0] = text
        self._clock.run(self._read)
        hear, ring = self._hear.inputs, self._audio_ring
        hear["pcm"][0] = user.audio
        self._rope.write(user.index * ring.slots, hear["cos"][0], hear["sin"][0])
        if not self._hears_whole_ring:  # from then on every slot stays visible
            hear["mask"][0, 0] = ring.visible(user.index, ring.slots, 0)
            self._hears_whole_ring = user.index >= ring.units
        hear["write_index"][0] = ring.start(user.index)
        self._clock.run(self._hear)
        self._see.inputs["frames"][0] = user.frames
        self._clock.run(self._see)

    def begin_again(self) -> None:
        """Take over states that were reset or restored: what was derived from earlier units is derived again."""
        self._hears_whole_ring = False

    def think(self, unit: int, sampler: Sampler, *, stop: bool = False) -> Thought:
        """Run the user block, then choose the state token and the text tokens one by one.

        stop: choose as after an interruption: the model's stop state, if it has one, and no text.
        """
        self.cache.begin(unit)
        self.cache.run(self._user)
        chosen: list[int] = []
        for number, (head, token) in enumerate(zip(self._heads, self._tokens, strict=True)):
            self._clock.run(head)
            choices = self._tokenizer.choices(number, stop)
            chosen.append(sampler.choose(head.outputs["logits"][0, 0], choices, unit, number))
            token.embed.inputs["ids"][0, 0] = chosen[-1]
            self._clock.run(token.embed)
            self.cache.run(token.block)
        return Thought(chosen[0], tuple(chosen[1:]))

    def hand_over(self, unit: int) -> KvSlice:
        """The keys and values this unit added: what a performer with a cache of its own needs."""
        return self.cache.read(unit, slice(0, self._layout.thought.stop))

    def decode(self, latents: Latents, unit: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Audio [samples] and frames [4, H, W, 3] of finished latents, as arrays of their own."""
        self._speak.inputs["latents"][:] = latents.audio
        self._clock.run(self._speak)
        self._show.inputs["latents"][:] = latents.video
        self._clock.run(self._show)
        audio = self._speak.outputs["pcm"][0]
        if not all_finite(audio):
            raise ExecutionError(
                f"audio_decoder gave NaN or infinity in unit {unit}",
                hint="find the first bad tensor with `wanedge validate`, or restore an earlier state",
            )
        return audio.clip(-1.0, 1.0), self._show.outputs["frames"][0].copy()

    def commit(self, unit: int, latents: Latents) -> None:
        """Write the clean keys and values of finished latents, where the cache is the thinker's own."""
        if self._writer is None:
            return
        self._writer.latents.audio[:], self._writer.latents.video[:] = latents.audio, latents.video
        self.cache.begin(unit)
        self._writer.commit()

    def _embedder(self, tokens: int, embeddings: NDArray[np.float32], role: int) -> Call:
        call = self._text_embed.prepare(self._text_embed.new_state(), {"S": tokens}, {"embeddings": embeddings})
        call.inputs["roles"][:] = role
        return call

    def _token(self, slot: int) -> "_Token":
        block = self.cache.block(slice(slot, slot + 1))
        return _Token(self._embedder(1, block.embeddings, AGENT_ROLE), block)


@dataclass(frozen=True)
class _Token:
    """One thought slot: id -> embedding -> backbone, in the same memory."""

    embed: Call
    block: Block


def _head(graph: Executable, block: Block) -> Call:
    """Logits after the block's last token."""
    return graph.prepare(graph.new_state(), {"S": 1}, {"hidden": block.hidden[:, -1:]})


def all_finite(x: NDArray[np.float32]) -> bool:
    """Whether `x` [n] holds neither NaN nor infinity; one pass, as both survive a sum of squares."""
    return math.isfinite(float(np.dot(x, x)))
