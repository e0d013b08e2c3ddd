"""Claims about duplex conversations: the guide's truth follows from the past, and media and labels agree."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples.kiosk import tools
from samples.kiosk.data.duplex import script as scripts
from samples.kiosk.data.duplex.__main__ import film, timeline
from samples.kiosk.data.duplex.media import (
    FADE_SAMPLES,
    guide_audio,
    guide_cues,
    guide_thoughts,
    guide_video,
    visitor_audio,
    visitor_talk,
    visitor_video,
)
from samples.kiosk.data.duplex.plot import write_script
from samples.kiosk.data.duplex.script import FRAME_SAMPLES, KINDS, UNIT_SAMPLES, Kind, Phrase, Script, right_replies
from samples.kiosk.data.pictures.visitors import VisitorTruth
from samples.kiosk.data.speech.intents import HELD_OUT_WORLDS, TRAINING_WORLDS, World, behaviours, expected_reply
from samples.kiosk.data.speech.utterances import GuideUtterance, Utterance, Word
from samples.kiosk.data.speech.voices import SPLITS, installed

from wanedge.config import FPS, TINY
from wanedge.media import AudioChunk, VideoChunk
from wanedge.media.files import read_media
from wanedge.text import Tokenizer
from wanedge_export.tokenizer import LOBBY
from wanedge_runtimes.errors import InputError

needs_voices = pytest.mark.skipif(
    not (installed("flite") and installed("espeak-ng") and tools.JOE.exists()),
    reason="the voices are not installed; install them with: python -m samples.kiosk.tools",
)

TOKENIZER = Tokenizer(LOBBY, TINY)
NAMES = {name: token for token, name in TOKENIZER.states.items()}
UNITS = 110
SEEDS = range(4)

kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 5)


@cache
def script_of(kind: Kind, seed: int, units: int = UNITS) -> Script:
    return write_script("train", seed, units, kind)


def thoughts(script: Script, slots: int = 2) -> tuple[np.ndarray, np.ndarray]:
    return guide_thoughts(script, script.truth, TOKENIZER, slots)


def all_scripts() -> list[Script]:
    return [script_of(kind, seed) for kind in KINDS for seed in SEEDS]


# The rules, without any voice


def phrase(start_s: float, seconds: float, intent: str = "toilets", answered: bool = True) -> Phrase:
    start, count = round(start_s * 16_000), round(seconds * 16_000)
    said = Utterance(np.zeros(count, np.float32), 16_000, intent, "", "", 0, count)
    return Phrase(start, start + count, said, answered)


def seen(frames: int, appears: tuple[int, ...] = (), until: int | None = None) -> VisitorTruth:
    present = np.arange(frames) >= (appears[0] if appears else 0)
    present[until:] &= until is None
    return VisitorTruth(present, np.where(present, 0, np.nan).astype(np.float32), appears, ())


@pytest.fixture
def two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reply lasts 12.5 units."""

    def said(text: str) -> GuideUtterance:
        return GuideUtterance(np.ones(32_000, np.float32), 16_000, text, (Word(text, 0, 32_000),), 0, 32_000)

    monkeypatch.setattr(scripts, "said", said)


