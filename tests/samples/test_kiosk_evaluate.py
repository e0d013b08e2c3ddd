"""Claims about the evaluation: guides that are known to be right or wrong get the figures that they deserve."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples.kiosk import tools
from samples.kiosk.evaluate import run
from samples.kiosk.evaluate.drift import BLOCKS, drift
from samples.kiosk.evaluate.intervals import poisson, ratio, slope, wilson
from samples.kiosk.evaluate.items import FULL, QUICK, Item, items
from samples.kiosk.evaluate.loop import STRIP_EVERY, Observed, observe
from samples.kiosk.evaluate.measures import behaviour, judged, onsets, silence_after, two_steps
from samples.kiosk.evaluate.page import page
from samples.kiosk.evaluate.record import Asked, Came, Record, append, read_records
from samples.kiosk.evaluate.replies import answer, delay, replies, spoken_by_unit
from samples.kiosk.evaluate.store import Store
from samples.kiosk.evaluate.table import WHAT, measures_table
from samples.kiosk.evaluate.visitor import CUT_IN_AFTER, Visitor, script_of
from samples.kiosk.speech.intents import expected_reply, spoken
from samples.kiosk.speech.voices import installed
from samples.kiosk.speech.world import World

from tests.samples.kiosk_guides import RightGuide, silent_guide, unit
from tests.samples.test_demo_report import Reader
from wanedge.figures import Figures, Measure, made

needs_voices = pytest.mark.skipif(
    not (installed("flite") and installed("espeak-ng") and tools.JOE.exists()),
    reason="the voices are not installed; install them with: python -m samples.kiosk.tools",
)
needs_judge = pytest.mark.skipif(
    not tools.JUDGE_PYTHON.exists(), reason="the judge is not installed; run: python -m samples.kiosk.tools"
)

TALK = Item("voices", "voices", "two questions", 1001, 90, shown=True)
CUT_IN = Item("interruptions", "voices", "two questions", 1000, 90)
ARRIVAL = Item("arrivals", "voices", "arrival", 1000, 90)
NOBODY = Item("nobody", "voices", "empty", 1000, 20, "music")


# Without any voice


def record(**parts) -> Record:
    units = len(parts.get("texts", parts.get("level_dbfs", parts.get("states", ("<idle>",) * 20))))
    silent = {
        "key": "a", "purpose": "voices", "kind": "conversation", "seed": 0, "sound": "silence",
        "name": "Joe", "opens": "nine", "closes": "six", "asked": (), "came": (),
        "states": ("<idle>",) * units, "texts": ("",) * units, "level_dbfs": (-120.0,) * units,
        "brightness_db": (None,) * units, "envelope": (0.0,) * 4 * units, "mouth": (0.0,) * 4 * units,
        "still_psnr_db": (None,) * units,
    }  # fmt: skip
    return Record.model_validate(silent | parts)


def asked(first: int, last: int, intent: str = "thanks", **other) -> Asked:
    return Asked(first_unit=first, last_unit=last, intent=intent, text="", voice="", answered=True, **other)


def thanked(at: int, units: int = 20) -> tuple[str, ...]:
    """The right reply to thanks, its words two to a unit from unit `at` on."""
    pieces = ["(smi", "les) You are", " welcome."]
    return ("",) * at + tuple(pieces) + ("",) * (units - at - len(pieces))


def test_behaviour_that_is_spread_over_units_is_not_spoken():
    assert spoken_by_unit(["(wa", "ves) He", "llo! (", "nods)"]) == ["", " He", "llo! ", ""]
    assert "".join(spoken_by_unit(["what (is", " this"])) == "what (is this"


@given(st.lists(st.text("ab() ", max_size=6), max_size=12))
def test_what_is_spoken_by_unit_is_what_is_spoken_in_all(texts):
    assert len(spoken_by_unit(texts)) == len(texts)
    assert all(len(kept) <= len(text) for kept, text in zip(spoken_by_unit(texts), texts, strict=True))


def test_a_reply_counts_from_the_phrases_end_to_the_next_phrase():
    heard = record(texts=thanked(7), asked=(asked(2, 4), asked(15, 17)))
    assert answer(heard, 0) == "(smiles) You are welcome."
    assert delay(heard, 0) == 4  # the behaviour in unit 7 is no word
    assert answer(heard, 1) == ""
    assert delay(heard, 1) is None
    found = behaviour([heard], {})
    assert found["right_reply_voices"].value == 0.5
    assert found["reply_start_units_median"].value == 4
    assert found["reply_start_units_median"].met is False


def test_a_guide_that_talks_all_the_time_has_no_delay_to_be_proud_of():
    babble = record(texts=("down ",) * 20, asked=(asked(2, 4), asked(10, 12)))
    assert behaviour([babble], {})["reply_start_units_median"].value is None


def test_words_before_the_phrase_has_ended_do_not_answer_it():
    early = record(texts=thanked(2), asked=(asked(2, 4),))
    assert behaviour([early], {})["right_reply_voices"].value == 0


def test_a_reply_that_another_phrase_cuts_off_is_not_right():
    cut = record(texts=thanked(7), asked=(asked(2, 4), asked(9, 12, "yes")))
    assert behaviour([cut], {})["right_reply_voices"].value == 0
    assert judged(record(texts=thanked(7), states=("<speak>",) * 12 + ("<idle>",) * 8, asked=(asked(9, 12),))) == []


@pytest.mark.parametrize(
    ("levels", "units"),
    [
        ((-20.0,) * 3 + (-80.0,) * 7, 3),
        ((-20.0, -80.0, -20.0) + (-80.0,) * 7, 3),  # a pause between words is no silence
        ((-20.0,) * 10, 10),
        ((-80.0,) * 10, 0),
    ],
)
def test_silence_counts_from_where_it_stays(levels, units):
    assert silence_after(record(level_dbfs=levels), 0) == units


def test_who_talks_to_nobody_is_counted_once_for_each_onset():
    loud = record(purpose="nobody", states=("<idle>", "<speak>", "<speak>", "<idle>", "<speak>") * 2)
    assert onsets(loud) == 4
    found = behaviour([loud], {})["false_replies_in_10_min"]
    assert found.value == 4 * 375
    assert found.met is False
    assert behaviour([record(purpose="nobody")], {})["false_replies_in_10_min"].met is True


def test_sound_alone_is_no_reply():
    hum = record(level_dbfs=(-30.0,) * 20)
    assert replies(hum) == []
    assert onsets(hum) == 0


def test_a_greeting_must_be_right_and_in_time():
    came = (Came(unit=2, until=18),)
    said = ("",) * 5 + ("Hello! I", " am Joe.") + ("",) * 13
    late = ("",) * 9 + said[5:16]
    for texts, right, begun in ((said, 1, 1), (late, 0, 0), (thanked(5), 0, 1)):
        found = behaviour([record(purpose="arrivals", texts=texts, came=came)], {})
        assert found["greets_within_6_units"].value == right
        assert found["begins_to_speak_within_6_units"].value == begun


def test_word_errors_are_counted_against_the_guides_own_text():
    heard = record(texts=thanked(7), asked=(asked(2, 4),))
    (reply,) = judged(heard)
    told = behaviour([heard], {("a", reply.first): "You are welcome"})
    assert told["guide_word_errors"].value == 0
    assert told["guide_word_errors_of_right_replies"].n == 1
    assert behaviour([heard], {("a", reply.first): "we are welcome"})["guide_word_errors"].value == pytest.approx(1 / 3)
    assert behaviour([heard], {("a", reply.first): ""})["guide_word_errors"].value == 1


def test_what_did_not_happen_is_not_measured_and_misses_its_bar():
    found = behaviour([], {}) | two_steps([], [], {}) | drift(None)
    barred = [measure for measure in found.values() if measure.bar]
    assert len(barred) >= 12
    assert all(m.value is None and m.n == 0 and m.met is False for m in barred)


def test_two_steps_are_compared_in_pairs():
    good, bad = record(texts=thanked(7), asked=(asked(2, 4),)), record(asked=(asked(2, 4),))
    many = [good.model_copy(update={"purpose": "many steps", "seed": seed}) for seed in range(4)]
    few = [(bad if seed else good).model_copy(update={"seed": seed}) for seed in range(4)]
    found = two_steps(few, many, {})["two_steps_right_reply_over_many"]
    assert found.value == pytest.approx(-75)
    assert found.n == 4
    assert found.met is False
    assert two_steps(many, many, {})["two_steps_right_reply_over_many"].value == 0


@pytest.mark.parametrize(("per_unit", "trends"), [(0.0, 0), (-0.01, 1)])
def test_a_voice_that_fades_has_a_trend(per_unit, trends):
    random = np.random.default_rng(1)
    units = 60 * BLOCKS
    talks = np.arange(units) % 2 == 0
    level = np.where(talks, -20 + per_unit * np.arange(units), -90) + random.normal(0, 1, units)
    found = drift(
        record(
            states=tuple(np.where(talks, "<speak>", "<listen>").tolist()),
            level_dbfs=tuple(level.tolist()),
            brightness_db=tuple(x if t else None for x, t in zip(random.normal(0, 1, units), talks, strict=True)),
            still_psnr_db=tuple(None if t else x for x, t in zip(random.normal(35, 1, units), talks, strict=True)),
        )
    )
    assert found["drift_speech_level_per_min"].value == pytest.approx(per_unit * 375, abs=0.1)
    assert found["drift_curves_with_a_trend"].value == trends
    assert found["drift_curves_with_a_trend"].met is (trends == 0)


# Intervals


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_shares_interval_holds_it_and_stays_a_share(counts):
    found = wilson(*counts)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


@given(st.integers(0, 40))
def test_more_conversations_make_a_share_surer(hits):
    few, many = wilson(hits, 40), wilson(10 * hits, 400)
    assert many.high - many.low < few.high - few.low


def test_intervals_of_shares_and_counts_are_those_of_the_tables():
    assert (wilson(0, 10).high, wilson(8, 10).low) == pytest.approx((0.2775, 0.4902), abs=1e-4)
    assert poisson(0) == pytest.approx((0, 3.689), abs=1e-3)
    assert poisson(10) == pytest.approx((4.795, 18.390), abs=1e-3)


@given(st.integers(0, 200))
def test_a_counts_interval_holds_it(count):
    low, high = poisson(count)
    assert 0 <= low <= count <= high


def test_ratios_and_slopes_are_found_again():
    assert ratio([1, 2, 3], [10, 20, 30]).value == pytest.approx(0.1)
    x = np.linspace(0, 10, 20)
    assert slope([0, 1, 2, 3, 4], [0, 1, 2, 3, 5]).high == pytest.approx(1.2 + 3.182 * np.sqrt(0.4 / 3 / 10), abs=0.01)
    found = slope(x.tolist(), (3 * x + np.random.default_rng(0).normal(0, 0.1, 20)).tolist())
    assert found.low < 3 < found.high
    assert found.high - found.low < 0.1


# With voices: guides that are known


def seen(item: Item, make) -> Observed:
    visitor = Visitor(item)
    return observe(item, visitor, make(visitor))


@pytest.fixture(scope="module")
def right() -> dict[str, Observed]:
    """The right guide's conversations; pictures only where lips are looked at."""
    return {item.purpose: seen(item, lambda v, i=item: RightGuide(v, draws=i is TALK)) for item in _ITEMS}


