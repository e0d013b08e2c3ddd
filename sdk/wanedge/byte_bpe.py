"""Byte-level BPE from a `tokenizer.json`: text to token ids and back, as the library `tokenizers` does it.

The library brings 45 MB of packages for model hubs, which a device never imports. This module reads the one kind of
file that wanedge writes; `tests/sdk/test_byte_bpe.py` compares it with the library on random text and every code point.
"""

import heapq
import json
import re
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

# Unicode's White_Space. Python's \s has four more control characters.
_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


class UnsupportedTokenizer(ValueError):
    """The file is a tokenizer of another kind: one for the library `tokenizers`."""


class _Added(NamedTuple):
    content: str
    id: int
    special: bool
    normalized: bool


class ByteBpe:
    """A byte-level BPE tokenizer. Special tokens that are written in a text are taken as ordinary characters.

    Raises UnsupportedTokenizer for another kind of tokenizer, ValueError or KeyError for a damaged file.
    """

    def __init__(self, content: str) -> None:
        document = json.loads(content)
        model = document["model"]
        _require_byte_bpe(document, model)
        self._vocabulary: dict[str, int] = dict(model["vocab"])
        missing = [char for char in _byte_chars().values() if char not in self._vocabulary]
        if missing:
            raise UnsupportedTokenizer(f"{len(missing)} bytes are no tokens")
        self._ignore_merges = bool(model.get("ignore_merges"))
        self._merges: dict[tuple[int, int], tuple[int, int]] = {}  # pair of ids -> rank, merged id
        for rank, merge in enumerate(model["merges"]):
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            ids = self._vocabulary[left], self._vocabulary[right]
            self._merges[ids] = rank, self._vocabulary[left + right]
        self._added = [
            _Added(token["content"], token["id"], token["special"], token["normalized"])
            for token in document.get("added_tokens") or ()
        ]
        self._ids = self._vocabulary | {token.content: token.id for token in self._added}
        self._tokens = {i: token for token, i in self._vocabulary.items()}
        self._tokens |= {token.id: token.content for token in self._added}
        self._special = {token.id for token in self._added if token.special}
        # The library looks for the tokens that normalization does not touch first, then for the others.
        self._splits = [_split_pattern([t for t in self._added if t.normalized is late]) for late in (False, True)]
        self._words: dict[str, tuple[int, ...]] = {}

    @classmethod
    def from_file(cls, path: Path) -> "ByteBpe":
        return cls(path.read_text("utf-8"))

    @property
    def size(self) -> int:
        """Number of tokens, the added ones included."""
        return len(self._ids)

    def token_to_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def encode(self, text: str) -> list[int]:
        """Token ids. An added token that is not special, such as "(waves)", is one id wherever it stands."""
        pieces: list[str | int] = [text]
        for pattern in self._splits:
            pieces = [part for piece in pieces for part in self._split(piece, pattern)]
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                ids.append(piece)
            else:
                for word in _word_pattern().findall(piece):
                    ids += self._encode_word(word)
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, special tokens left out; U+FFFD for bytes that are no whole character."""
        chars = _char_bytes()
        content = bytearray()
        for i in ids:
            token = self._tokens.get(i)
            if token is None or i in self._special:
                continue
            if all(char in chars for char in token):
                content += bytes(chars[char] for char in token)
            else:  # an added token is text as it stands
                content += token.encode()
        return content.decode("utf-8", "replace")

    def _split(self, piece: str | int, pattern: re.Pattern[str] | None) -> list[str | int]:
        if isinstance(piece, int) or pattern is None:
            return [piece]
        parts: list[str | int] = []
        start = 0
        for match in pattern.finditer(piece):
            token = self._ids[match.group()]
            if token in self._special:
                continue
            parts += [piece[start : match.start()], token]
            start = match.end()
        return [part for part in (*parts, piece[start:]) if part != ""]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        known = self._words.get(word)
        if known is None:
            known = self._merge("".join(_byte_chars()[byte] for byte in word.encode()))
            if len(self._words) < 10_000:  # a session runs for months
                self._words[word] = known
        return known

    def _merge(self, chars: str) -> tuple[int, ...]:
        """The pair of the lowest rank first, the leftmost of equals, until no pair has a rank."""
        if self._ignore_merges and chars in self._vocabulary:
            return (self._vocabulary[chars],)
        ids = [self._vocabulary[char] for char in chars]
        after = [*range(1, len(ids)), -1]
        before = list(range(-1, len(ids) - 1))
        alive = [True] * len(ids)
        queue: list[tuple[int, int, int, int]] = []  # rank, position, left id, right id

        def offer(left: int, right: int) -> None:
            merge = self._merges.get((ids[left], ids[right]))
            if merge is not None:
                heapq.heappush(queue, (merge[0], left, ids[left], ids[right]))

        for left, right in pairwise(range(len(ids))):
            offer(left, right)
        while queue:
            _, left, left_id, right_id = heapq.heappop(queue)
            right = after[left]
            if not alive[left] or right < 0 or (ids[left], ids[right]) != (left_id, right_id):
                continue  # a neighbour was merged meanwhile
            ids[left] = self._merges[left_id, right_id][1]
            alive[right] = False
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
                offer(left, after[left])
            if before[left] >= 0:
                offer(before[left], left)
        return tuple(i for i, living in zip(ids, alive, strict=True) if living)


def _require_byte_bpe(document: dict[str, Any], model: dict[str, Any]) -> None:
    before, after = document.get("pre_tokenizer") or {}, document.get("decoder") or {}
    expected = {
        "the model is BPE": model.get("type") == "BPE",
        "no dropout": not model.get("dropout"),
        "no affixes": not (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")),
        "no normalizer": document.get("normalizer") is None,
        "byte-level words": before.get("type") == "ByteLevel" and before.get("use_regex", True),
        "no prefix space": not before.get("add_prefix_space"),
        "byte-level decoder": after.get("type") == "ByteLevel",
        "no truncation or padding": not (document.get("truncation") or document.get("padding")),
        "added tokens without rules": not any(
            token.get("single_word") or token.get("lstrip") or token.get("rstrip")
            for token in document.get("added_tokens") or ()
        ),
    }
    failed = [what for what, holds in expected.items() if not holds]
    if failed:
        raise UnsupportedTokenizer(f"not what is read here: {', '.join(failed)}")


def _split_pattern(tokens: list[_Added]) -> re.Pattern[str] | None:
    """Leftmost, and of those that begin at one place the longest."""
    contents = sorted((token.content for token in tokens if token.content), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, contents))) if contents else None


@cache
def _byte_chars() -> dict[int, str]:
    """A printable character for every byte: its own in Latin-1 where that is one, else from U+0100 on (GPT-2)."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


@cache
def _char_bytes() -> dict[str, int]:
    return {char: byte for byte, char in _byte_chars().items()}


@cache
def _word_pattern() -> re.Pattern[str]:
    """GPT-2's words. Letters and digits are the library's, whose Unicode is newer than some Pythons'."""
    table = json.loads(files("wanedge").joinpath("unicode_words.json").read_text("ascii"))
    letters, digits = ("".join(f"\\U{int(a, 16):08x}-\\U{int(b, 16):08x}" for a, b in table[key]) for key in ("L", "N"))
    return re.compile(
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?[{letters}]+| ?[{digits}]+| ?[^{_SPACE}{letters}{digits}]+"
        rf"|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    )
