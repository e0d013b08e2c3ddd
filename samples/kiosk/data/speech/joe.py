"""The guide's voice: piper's CC0 network `joe`, run directly, with the time of every word.

Phonemes come from the tool espeak-ng, as in piper itself. The network's two sources of noise are switched off: a text
then always sounds the same, and the lengths that the network gives to each phoneme say where the words are.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import soxr
from numpy.typing import NDArray

from samples.kiosk.data.speech.clip import SAMPLE_RATE, Clip, Recipe, Samples, trimmed
from samples.kiosk.data.speech.voices import INSTALL, called
from samples.kiosk.tools import JOE
from wanedge_runtimes.errors import ExecutionError, InputError, MissingExtra

TEMPI: Final = (0.92, 1.0, 1.08)  # factors on every phoneme's length
SENTENCE_PAUSE_S: Final = 0.12
NO_NOISE: Final = (0.0, 0.0)  # of the voice and of the phonemes' lengths

_BEGIN, _END, _PAD, _GAP = "^", "$", "_", " "
_CLAUSE = re.compile(r"([^.,!?;:]+)([.,!?;:]?)")
_SENTENCE_ENDS: Final = ".!?"


@dataclass(frozen=True)
class _Word:
    """A word's place, in phonemes of its sentence."""

    first: int
    last: int  # exclusive


@dataclass(frozen=True)
class _Sentence:
    phonemes: tuple[str, ...]
    words: tuple[_Word, ...]


def joe(text: str, tempo: float = 1.0) -> Recipe:
    """The recipe of `text` said by the guide."""
    return Recipe("joe", "en_US-joe-medium", text, (("tempo", tempo),))


def say(recipe: Recipe) -> Clip:
    """The recipe's text in the guide's voice; `words` holds one span for each word between blanks.

    Raises MissingExtra when the voice or espeak-ng is not installed, InputError for a text without words.
    """
    sentences = _sentences(recipe.text)
    if not sentences:
        raise InputError(f"{recipe.text!r} has no words to say", hint="give a text with at least one word")
    pause = np.zeros(round(SENTENCE_PAUSE_S * _rate()), np.float32)
    parts: list[Samples] = []
    spans: list[tuple[int, int]] = []
    at = 0  # samples at the voice's own rate
    for sentence in sentences:
        pcm, edges = _synthesize(sentence.phonemes, recipe.options["tempo"])
        spans += [(at + start, at + end) for start, end in _spans(sentence, edges)]
        parts += [pcm, pause]
        at += pcm.size + pause.size
    voice = np.asarray(soxr.resample(np.concatenate(parts), _rate(), SAMPLE_RATE), np.float32)
    return trimmed(voice, np.rint(np.array(spans) * (SAMPLE_RATE / _rate())).astype(np.int64))