_ITEMS = (TALK, CUT_IN, ARRIVAL, NOBODY)


@needs_voices
def test_the_right_guide_meets_every_bar_of_behaviour(right):
    found = behaviour([one.record for one in right.values()], {})
    for name in (
        "right_reply_voices",
        "reply_start_units_median",
        "reply_start_units_p95",
        "false_replies_in_10_min",
        "stops_within_3_units",
        "greets_within_6_units",
    ):
        assert found[name].met, (name, found[name])
    assert found["right_reply_voices"].value == 1
    assert found["right_reply_voices"].n == 2
    assert found["reply_start_units_median"].value == 2
    assert found["stops_within_3_units"].n >= 1


@needs_voices
def test_the_right_guides_lips_follow_its_voice(right):
    found = behaviour([right["voices"].record], {})
    assert found["lip_sync_correlation"].value >= 0.9
    assert found["lip_sync_lag_frames_median"].met


@needs_voices
@needs_judge
def test_the_right_guide_is_understood_and_every_reply_is_judged_once(right, tmp_path, monkeypatch):
    from samples.kiosk.speech import judge

    store = Store(tmp_path)
    store.keep_media(right["voices"], shown=True)
    records = [right["voices"].record]
    heard = store.heard(records, lambda _: None)
    assert behaviour(records, heard)["guide_word_errors"].value <= 0.15
    monkeypatch.setattr(judge, "heard", lambda _: pytest.fail("it was judged already"))
    assert store.heard(records, lambda _: None) == heard


