"""Claims about the figures: what they say of records whose truth is written down, and of their own certainty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples.kiosk.evaluation.conversations import Came, answer, delay, replies, spoken_by_unit
from samples.kiosk.evaluation.fidelity import BLOCKS, drift
from samples.kiosk.evaluation.measures import behaviour, judged, onsets, outcomes, silence_after, two_steps

from tests.samples.kiosk_records import asked, record, thanked
from wanedge.bundle import Bundle
from wanedge.verdicts import graphs_digest
from wanedge_calibration.statistics import Interval, poisson, ratio, slope, wilson


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
    results = behaviour([heard], {})
    assert results["right_reply_voices"].value == 0.5
    assert results["reply_start_units_median"].value == 4
    assert results["reply_start_units_median"].passed is False


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
    results = behaviour([loud], {})["false_replies_in_10_min"]
    assert results.value == 4 * 375
    assert results.passed is False
    assert behaviour([record(purpose="nobody")], {})["false_replies_in_10_min"].passed is True


def test_sound_alone_is_no_reply():
    hum = record(level_dbfs=(-30.0,) * 20)
    assert replies(hum) == []
    assert onsets(hum) == 0


def test_a_greeting_must_be_right_and_in_time():
    came = (Came(unit=2, until=18),)
    said = ("",) * 5 + ("Hello! I", " am Joe.") + ("",) * 13
    late = ("",) * 9 + said[5:16]
    for texts, right, begun in ((said, 1, 1), (late, 0, 0), (thanked(5), 0, 1)):
        results = behaviour([record(purpose="arrivals", texts=texts, came=came)], {})
        assert results["greets_within_6_units"].value == right
        assert results["begins_to_speak_within_6_units"].value == begun


def test_word_errors_are_counted_against_the_guides_own_text():
    heard = record(texts=thanked(7), asked=(asked(2, 4),))
    (reply,) = judged(heard)
    reported = behaviour([heard], {("a", reply.first): "You are welcome"})
    assert reported["guide_word_errors"].value == 0
    assert reported["guide_word_errors_of_right_replies"].n == 1
    assert behaviour([heard], {("a", reply.first): "we are welcome"})["guide_word_errors"].value == pytest.approx(1 / 3)
    assert behaviour([heard], {("a", reply.first): ""})["guide_word_errors"].value == 1


def test_what_did_not_happen_is_not_measured_and_misses_its_bar():
    results = behaviour([], {}) | two_steps([], [], {}) | drift(None)
    barred = [measure for measure in results.values() if measure.threshold]
    assert len(barred) >= 12
    assert all(m.value is None and m.n == 0 and m.passed is False for m in barred)


def test_two_steps_are_compared_in_pairs():
    good, bad = record(texts=thanked(7), asked=(asked(2, 4),)), record(asked=(asked(2, 4),))
    many = [good.model_copy(update={"purpose": "many steps", "seed": seed}) for seed in range(4)]
    few = [(bad if seed else good).model_copy(update={"seed": seed}) for seed in range(4)]
    results = two_steps(few, many, {})["two_steps_right_reply_over_many"]
    assert results.value == pytest.approx(-75)
    assert results.n == 4
    assert results.passed is False
    assert two_steps(many, many, {})["two_steps_right_reply_over_many"].value == 0


@pytest.mark.parametrize(("per_unit", "trends"), [(0.0, 0), (-0.01, 1)])
def test_a_voice_that_fades_has_a_trend(per_unit, trends):
    random = np.random.default_rng(1)
    units = 60 * BLOCKS
    talks = np.arange(units) % 2 == 0
    level = np.where(talks, -20 + per_unit * np.arange(units), -90) + random.normal(0, 1, units)
    results = drift(
        record(
            states=tuple(np.where(talks, "<speak>", "<listen>").tolist()),
            level_dbfs=tuple(level.tolist()),
            brightness_db=tuple(x if t else None for x, t in zip(random.normal(0, 1, units), talks, strict=True)),
            still_psnr_db=tuple(None if t else x for x, t in zip(random.normal(35, 1, units), talks, strict=True)),
        )
    )
    assert results["drift_speech_level_per_min"].value == pytest.approx(per_unit * 375, abs=0.1)
    assert results["drift_curves_with_a_trend"].value == trends
    assert results["drift_curves_with_a_trend"].passed is (trends == 0)


# Intervals


def interval(measure: Interval) -> tuple[float, float]:
    assert measure.low is not None
    assert measure.high is not None
    return measure.low, measure.high


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_shares_interval_holds_it_and_stays_a_share(counts):
    results = wilson(*counts)
    low, high = interval(results)
    assert 0 <= low <= results.value <= high <= 1
    assert low < high


@given(st.integers(0, 40))
def test_more_conversations_make_a_share_surer(hits):
    few, many = (high - low for low, high in map(interval, (wilson(hits, 40), wilson(10 * hits, 400))))
    assert many < few


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
    results = slope(x.tolist(), (3 * x + np.random.default_rng(0).normal(0, 0.1, 20)).tolist())
    low, high = interval(results)
    assert low < 3 < high
    assert high - low < 0.1


def test_outcomes_name_every_item_by_its_conversation(mini_bundle: Bundle) -> None:
    talks = [
        record(key="voices/1", asked=(asked(1, 3), asked(12, 13)), texts=thanked(4)),
        record(key="cut", purpose="interruptions", asked=(asked(4, 8, cuts_in=True),), level_dbfs=(-20.0,) * 20),
        record(key="come", purpose="arrivals", came=(Came(unit=2, until=20),)),
    ]
    results = outcomes(talks, mini_bundle, "fp32", "test")
    assert results.outcomes == {
        "right_reply": {"voices/1#0": True, "voices/1#1": False},
        "stops": {"cut#0": False},
        "greets": {"come#0": False},
    }
    assert results.graphs_sha256 == graphs_digest(mini_bundle, mini_bundle.variant("fp32"))


@pytest.mark.parametrize("silence", [-120.0, -90.3])
def test_what_never_changes_has_no_trend(silence):
    """A guide whose silence is digital: every block's mean is the same number."""
    units = 60 * BLOCKS
    talks = np.arange(units) % 2 == 0
    results = drift(
        record(
            states=tuple(np.where(talks, "<speak>", "<listen>").tolist()),
            level_dbfs=tuple(np.where(talks, -20.0, silence).tolist()),
            brightness_db=tuple(-3.0 if t else None for t in talks),
            still_psnr_db=tuple(None if t else 35.0 for t in talks),
        )
    )
    still = results["drift_silence_level_per_min"]
    assert (still.value, still.low, still.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)
    assert results["drift_curves_with_a_trend"].passed