@pytest.mark.usefixtures("two_seconds")
class TestRules:
    def test_a_phrase_is_answered_two_units_after_its_end_and_text_leads_by_one(self) -> None:
        (reply,) = right_replies([phrase(0.5, 1.1)], seen(200), World())  # ends exactly with unit 9
        assert (reply.text_unit, reply.speech_unit, reply.end_unit) == (11, 12, 25)
        assert reply.text == expected_reply("toilets", World())

    def test_who_appears_is_greeted(self) -> None:
        (reply,) = right_replies([], seen(200, (43,)), World())
        assert (reply.cause, reply.phrase, reply.text_unit) == ("appears", None, 12)
        assert reply.text == expected_reply("greeting", World())

    def test_who_appears_talking_is_answered_and_not_greeted(self) -> None:
        (reply,) = right_replies([phrase(12.5 * 0.16, 1.0)], seen(200, (43,)), World())
        assert reply.cause == "phrase"

    def test_who_is_gone_again_is_not_greeted(self) -> None:
        assert right_replies([], seen(200, (43,), until=47), World()) == ()

    def test_an_interruption_stops_the_guide_and_is_answered(self) -> None:
        first, second = right_replies([phrase(0.5, 1.0), phrase(16.4 * 0.16, 1.0, "lift")], seen(300), World())
        assert first.interrupted_at == first.end_unit == 18
        assert second.phrase == 1
        assert second.interrupted_at is None
        assert second.text == expected_reply("lift", World())

    def test_a_phrase_too_late_to_stop_the_guide_lets_it_end(self) -> None:
        first, second = right_replies([phrase(0.5, 1.0), phrase(23.4 * 0.16, 1.0)], seen(300), World())
        assert first.interrupted_at is None
        assert first.end_unit == 25
        assert second.text_unit > first.end_unit

    def test_a_false_start_is_not_answered(self) -> None:
        (reply,) = right_replies([phrase(0.5, 0.4, answered=False), phrase(1.1, 1.0)], seen(200), World())
        assert reply.phrase == 1

    @given(st.lists(st.tuples(st.integers(2, 60), st.integers(2, 12)), max_size=6), st.integers(0, 300))
    @settings(max_examples=60, deadline=None)
    def test_replies_never_overlap_and_none_is_lost(self, talk: list[tuple[int, int]], appears: int) -> None:
        at, phrases = 0, []
        for gap, units in talk:
            at += gap
            phrases.append(phrase(at * 0.16, units * 0.16))
            at += units
        replies = right_replies(phrases, seen(4 * (at + 100), (appears,)), World())
        assert sorted(r.phrase for r in replies if r.phrase is not None) == list(range(len(phrases)))
        for earlier, later in pairwise(replies):
            assert later.text_unit > earlier.end_unit


def test_misuse_is_named() -> None:
    with pytest.raises(InputError, match="chat"):
        write_script("train", 1, 60, "chat")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="split"):
        write_script("test", 1, 60)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 units"):
        write_script("train", 1, 0)
    with pytest.raises(InputError, match="world"):
        write_script("train", 1, 60, worlds=())
    with pytest.raises(InputError, match="slots"):
        thoughts(script_of("empty", 1), slots=0)
    with pytest.raises(InputError, match="shape"):
        visitor_video(script_of("empty", 1), 96, 160)


# Whole scripts


