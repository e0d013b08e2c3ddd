"""Claims about the evaluation: guides that are known to be right or wrong get the figures that they deserve."""

from pathlib import Path

import numpy as np
import pytest
from samples.kiosk import tools
from samples.kiosk.data.speech.intents import World, expected_reply, spoken
from samples.kiosk.data.speech.voices import installed
from samples.kiosk.evaluation import run
from samples.kiosk.evaluation.conversations import FULL, QUICK, Item, Record, append, items, read_records
from samples.kiosk.evaluation.fidelity import drift
from samples.kiosk.evaluation.loop import CUT_IN_AFTER, STRIP_EVERY, Observed, SessionGuide, Visitor, observe, script_of
from samples.kiosk.evaluation.measures import behaviour
from samples.kiosk.evaluation.page import page
from samples.kiosk.evaluation.page_parts import WHAT, measure_rows, templates
from samples.kiosk.evaluation.run import Store

from tests.configs import mini
from tests.samples.kiosk_guides import RightGuide, silent_guide, unit
from tests.samples.kiosk_records import asked, record, thanked
from tests.samples.test_demo_report import Reader
from wanedge.config import AudioConfig
from wanedge.model import Model
from wanedge.text import Tokenizer
from wanedge_calibration.results import Measure, Provenance, Results
from wanedge_export.model import ReferenceModel
from wanedge_export.tokenizer import LOBBY
from wanedge_export.torch_runtime import torch_model
from wanedge_runtimes.errors import InputError

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
    actual = behaviour([one.record for one in right.values()], {})
    for name in (
        "right_reply_voices",
        "reply_start_units_median",
        "reply_start_units_p95",
        "false_replies_in_10_min",
        "stops_within_3_units",
        "greets_within_6_units",
    ):
        assert actual[name].passed, (name, actual[name])
    assert actual["right_reply_voices"].value == 1
    assert actual["right_reply_voices"].n == 2
    assert actual["reply_start_units_median"].value == 2
    assert actual["stops_within_3_units"].n >= 1


@needs_voices
def test_the_right_guides_lips_follow_its_voice(right):
    actual = behaviour([right["voices"].record], {})
    assert (actual["lip_sync_correlation"].value or 0.0) >= 0.9
    assert actual["lip_sync_lag_frames_median"].passed


@needs_voices
@needs_judge
def test_the_right_guide_is_understood_and_every_reply_is_judged_once(right, tmp_path, monkeypatch):
    from samples.kiosk.data.speech import judge

    store = Store(tmp_path)
    store.keep_media(right["voices"], shown=True)
    records = [right["voices"].record]
    heard = store.heard(records, lambda _: None)
    errors = behaviour(records, heard)["guide_word_errors"].value
    assert errors is not None
    assert errors <= 0.15
    monkeypatch.setattr(judge, "heard", lambda _: pytest.fail("it was judged already"))
    assert store.heard(records, lambda _: None) == heard


@needs_voices
def test_a_silent_guide_gets_nothing():
    quiet = [seen(item, lambda _: silent_guide).record for item in (TALK, CUT_IN, ARRIVAL)]
    actual = behaviour(quiet, {})
    assert actual["right_reply_voices"].value == 0
    assert actual["greets_within_6_units"].value == 0
    assert actual["stops_within_3_units"].value is None  # nobody can cut into silence
    assert actual["guide_word_errors"].value is None
    assert not any(
        actual[name].passed for name in ("right_reply_voices", "stops_within_3_units", "lip_sync_correlation")
    )


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


# Through a Session


def sixteen_khz(**changes) -> Model:
    audio = AudioConfig(channels=8, blocks=2, latent=4, encoder_layers=1, encoder_units=3)
    config = mini(**{"audio": audio, "prefill": 24} | changes)
    return torch_model(ReferenceModel(config, seed=0), Tokenizer(LOBBY, config))


@needs_voices
def test_a_session_answers_unit_by_unit_and_the_same_every_time():
    item = Item("nobody", "voices", "empty", 1000, 8, "white")
    actual = []
    for _ in range(2):
        visitor = Visitor(item)
        guide = SessionGuide(sixteen_khz(), visitor.script.world.text, seed=1)
        actual.append(observe(item, visitor, guide))
        guide.close()
    assert actual[0].record.units == 8
    assert actual[0].record == actual[1].record
    np.testing.assert_array_equal(actual[0].said, actual[1].said)


def test_a_model_that_hears_at_another_rate_is_refused():
    with pytest.raises(InputError, match="16000"):
        SessionGuide(sixteen_khz(audio=mini().audio), "A lobby.", seed=0)


# Going on where it was


def test_an_evaluation_that_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch):
    planned = items(QUICK)[:4]
    done: list[str] = []

    def held(item: Item, _: run.Setting) -> Record:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(item.key)
        return record(key=item.key, purpose=item.purpose)

    monkeypatch.setattr(run, "converse", held)
    setting = run.Setting(Path("a.wanedge"), "auto", None, None, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run.take_place(planned, setting, 1, lambda _: None)
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"key": "cut o')  # the machine went off while it wrote
    done.clear()
    counted: list[int] = []

    def held_again(item: Item, _: run.Setting) -> Record:
        done.append(item.key)
        return record(key=item.key)

    monkeypatch.setattr(run, "converse", held_again)
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
    figures = Results(
        machine={"cpu": "Cpu 9000", "weights": "random", "variant": "fp32"},
        made=Provenance.now("python -m samples.kiosk.evaluation a.wanedge", None, None),
        measures=measures,
    )
    text = page(figures, records, [TALK, CUT_IN], store)
    reader = Reader(text)
    words = " ".join(reader.words)
    for name, measure in measures.items():
        assert name in words
        assert WHAT[name] in words
        assert measure.threshold is None or measure.threshold in words
    assert "The weights are random." in words
    assert not [source for source in reader.fetched if not source.startswith("data:")]
    assert {"audio", "img", "svg"} <= set(reader.tags)
    asked_for = right["voices"].record.asked[0]
    assert asked_for.text in words
    world = World(*(getattr(right["voices"].record, n) for n in ("name", "opens", "closes")))
    assert spoken(expected_reply(asked_for.intent, world)) in words


SECTION = '{% from "measures.html.j2" import measures_section %}{{ measures_section(rows) }}'


def test_a_measure_of_nothing_is_reported_as_such():
    rows = measure_rows({"lip_sync_correlation": Measure(value=None, unit="correlation", n=0, threshold=">= 0.6")})
    table = templates().from_string(SECTION).render(rows=rows)
    assert "not measured" in table
    assert '<b class="failed">failed</b>' in table


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_a_share_of_an_evaluation_has_something_of_every_purpose_and_whole_ones_stay_whole(share: float) -> None:
    part, whole = items(FULL.scaled(share)), items(FULL)
    assert {item.purpose for item in part} == {item.purpose for item in whole}
    assert {item.kind for item in part} <= {item.kind for item in whole}
    units = sum(item.units for item in part) / sum(item.units for item in whole)
    assert units == pytest.approx(share, abs=0.03)
    assert (part == whole) == (share == 1.0)