@needs_voices
def test_a_silent_guide_gets_nothing():
    quiet = [seen(item, lambda _: silent_guide).record for item in (TALK, CUT_IN, ARRIVAL)]
    found = behaviour(quiet, {})
    assert found["right_reply_voices"].value == 0
    assert found["greets_within_6_units"].value == 0
    assert found["stops_within_3_units"].value is None  # nobody can cut into silence
    assert found["guide_word_errors"].value is None
    assert not any(found[name].met for name in ("right_reply_voices", "stops_within_3_units", "lip_sync_correlation"))


@needs_voices
def test_a_late_guide_is_late_by_as_much():
    late = seen(TALK, lambda v: RightGuide(v, late=4, draws=False)).record
    assert behaviour([late], {})["reply_start_units_median"].value == 6


@needs_voices
def test_a_guide_that_talks_on_does_not_stop():
    on = seen(CUT_IN, lambda v: RightGuide(v, yields=False, draws=False)).record
    cuts = [phrase for phrase in on.asked if phrase.cuts_in]
    assert cuts
    assert all(on.level_dbfs[phrase.first_unit - 1] > -50 for phrase in cuts)
    assert behaviour([on], {})["stops_within_3_units"].value == 0


@needs_voices
def test_the_visitor_cuts_in_when_the_guide_has_sounded_for_three_units(right):
    kept = right["interruptions"].record
    cut = next(phrase.first_unit for phrase in kept.asked if phrase.cuts_in)
    sounding = [level > -50 for level in kept.level_dbfs[cut - CUT_IN_AFTER - 1 : cut]]
    assert sounding == [False] + [True] * CUT_IN_AFTER