def _spans(sentence: _Sentence, edges: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Start and end sample of each word. Words that run into each other share the blank between them."""
    starts = [int(edges[word.first]) for word in sentence.words]
    ends = [int(edges[word.last]) for word in sentence.words]
    for i, (word, after) in enumerate(pairwise(sentence.words)):
        if sentence.phonemes[word.last : after.first] == (_GAP,):
            ends[i] = starts[i + 1] = (ends[i] + starts[i + 1]) // 2
    return list(zip(starts, ends, strict=True))


def _synthesize(phonemes: Sequence[str], tempo: float) -> tuple[Samples, NDArray[np.int64]]:
    """Speech [n] at the voice's rate, and the sample at which each phoneme starts, with the end [phonemes + 1]."""
    known = _settings()["phoneme_id_map"]
    missing = sorted(set(phonemes) - set(known))
    if missing:
        raise ExecutionError(
            f"the guide's voice has no phonemes {missing}", hint="another espeak-ng? this voice was made with 1.5x"
        )
    ids = [known[_BEGIN][0], known[_PAD][0]]
    for phoneme in phonemes:
        ids += [known[phoneme][0], known[_PAD][0]]
    ids.append(known[_END][0])
    pcm, lengths = _network().run(
        None,
        {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([NO_NOISE[0], tempo, NO_NOISE[1]], np.float32),
        },
    )
    pcm, lengths = pcm.reshape(-1), lengths.reshape(-1)
    starts = np.concatenate([[0], np.cumsum(lengths)]) * (pcm.size / lengths.sum())
    # Every symbol is followed by a pad, so phoneme i of the sentence begins at id 2 + 2 i.
    return pcm.astype(np.float32), starts[2 : 2 + 2 * len(phonemes) + 1 : 2].astype(np.int64)


def _sentences(text: str) -> tuple[_Sentence, ...]:
    sentences: list[_Sentence] = []
    phonemes: list[str] = []
    words: list[_Word] = []
    for clause, mark in _CLAUSE.findall(text):
        if not clause.strip():
            continue
        if phonemes:
            phonemes.append(_GAP)
        groups = _ipa(clause.strip())
        words += _placed(clause.split(), groups, len(phonemes))
        phonemes += list(_GAP.join(groups)) + ([mark] if mark else [])
        if mark and mark in _SENTENCE_ENDS:
            sentences.append(_Sentence(tuple(phonemes), tuple(words)))
            phonemes, words = [], []
    if phonemes:
        sentences.append(_Sentence(tuple(phonemes), tuple(words)))
    return tuple(sentences)


def _placed(words: Sequence[str], groups: Sequence[str], at: int) -> list[_Word]:
    """Each word's phonemes. espeak-ng runs unstressed words together ("on the"), so a group may hold several."""
    if len(groups) == len(words):
        shares = [[1] for _ in words]
    else:
        alone = [sum(len(group) for group in _ipa(word)) for word in words]
        shares = _distributed(alone, [len(group) for group in groups])
    placed: list[_Word] = []
    for group, share in zip(groups, shares, strict=True):
        cuts = np.rint(np.concatenate([[0], np.cumsum(share)]) / sum(share) * len(group)).astype(int)
        placed += [_Word(at + int(first), at + int(last)) for first, last in pairwise(cuts)]
        at += len(group) + 1
    return placed


def _distributed(words: Sequence[int], groups: Sequence[int]) -> list[list[int]]:
    """The words' lengths cut into a run for each group, so that the runs' sums come closest to the groups' lengths."""
    if len(groups) > len(words):
        raise ExecutionError(
            f"espeak-ng made {len(groups)} groups of phonemes from {len(words)} words",
            hint="write numbers and abbreviations as words",
        )
    best = min(
        combinations(range(1, len(words)), len(groups) - 1),
        key=lambda cuts: sum(
            abs(sum(words[first:last]) - length)
            for (first, last), length in zip(pairwise((0, *cuts, len(words))), groups, strict=True)
        ),
    )
    return [list(words[first:last]) for first, last in pairwise((0, *best, len(words)))]


@cache
def _ipa(text: str) -> tuple[str, ...]:
    """Phonemes of a clause, in groups between blanks."""
    output = called(["espeak-ng", "-q", "--ipa", "-v", _settings()["espeak"]["voice"], "--stdin"], text)
    return tuple(unicodedata.normalize("NFD", output.decode()).split())


def _rate() -> int:
    return int(_settings()["audio"]["sample_rate"])


@cache
def _settings() -> dict[str, Any]:
    path = JOE.with_name(JOE.name + ".json")
    if not path.exists():
        raise MissingExtra("the guide's voice `joe` is not installed", hint=INSTALL)
    settings: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return settings


@cache
def _network() -> onnxruntime.InferenceSession:
    """The voice with a second output: the frames of each phoneme id, which the network rounds up (its only Ceil)."""
    model = onnx.load(JOE)
    (lengths,) = [node.output[0] for node in model.graph.node if node.op_type == "Ceil"]
    model.graph.output.append(onnx.helper.make_tensor_value_info(lengths, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # data workers are processes; threads inside each would fight for the cores
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
