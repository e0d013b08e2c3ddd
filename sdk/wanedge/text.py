"""Text in and out: the tokenizer, its special tokens, and words that come out a few tokens at a time."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wanedge.byte_bpe import ByteBpe, UnsupportedTokenizer
from wanedge.config import ModelConfig
from wanedge.extras import import_extra
from wanedge_runtimes.errors import GraphError, InputError, WanEdgeError

STOP = "<stop>"  # the state of an agent that was interrupted
PAD = "<pad>"  # an empty text slot
WORLD = "<world>"  # always the first slot of the prefill, so a mask row is never empty


class _Codec(Protocol):
    """Text to ids and back; special tokens in a text are ordinary characters, and are left out of what is decoded."""

    @property
    def size(self) -> int: ...
    def token_to_id(self, token: str) -> int | None: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...


class _LibraryCodec:
    """A tokenizer of any kind, by the library `tokenizers`."""

    def __init__(self, library: Any, path: Path) -> None:
        self._tokenizer = library.Tokenizer.from_file(str(path))
        self._tokenizer.encode_special_tokens = True  # a user must not be able to type control tokens

    @property
    def size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def token_to_id(self, token: str) -> int | None:
        number: int | None = self._tokenizer.token_to_id(token)
        return number

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


def _open_codec(path: Path) -> _Codec:
    try:
        return ByteBpe.from_file(path)
    except UnsupportedTokenizer as error:
        return _LibraryCodec(import_extra("tokenizers", "tokenizers", f"{path.name} ({error})"), path)


class Tokenizer:
    """A `tokenizer.json` with the model's special tokens resolved.

    Raises GraphError when the file lacks a special token or has ids outside the model's vocabulary, MissingExtra when
    it is no byte-level BPE and the library `tokenizers` is not installed.
    """

    def __init__(self, path: Path, config: ModelConfig) -> None:
        hint = "the tokenizer belongs to another model; export the bundle again"
        try:
            self._codec = _open_codec(path)
        except WanEdgeError:
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises bare Exception, and panics, which are none, over odd files
            raise GraphError(f"{path.name} is not a tokenizer file ({error})", hint=hint) from error
        names = (PAD, WORLD, *config.text.states)
        special = {name: token for name in names if (token := self._codec.token_to_id(name)) is not None}
        missing = [name for name in names if name not in special]
        if missing:
            raise GraphError(f"{path.name} lacks the special tokens {missing}", hint=hint)
        if self._codec.size > config.text.vocabulary:
            raise GraphError(
                f"{path.name} has {self._codec.size} tokens, the model {config.text.vocabulary}",
                hint=hint,
            )
        self.pad = special[PAD]
        self.world = special[WORLD]
        self.states = {special[name]: name for name in config.text.states}
        size = self._codec.size
        self.state_choices: NDArray[np.intp] = np.array(sorted(self.states), dtype=np.intp)
        self.text_choices: NDArray[np.intp] = np.array(
            [i for i in range(size) if i not in self.states and i != self.world], dtype=np.intp
        )
        stop = [token for token, name in self.states.items() if name == STOP]
        self._stop_choices = np.array(stop, dtype=np.intp) if stop else self.state_choices
        self._no_text: NDArray[np.intp] = np.array([self.pad], dtype=np.intp)

    def choices(self, number: int, stop: bool) -> NDArray[np.intp]:
        """Ids that the `number`-th token of a thought may be: a state (0), then text.

        stop: those after an interruption, which are the stop state, if the model has one, and padding.
        """
        if stop:
            return self._stop_choices if number == 0 else self._no_text
        return self.text_choices if number else self.state_choices

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; special tokens written in it are taken as ordinary characters."""
        return self._codec.encode(text)

    def encode_world(self, world: str, limit: int) -> list[int]:
        """`<world>` and the tokens of the world text. Raises InputError when they exceed `limit` slots."""
        ids = [self.world, *self.encode(world)]
        if len(ids) > limit:
            raise InputError(
                f"the world text has {len(ids)} tokens and the model's prefill holds {limit}",
                hint=f"shorten the text by about {1 - limit / len(ids):.0%}",
            )
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, special tokens left out."""
        return self._codec.decode(ids)


class TextStream:
    """Joins tokens into text as they come, holding back bytes of an unfinished character.

    A character may be spread over tokens of several units; U+FFFD at the end means that it is not complete yet.
    """

    _LONGEST_CHARACTER = 4  # bytes of UTF-8, and at worst one token per byte

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.pending: list[int] = []

    def push(self, ids: list[int]) -> str:
        """Text completed by `ids` (pads are ignored)."""
        self.pending += [i for i in ids if i != self._tokenizer.pad]
        if not self.pending:
            return ""
        text = self._tokenizer.decode(self.pending)
        if text.endswith("\ufffd") and len(self.pending) < self._LONGEST_CHARACTER:
            return ""
        self.pending = []
        return text