@needs_voices
@given(kinds, seeds, st.sampled_from(SPLITS), st.integers(1, 90))
@settings(max_examples=12, deadline=None)
def test_the_same_arguments_give_the_same_conversation(kind: Kind, seed: int, split: str, units: int) -> None:
    one, two = (write_script(split, seed, units, kind) for _ in range(2))  # type: ignore[arg-type]
    assert one.replies == two.replies
    np.testing.assert_array_equal(visitor_audio(one), visitor_audio(two))
    np.testing.assert_array_equal(guide_audio(one), guide_audio(two))
    for a, b in zip(thoughts(one), thoughts(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert visitor_audio(one).shape == guide_audio(one).shape == (units * UNIT_SAMPLES,)
    assert visitor_audio(one).dtype == guide_audio(one).dtype == np.float32
    assert thoughts(one)[0].shape == (units,)


@needs_voices
def test_each_kind_is_what_it_says() -> None:
    for script in all_scripts():
        match script.kind:
            case "interruption":
                assert any(r.interrupted_at is not None for r in script.replies)
            case "false start":
                assert not all(p.answered for p in script.phrases)
            case "two questions":
                first, second = (r for r in script.replies if r.cause == "phrase")
                gap = script.phrases[second.phrase or 0].start - first.end_unit * UNIT_SAMPLES
                assert 16_000 <= gap <= 40_000
            case "empty":
                assert not script.phrases
                assert not script.replies
                assert not script.truth.present.any()
            case "arrival":
                assert not script.phrases
                assert script.truth.appears
                assert len(script.replies) == len(script.truth.appears)
            case "long silence":
                assert script.truth.present.sum() > 150
                assert len(script.phrases) <= 1
            case "conversation":
                assert 1 <= len(script.phrases) <= 4


@needs_voices
def test_half_of_the_conversations_begin_with_the_visitor_there_who_is_not_greeted() -> None:
    scripts = [write_script("train", seed, 60) for seed in range(60)]
    there = [script for script in scripts if script.truth.present[0]]
    assert 18 <= len(there) <= 42
    assert all(reply.cause == "phrase" for script in there for reply in script.replies)


@needs_voices
def test_who_speaks_is_in_view_and_every_phrase_is_answered_in_time() -> None:
    for script in all_scripts():
        answers = {reply.phrase: reply for reply in script.replies if reply.cause == "phrase"}
        assert set(answers) == {index for index, p in enumerate(script.phrases) if p.answered}
        for index, said in enumerate(script.phrases):
            assert script.truth.present[said.start // FRAME_SAMPLES : (said.end - 1) // FRAME_SAMPLES + 1].all()
            if said.answered:
                assert answers[index].text == expected_reply(said.utterance.intent, script.world)
                assert answers[index].text_unit >= said.last_unit + 2
            else:
                again = script.phrases[index + 1]
                assert again.answered
                assert again.utterance.text == said.utterance.text
                assert again.first_unit <= said.last_unit + 1
                assert again.start > said.end
        assert all(reply.end_unit <= script.units for reply in script.replies)


@needs_voices
def test_the_guide_sounds_in_its_replies_only_and_from_their_first_sample() -> None:
    for script in all_scripts():
        pcm = guide_audio(script)
        speaks = np.zeros(pcm.size, bool)
        for reply in script.replies:
            start, end = reply.speech_unit * UNIT_SAMPLES, reply.end_unit * UNIT_SAMPLES
            speaks[start : end + (0 if reply.interrupted_at is None else FADE_SAMPLES)] = True
            whole = scripts.said(reply.text).pcm
            count = min(whole.size, end - start)
            np.testing.assert_array_equal(pcm[start : start + count], whole[:count])
        assert not pcm[~speaks].any()


@needs_voices
def test_the_text_is_the_replies_and_states_are_theirs() -> None:
    for script in all_scripts():
        states, text = thoughts(script)
        for reply, after in pairwise([*script.replies, None]):
            assert reply is not None
            last = after.text_unit if after else script.units
            shown = TOKENIZER.decode([t for t in text[reply.text_unit : last].flat if t != TOKENIZER.pad])
            if reply.interrupted_at is None:
                assert shown == reply.text
                assert (text[reply.end_unit : last] == TOKENIZER.pad).all()
            else:
                assert reply.text.startswith(shown)
                assert (text[reply.interrupted_at : last] == TOKENIZER.pad).all()
                assert states[reply.interrupted_at] == NAMES["<stop>"]
            assert (states[reply.text_unit : reply.end_unit] == NAMES["<speak>"]).all()
        speaking = sum(reply.end_unit - reply.text_unit for reply in script.replies)
        assert np.count_nonzero(states == NAMES["<speak>"]) == speaking
        quiet = np.isin(states, (NAMES["<idle>"], NAMES["<listen>"]))
        np.testing.assert_array_equal((states == NAMES["<listen>"])[quiet], script.truth.present[3::4][quiet])
        first = text[: script.replies[0].text_unit] if script.replies else text
        assert (first == TOKENIZER.pad).all()


@needs_voices
@given(kinds, seeds, st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_any_number_of_slots_holds_the_same_text(kind: Kind, seed: int, slots: int) -> None:
    whole = [reply for reply in script_of(kind, seed).replies if reply.interrupted_at is None]
    script = replace(script_of(kind, seed), replies=tuple(whole))
    one, many = (thoughts(script, n)[1] for n in (slots, 8))
    assert one.shape == (UNITS, slots)
    assert list(one[one != TOKENIZER.pad]) == list(many[many != TOKENIZER.pad])


@needs_voices
@given(kinds, seeds, st.data())
@settings(max_examples=30, deadline=None)
def test_what_comes_later_never_changes_what_was_right_before(kind: Kind, seed: int, data: st.DataObject) -> None:
    script = script_of(kind, seed)
    if not script.phrases:
        return
    kept = data.draw(st.integers(0, len(script.phrases) - 1))
    fewer = script.phrases[:kept]
    shorter = replace(script, phrases=fewer, replies=right_replies(fewer, script.truth, script.world))
    unit = script.phrases[kept].first_unit
    for a, b in zip(thoughts(script), thoughts(shorter), strict=True):
        np.testing.assert_array_equal(a[:unit], b[:unit])
    for make in (guide_audio, visitor_audio):
        end = min(unit * UNIT_SAMPLES, script.phrases[kept].pcm_start)
        np.testing.assert_array_equal(make(script)[:end], make(shorter)[:end])


@needs_voices
def test_held_out_splits_choose_held_out_worlds_and_all_keep_to_what_is_asked() -> None:
    for seed in range(4):
        assert write_script("train", seed, 60).world in TRAINING_WORLDS
        assert write_script("voices", seed, 60).world in HELD_OUT_WORLDS
        script = write_script("train", seed, 80, "conversation", ("lift",), (World("Sam"),))
        assert script.world == World("Sam")
        assert {said.utterance.intent for said in script.phrases} <= {"lift"}


@needs_voices
def test_splits_and_kinds_share_no_people() -> None:
    scripts = [write_script(split, 3, 20, "empty") for split in SPLITS] + [script_of(kind, 3, 20) for kind in KINDS]
    assert len({script.picture_seed for script in scripts}) == len(scripts) - 1  # train's empty one is there twice


# Pictures


@needs_voices
@pytest.mark.slow
def test_the_pictures_show_what_the_script_says() -> None:
    script = script_of("interruption", 1, 60)
    seen_frames, truth = visitor_video(script)
    assert seen_frames.shape == (240, 64, 96, 3)
    np.testing.assert_array_equal(truth.present, script.truth.present)
    np.testing.assert_array_equal(truth.x, script.truth.x)
    assert truth.appears == script.truth.appears
    larger = visitor_video(script, 96, 144)[1]
    np.testing.assert_array_equal(larger.present, truth.present)
    shown = guide_video(script, truth)
    assert shown.shape == (240, 96, 160, 3)
    np.testing.assert_array_equal(shown, guide_video(script, truth))


@needs_voices
def test_the_mouth_moves_in_speech_and_behaviours_come_with_their_text() -> None:
    for script in all_scripts():
        talks = visitor_talk(script)
        spoken = np.zeros(script.frames, bool)
        for said in script.phrases:
            part = slice(said.start // FRAME_SAMPLES, (said.end - 1) // FRAME_SAMPLES + 1)
            spoken[part] = True
            assert talks[part].max() > 0.7
        assert not talks[~spoken].any()
        # Every reply's one behaviour stands first in its text, so none is lost to an interruption.
        told = [(4 * reply.text_unit, behaviours(reply.text)[0]) for reply in script.replies]
        assert [(cue.frame, cue.behaviour) for cue in guide_cues(script)] == told


# To look at


@needs_voices
def test_the_timeline_names_everything_that_happens_in_order() -> None:
    for script in all_scripts():
        about, _, *rows = timeline(script).splitlines()
        assert script.world.text in about
        starts = [float(row.split()[0]) for row in rows]
        assert starts == sorted(starts)
        for text in [reply.text for reply in script.replies] + [said.utterance.text for said in script.phrases]:
            assert any(text in row for row in rows)


@needs_voices
@pytest.mark.slow
def test_the_film_is_as_long_as_the_script_and_both_are_heard(tmp_path: Path) -> None:
    script = script_of("conversation", 0, 50)
    assert script.replies
    chunks = list(read_media(film(tmp_path / "talk.mp4", script)))
    assert sum(isinstance(chunk, VideoChunk) for chunk in chunks) == 50 * 4
    pcm = np.concatenate([np.asarray(c.pcm, np.float32).mean(axis=1) for c in chunks if isinstance(c, AudioChunk)])
    assert abs(len(pcm) / 16_000 - script.frames / FPS) < 0.1
    both = visitor_audio(script) + guide_audio(script)
    assert np.corrcoef(pcm[: both.size], both[: pcm.size])[0, 1] > 0.9