@needs_voices
def test_a_visitor_who_cuts_in_changes_nothing_that_was_heard_or_seen_before(right):
    kept, plain = right["interruptions"], Visitor(CUT_IN)
    cut = next(phrase.first_unit for phrase in kept.record.asked if phrase.cuts_in)
    nothing = [unit(k) for k in range(cut)]  # in answer to which nobody cuts in
    before = np.concatenate([plain.unit(k, nothing[:k])[0] for k in range(cut)])
    np.testing.assert_array_equal(kept.heard[: before.size], before)
    seen_before = [plain.unit(k, nothing[:k])[1][0] for k in range(0, cut, STRIP_EVERY)]
    np.testing.assert_array_equal(kept.seen[: len(seen_before)], np.stack(seen_before))


@needs_voices
def test_the_long_conversation_has_a_visitor_after_the_other_who_is_there_when_talking():
    script = script_of(Item("ten minutes", "voices", "conversation", 1000, 500))
    assert len(script.truth.appears) >= 3
    assert len(script.phrases) >= 3
    assert all(script.truth.present[phrase.first_unit * 4] for phrase in script.phrases)


@pytest.mark.parametrize("size", [FULL, QUICK])
def test_no_two_items_share_a_key_and_all_splits_are_held_out(size):
    planned = items(size)
    assert len({item.key for item in planned}) == len(planned)
    assert {item.split for item in planned} == {"voices", "phrasings", "real"}
    assert {item.sound for item in planned if item.purpose == "nobody"} >= {"silence", "white", "babble", "music"}


def test_a_full_evaluation_looks_at_nobody_for_ten_minutes():
    assert sum(item.units for item in items(FULL) if item.purpose == "nobody") * 160 >= 600_000


# Going on where it was


def test_an_evaluation_that_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch):
    planned = items(QUICK)[:4]
    done: list[str] = []

    def held(item: Item, _: run.Setting) -> Record:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(item.key)
        return record(key=item.key, purpose=item.purpose)

    monkeypatch.setattr(run, "held", held)
    setting = run.Setting(Path("a.wanedge"), "auto", None, None, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run.take_place(planned, setting, 1, lambda _: None)
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"key": "cut o')  # the machine went off while it wrote
    done.clear()
    counted: list[int] = []
    monkeypatch.setattr(run, "held", lambda item, _: done.append(item.key) or record(key=item.key))
    assert list(run.take_place(planned, setting, 1, counted.append)) == [item.key for item in planned]
    assert done == [item.key for item in planned[2:]]
    assert sum(counted) == 4 * 20
    assert list(read_records(tmp_path / "records.jsonl")) == [item.key for item in planned]


def test_records_come_back_as_they_were(tmp_path):
    kept = [record(key="a", texts=thanked(3)), record(key="b", asked=(asked(1, 2, cuts_in=True),))]
    append(tmp_path / "records.jsonl", kept)
    assert list(read_records(tmp_path / "records.jsonl").values()) == kept


# The page


@needs_voices
def test_the_page_shows_each_measure_with_its_bar_and_fetches_nothing(right, tmp_path):
    store = Store(tmp_path)
    store.keep_media(right["voices"], shown=True)
    records = {one.record.key: one.record for one in right.values()}
    measures = behaviour(list(records.values()), {}) | drift(None)
    figures = Figures(
        machine={"cpu": "Cpu 9000", "weights": "random", "variant": "fp32"},
        made=made("python -m samples.kiosk.evaluate a.wanedge", None, None),
        measures=measures,
    )
    text = page(figures, records, [TALK, CUT_IN], store)
    reader = Reader(text)
    words = " ".join(reader.words)
    for name, measure in measures.items():
        assert name in words
        assert WHAT[name] in words
        assert measure.bar is None or measure.bar in words
    assert "The weights are random." in words
    assert not [source for source in reader.fetched if not source.startswith("data:")]
    assert {"audio", "img", "svg"} <= set(reader.tags)
    asked_for = right["voices"].record.asked[0]
    assert asked_for.text in words
    world = World(*(getattr(right["voices"].record, n) for n in ("name", "opens", "closes")))
    assert spoken(expected_reply(asked_for.intent, world)) in words


def test_a_measure_of_nothing_is_told_as_such():
    table = measures_table({"lip_sync_correlation": Measure(value=None, unit="correlation", n=0, bar=">= 0.6")})
    assert "not measured" in table
    assert "missed" in table
