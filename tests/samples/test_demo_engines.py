"""The demo's engines: what is built is recorded, and the report shows it."""

from dataclasses import replace
from pathlib import Path

import pytest
from samples.demo import prepare
from samples.demo.run import EngineRow, EnginesRun, Linted
from samples.demo.summary import summarise

from tests.export.half_graphs import half_bundle
from tests.samples.test_demo_report import Reader, html_of, run_of
from wanedge.bundle import Bundle
from wanedge_export.engines import bundle as build_of_bundles
from wanedge_runtimes.errors import InputError

MIB = 1 << 20
LAYERS = {"CONSTANT": 90, "KV_CACHE_UPDATE": 16, "ATTENTION_INPUT": 8, "MATRIX_MULTIPLY": 7}


def row(target: str, component: str, size: int = 10) -> EngineRow:
    return EngineRow(
        target=target,
        sm="8.6",
        component=component,
        engine_bytes=size * MIB,
        graph_bytes=MIB,
        seconds=2.0,
        layers=LAYERS if component == "backbone" else {"CAST": 1},
    )


RUN = EnginesRun(
    note="n",
    library="tensorrt-rtx 1.7.1",
    linted=(Linted(target="rtx-30", library="tensorrt-rtx 1.7", graphs=9, errors=0, warnings=3),),
    engines=(
        row("rtx-30", "backbone"),
        row("rtx-30", "flow_in", 4),
        row("rtx-50", "backbone"),
        row("rtx-50", "flow_in"),
    ),
)


def test_the_report_shows_sizes_times_and_the_backbones_native_layers() -> None:
    run = replace(run_of([90.0] * 3), engines=RUN)
    html = html_of(run)
    assert Reader(html).fetched == Reader(html_of(replace(run, engines=None))).fetched
    words = html.replace("<b>", "").replace("</b>", "")
    assert "rtx-30 9 graphs, 0 errors, 3 warnings" in words
    assert "14.0 MiB, 4.0 s" in words  # the sum of rtx-30's two engines
    assert "16 cache updates in place, 8 native attentions" in words
    assert "none of them was run here" in words
    assert summarise(run).engines == RUN


def test_where_nothing_was_built_the_report_says_why_and_without_a_look_it_says_nothing() -> None:
    absent = RUN.model_copy(update={"engines": (), "absent": "rtx-30: needs <tensorrt-rtx>"})
    run = run_of([90.0] * 3)
    assert "No engine was built here. rtx-30: needs &lt;tensorrt-rtx&gt;" in html_of(replace(run, engines=absent))
    assert "<h2>Engines</h2>" in html_of(replace(run, engines=RUN))
    assert "<h2>Engines</h2>" not in html_of(run)


def test_an_account_survives_being_written_and_a_damaged_one_says_what_to_do(tmp_path: Path) -> None:
    RUN.write(tmp_path / "engines.json")
    assert EnginesRun.read(tmp_path / "engines.json") == RUN
    (tmp_path / "engines.json").write_text("{}")
    with pytest.raises(InputError, match="make demo"):
        EnginesRun.read(tmp_path / "engines.json")


@pytest.mark.slow
def test_what_the_linter_passes_is_built_once_and_its_engines_are_in_the_bundle(
    mini_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'wanedge[rtx]'")
    # Two devices and one small graph: all of them take a minute, and the builder's own tests build them.
    monkeypatch.setattr(prepare, "TARGETS", ("rtx-30", "rtx-50"))
    monkeypatch.setattr(build_of_bundles, "STREAMING_COMPONENTS", ("flow_out",))
    path, told = tmp_path / "tiny.wanedge", tmp_path / "told.json"
    half_bundle(mini_bundle, path)
    prepare.build_demo_engines(path, told)
    run = EnginesRun.read(told)
    assert {(r.target, r.sm, r.component) for r in run.engines} == {
        ("rtx-30", "8.6", "flow_out"),
        ("rtx-50", "12.0", "flow_out"),
    }
    assert all(r.engine_bytes > 0 and r.seconds > 0 and r.layers for r in run.engines)
    assert all(each.errors == 0 and each.graphs > 5 for each in run.linted)
    assert {"rtx-30-fp16", "rtx-50-fp16"} <= {v.name for v in Bundle.open(path).manifest.variants}
    before = told.read_bytes()
    prepare.build_demo_engines(path, told)
    assert "is there already" in capsys.readouterr().err
    assert told.read_bytes() == before
