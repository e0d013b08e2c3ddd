"""The demo's report says what happened, in one file, and shows nothing that it was not given."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples.demo.report import page, write_report
from samples.demo.run import ComponentRow, DemoRun
from samples.demo.scene import Said, Transcript
from samples.demo.summary import summarise
from samples.kiosk.evaluation.page_parts import Axis, Chart, round_step, spread

from wanedge.config import AgentState
from wanedge.units import AgentUnit, UnitTiming, UserUnit
from wanedge_calibration.results import Measure, Provenance, Results
from wanedge_runtimes.errors import InputError

SAMPLES = 2560
STAGES = {"commit": 10.0, "encode": 20.0, "thinker": 30.0, "performer": 20.0, "decode": 10.0}
VOID = {"meta", "img"}  # HTML elements without an end; those of SVG end themselves with "/>"


def timing(stages: dict[str, float], latency_ms: float = 80.0) -> UnitTiming:
    named: dict[str, Any] = {f"{stage}_ms": ms for stage, ms in stages.items()}
    late = latency_ms > 160
    return UnitTiming(**named, graph_ms=76.0, latency_ms=latency_ms, deadline_missed=late)


def agent_unit(index: int, latency_ms: float = 80.0, text: str = "hi ", **other) -> AgentUnit:
    random = np.random.default_rng(index)
    return AgentUnit(
        index=index,
        start_ms=index * 160,
        end_ms=(index + 1) * 160,
        audio=random.uniform(-0.1, 0.1, SAMPLES).astype(np.float32),
        frames=random.integers(0, 255, (4, 32, 48, 3), dtype=np.uint8),
        text=text,
        tokens=(1,),
        state="<speak>" if index % 2 else "<listen>",
        timing=timing(STAGES, latency_ms),
        **other,
    )


def user_unit(index: int) -> UserUnit:
    return UserUnit(index, np.zeros(SAMPLES, np.float32), np.full((4, 32, 48, 3), 200, np.uint8))


def run_of(latencies: list[float], **other) -> DemoRun:
    units = [agent_unit(i, latency) for i, latency in enumerate(latencies)]
    parts = {
        "units": units,
        "user_units": [user_unit(u.index) for u in units],
        "wall_s": 1.5,
        "memory": [(u.index, 300_000_000 + 1_000_000 * (u.index >= 30)) for u in units],
        "model": "tiny",
        "precision": "fp32",
        "runtime": "onnxruntime (cpu)",
        "weights": "random",
        "machine": {"cpu": "Cpu 9000", "cores": 2.0, "libraries": {"numpy": "2.0"}},
        "components": [ComponentRow("backbone", 24, 4_000_000, 12, 2_500_000)],
        "transcript": Transcript(
            clip="visitor.mp4",
            seconds=0.16 * len(units),
            language="en",
            credit="Somebody, CC BY-SA 4.0",
            said=(Said(start_s=0.1, end_s=0.4, words="Good morning.", speaker="on camera"),),
        ),
    }
    return DemoRun(**{**parts, **other})


def html_of(run: DemoRun) -> str:
    return page(run, summarise(run), "visitor.mp4", "reply.mp4")


class Reader(HTMLParser):
    """Collects what a browser would fetch and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "poster", "srcset", "data", "xlink:href")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, _attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_report_json_holds_the_public_keys_with_the_right_numbers(tmp_path: Path):
    run = run_of([float(ms) for ms in range(50, 151)])
    write_report(run, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["units"] == 101
    assert report["unit_ms"] == 160
    assert report["realtime_factor"] == pytest.approx(90 / 160)
    assert report["response_latency_ms"] == {"p50": 100, "p95": 145, "p99": 149, "max": 150}
    assert report["stages_ms"] == STAGES
    assert report["deadline_misses"] == 0
    assert (report["runtime"], report["precision"], report["model"]) == ("onnxruntime (cpu)", "fp32", "tiny")
    assert report["real_time"] is True
    assert report["overhead"] == pytest.approx(1 - 76 / 80)
    assert report["memory"] == {"first_mb": 300, "last_mb": 301, "peak_mb": 301, "growth_mb": 1}


@pytest.mark.parametrize(
    ("latencies", "stages", "real_time"),
    [
        ([90.0] * 99 + [500.0], STAGES, True),  # one hiccup
        ([90.0] * 90 + [500.0] * 10, STAGES, False),  # one in ten replies is late
        ([90.0] * 100, {**STAGES, "commit": 90.0}, False),  # the replies come in time, the machine falls behind
    ],
)
def test_the_verdict_follows_the_numbers(latencies, stages, real_time):
    run = run_of(latencies)
    run = replace(run, units=[replace(unit, timing=timing(stages, unit.timing.latency_ms)) for unit in run.units])
    assert summarise(run).real_time is real_time
    assert ("Not real time on this machine" in html_of(run)) is not real_time


def test_late_units_are_counted_and_marked():
    run = run_of([90.0] * 20 + [200.0] * 3)
    assert summarise(run).deadline_misses == 3
    assert html_of(run).count('class="bar late"') == 3
    assert "3 of 23 came late" in html_of(run)


def test_the_report_fetches_nothing_but_the_two_videos_beside_it(tmp_path: Path):
    write_report(run_of([90.0] * 30), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    reader = Reader(text)
    outside = [source for source in reader.fetched if not source.startswith("data:image/")]
    assert outside == ["visitor.mp4", "reply.mp4"]
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert not re.search(r"https?://|@import|url\(", text)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]


HOSTILE = '<script>alert("1")</script>\'&amp;'


def test_every_text_of_the_run_is_shown_and_not_obeyed():
    run = run_of([90.0] * 9)
    said = Said(start_s=0.1, end_s=0.2, words=HOSTILE, speaker=HOSTILE)
    run = replace(
        run,
        units=[replace(unit, text=HOSTILE, state=cast(AgentState, HOSTILE)) for unit in run.units],
        model=HOSTILE,
        precision=HOSTILE,
        runtime=HOSTILE,
        machine={HOSTILE: HOSTILE, "libraries": {HOSTILE: HOSTILE}},
        components=[ComponentRow(HOSTILE, 24, 1, 1, 1)],
        transcript=run.transcript.model_copy(update={"said": (said,), "credit": HOSTILE, "clip": HOSTILE}),
    )
    reader = Reader(page(run, summarise(run), HOSTILE, HOSTILE))
    assert "script" not in reader.tags
    assert sum(HOSTILE in words for words in reader.words) >= 10
    assert reader.fetched.count(HOSTILE) == 2


def test_control_characters_do_not_reach_the_page():
    run = run_of([90.0] * 3)
    run = replace(run, units=[replace(unit, text="a\x07\x1b[31m\x00b") for unit in run.units])
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", html_of(run))


def test_a_machine_that_falls_behind_is_told_what_one_reply_takes():
    run = run_of([5000.0] * 30)
    run = replace(
        run,
        units=[replace(unit, timing=timing({**STAGES, "commit": 90.0}, unit.timing.latency_ms)) for unit in run.units],
    )
    assert "within <b>5.0 s</b>" in html_of(run)
    assert "one takes <b>80 ms</b>" in html_of(run)
    assert "wait in line" not in html_of(run_of([90.0] * 30))


def test_random_weights_are_confessed_and_trained_ones_are_not_accused():
    assert "The reply is noise." in html_of(run_of([90.0] * 5))
    assert "The reply is noise." not in html_of(run_of([90.0] * 5, weights="trained"))


def test_what_a_trained_model_says_is_listed_by_utterance_and_before_the_timings():
    run = run_of([90.0] * 20, weights="trained", world="The guide's name is Nina.")
    said = {4: "(waves) ", 5: "Hello!", 7: " I am Nina.", 14: "Goodbye!"}
    html = html_of(replace(run, units=[replace(unit, text=said.get(unit.index, "")) for unit in run.units]))
    text = re.sub(r"<[^>]*>", " ", html)
    assert re.search(r"0\.64 to 1\.28 s\s+agent\s+\(waves\) Hello! I am Nina\.", text)
    assert re.search(r"2\.24 to 2\.40 s\s+agent\s+Goodbye!", text)
    assert "World text: The guide&#39;s name is Nina." in html
    assert html.index("<h2>Words</h2>") < html.index("<h2>Latency of every unit</h2>")
    assert html.count('class="bar answered"') == 2


def test_a_right_reply_stands_under_what_the_visitor_said_where_one_is_due():
    said = Said(start_s=0.5, end_s=1.2, words="where is the <cafe>?", speaker="visitor", due="The cafe is <here>.")
    plain = Said(start_s=1.6, end_s=2.0, words="hm.", speaker="visitor")
    run = run_of([90.0] * 20, weights="trained")
    html = html_of(replace(run, transcript=run.transcript.model_copy(update={"said": (said, plain)})))
    assert 'where is the &lt;cafe&gt;?<span class="due">The cafe is &lt;here&gt;.</span>' in html
    assert html.count('class="due"') == 1
    assert "in grey the reply that is right" in html
    words = re.search(r"<h2>Words</h2>.*?</p>", html_of(run), re.DOTALL)
    assert words is not None
    assert "in grey" not in words.group()


def test_the_kept_evaluation_is_shown_with_its_misses_and_its_absence_is_told():
    measures = {
        "right_reply_voices": Measure(value=0.97, unit="share", n=100, low=0.92, high=0.99, threshold=">= 0.95"),
        "guide_word_errors": Measure(value=0.31, unit="ratio", n=90, threshold="<= 0.15"),
    }
    figures = Results(
        machine={"cpu": "Cpu 1"}, made=Provenance.now("python -m evaluate", None, None), measures=measures
    )
    shown = Reader(html_of(run_of([90.0] * 5, weights="trained", evaluation=figures)))
    words = " ".join(shown.words)
    assert "Right reply, unknown voices" in words
    assert "0.97" in words
    assert "failed" in words
    assert "not in this run" in words
    assert "No figures of an evaluation are kept" in html_of(run_of([90.0] * 5, weights="trained"))
    assert "No figures of an evaluation are kept" not in html_of(run_of([90.0] * 5))


def test_the_visitors_words_and_the_replys_are_there_with_their_times():
    text = re.sub(r"<[^>]*>", " ", html_of(run_of([90.0] * 10)))
    assert "0.10 to 0.40 s" in text
    assert "Good morning. (on camera)" in text
    assert "0.00 to 1.28 s" in text
    assert "hi hi hi hi hi hi hi hi" in text


def test_the_first_answer_to_the_reader_is_the_verdict():
    words = [w for w in Reader(html_of(run_of([90.0] * 5))).words if w.strip()]
    assert "Real time on this machine" in words[:8]


@pytest.mark.parametrize("units", [1, 2, 7, 400])
def test_a_run_of_any_length_makes_a_well_formed_page(units):
    Reader(html_of(run_of([90.0] * units)))


def test_a_run_that_starts_later_keeps_its_times():
    run = run_of([90.0] * 10)
    later = [replace(unit, index=unit.index + 100) for unit in run.units]
    heard = [replace(unit, index=unit.index + 100) for unit in run.user_units]
    run = replace(run, units=later, user_units=heard, memory=[(100, 3_000_000), (109, 3_000_000)])
    assert "unit 100 at 16.00 s" in html_of(run)


def test_silence_and_a_missing_memory_change_are_drawn():
    run = run_of([0.0] * 4, memory=[(0, 1_000_000)])
    run = replace(run, units=[replace(unit, audio=np.zeros(SAMPLES, np.float32)) for unit in run.units])
    assert "nan" not in html_of(run).lower().replace("data:image", "").split("<svg", 1)[1].split("</svg>")[0]


def test_an_answer_without_its_question_is_refused():
    with pytest.raises(InputError, match="one by one"):
        replace(run_of([90.0] * 5), user_units=[user_unit(0)])
    with pytest.raises(InputError, match="no units"):
        replace(run_of([90.0]), units=[], user_units=[])


def test_a_run_without_stage_times_is_refused():
    run = run_of([90.0] * 2)
    with pytest.raises(InputError, match="no stage times"):
        replace(run, units=[run.units[0], replace(run.units[1], timing=UnitTiming())])


def test_a_transcript_that_is_none_says_how_to_get_one(tmp_path: Path):
    (tmp_path / "visitor.json").write_text('{"clip": 3}')
    with pytest.raises(InputError, match="git checkout"):
        Transcript.read(tmp_path / "visitor.json")


@given(st.integers(1, 500), st.integers(1, 20))
def test_spread_indices_are_different_in_order_and_inside(count, wanted):
    found = spread(count, wanted)
    assert len(found) == min(count, wanted)
    assert sorted(set(found)) == found
    assert 0 <= found[0] <= found[-1] < count


# Ends up to a thousand spans from zero, as in MB of memory: float64 leaves 1e-12 of that for the ticks.
SPANS = st.floats(1e-3, 1e6)
STARTS = st.floats(-1e3, 1e3)


@given(STARTS, SPANS, st.integers(1, 12))
def test_ticks_are_inside_the_axis_and_evenly_spaced(start, span, count):
    low = start * span
    axis = Axis(low, low + span, "ms", count)
    ticks = axis.ticks()
    edge = span * 1e-6
    assert all(low - edge <= tick <= low + span + edge for tick in ticks)
    assert len(ticks) <= count + 1
    assert np.allclose(np.diff(ticks), round_step((axis.high - axis.low) / count), rtol=1e-6)


@given(STARTS, SPANS)
def test_a_rounded_axis_holds_the_old_one_and_ends_on_ticks(start, span):
    low = start * span
    axis = Axis(low, low + span, "ms", 4)
    rounded = axis.rounded()
    edge = span * 1e-6
    assert rounded.low <= axis.low + edge
    assert rounded.high >= axis.high - edge
    assert rounded.ticks()[0] == pytest.approx(rounded.low)
    assert rounded.ticks()[-1] == pytest.approx(rounded.high)


def test_a_mark_outside_the_axes_is_drawn_at_the_edge():
    chart = Chart(Axis(0, 1, "s"), Axis(0, 100, "ms"), 50, "one bar")
    chart.bar(0, 1, 0, 250, "intime", "250 ms")
    assert 'y="0.0" width="1000.0" height="1000.0"' in chart.html()
    assert "<title>250 ms</title>" in chart.html()
