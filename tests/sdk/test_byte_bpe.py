"""The device's own byte-level BPE equals the library: the same ids and text, for every code point and random text."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanedge.byte_bpe import ByteBpe, UnsupportedTokenizer
from wanedge.config import PRESETS
from wanedge.text import Tokenizer
from wanedge_runtimes.errors import MissingExtra

tokenizers = pytest.importorskip("tokenizers", reason="the library to compare with: pip install 'wanedge[tokenizers]'")

LOBBY = Path(__file__).parents[2] / "export/wanedge_export/tokenizer/lobby.json"
DOCUMENT = json.loads(LOBBY.read_text("utf-8"))
OURS = ByteBpe.from_file(LOBBY)


def library(document: dict[str, Any]) -> Any:
    """The tokenizer of the library that ours is compared with."""
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(document))
    tokenizer.encode_special_tokens = True
    return tokenizer


THEIRS = library(DOCUMENT)
TOKENS = sorted(DOCUMENT["model"]["vocab"]) + [token["content"] for token in DOCUMENT["added_tokens"]]
# Words of the corpus, control tokens, gestures, contractions, spaces of every kind, and anything at all.
PIECES = st.one_of(
    st.sampled_from(TOKENS),
    st.sampled_from(
        ["'ll", "'S", "  ", "\t\n", " \u00a0", "\u3000", "\x1c", "\r\n ", "(waves", "<stop", "e\u0301", "1\u00b2"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.text("aehlot ", max_size=20),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@given(TEXTS)
def test_any_text_has_the_librarys_ids_and_comes_back(text: str) -> None:
    ids = OURS.encode(text)
    assert ids == THEIRS.encode(text, add_special_tokens=False).ids
    assert OURS.decode(ids) == text


@given(st.lists(st.integers(0, OURS.size + 5), max_size=24))
def test_any_ids_are_decoded_as_by_the_library(ids: list[int]) -> None:
    """Tokens are pieces of bytes, so that most sequences hold characters that are not whole."""
    assert OURS.decode(ids) == THEIRS.decode(ids, skip_special_tokens=True)


@pytest.mark.slow
def test_every_code_point_is_a_letter_a_digit_a_space_or_another_as_in_the_library() -> None:
    """Each between letters, digits and spaces, where its class decides which words there are."""
    codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(codes), 2000):
        text = "".join(f"a{chr(code)}a 1{chr(code)}1 {chr(code)} !{chr(code)}!" for code in codes[start : start + 2000])
        assert OURS.encode(text) == THEIRS.encode(text, add_special_tokens=False).ids


def test_the_vocabulary_is_the_librarys() -> None:
    assert OURS.size == THEIRS.get_vocab_size()
    for token in [*TOKENS, "no such token"]:
        assert OURS.token_to_id(token) == THEIRS.token_to_id(token)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.text("abcd", min_size=1, max_size=60))
def test_merges_in_any_order_are_applied_as_by_the_library(seed: int, ignore_merges: bool, text: str) -> None:
    """Ranks that no training would give: a longer merge may come before the ones that it is made of."""
    rng = np.random.default_rng(seed)
    vocab = {token: i for token, i in DOCUMENT["model"]["vocab"].items() if len(token) == 1}
    merges: set[tuple[str, str]] = set()
    parts = list("abcd")
    for _ in range(20):
        left, right = (parts[int(i)] for i in rng.integers(len(parts), size=2))
        vocab.setdefault(left + right, 2000 + len(vocab))
        merges.add((left, right))
        parts.append(left + right)
    order = [list(merge) for merge in sorted(merges)]
    rng.shuffle(order)
    model = {**DOCUMENT["model"], "vocab": vocab, "merges": order, "ignore_merges": ignore_merges}
    document = {**DOCUMENT, "model": model, "added_tokens": []}
    expected = library(document).encode(text, add_special_tokens=False).ids
    assert ByteBpe(json.dumps(document)).encode(text) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"decoder": None},
        {"model": {**DOCUMENT["model"], "dropout": 0.1}},
        {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}},
        {"added_tokens": [{**DOCUMENT["added_tokens"][0], "lstrip": True}]},
    ],
)
def test_another_kind_of_tokenizer_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedTokenizer):
        ByteBpe(json.dumps({**DOCUMENT, **change}))


def test_a_bundle_with_another_kind_is_read_by_the_library_or_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**DOCUMENT, "normalizer": {"type": "NFC"}}))
    config = PRESETS["tiny"]
    decomposed = Tokenizer(path, config).encode("cafe\u0301")
    assert decomposed == Tokenizer(LOBBY, config).encode("caf\u00e9")  # normalized by the library
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra, match="no normalizer") as caught:
        Tokenizer(path, config)
    assert caught.value.hint == "pip install 'wanedge[tokenizers]'"
    assert Tokenizer(LOBBY, config).encode("hello") == OURS.encode("hello")
