"""The engines' figures: what is planned, what is kept, and what the numbers mean."""

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engines import building
from tests.acceptance.engines.building import cell_records, take_records
from tests.acceptance.engines.measures import measures
from tests.acceptance.engines.plan import CELLS, Cell, Job, jobs
from tests.acceptance.engines.record import Record, read_records
from tests.export.half_graphs import half_bundle
from wanedge.bundle import Bundle
from wanedge_export.engines.worker.compile import BuildError
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.targets import target_named

CELL = Cell("kiosk-tiny", "rtx-40", "fp16")
LAYERS = {"KV_CACHE_UPDATE": 8, "ATTENTION_INPUT": 4}


def record(component: str = "backbone", **changes: object) -> Record:
    same = {"model": "kiosk-tiny", "target": "rtx-40", "precision": "fp16", "component": component, "graph": "g"}
    rest = {"library": "1.7.1", "lint": (), "warnings": 1, "refused": None, "seconds": 2.0, "cpu_seconds": 1.0}
    built = {"engine_bytes": 1000, "sha256": ("a", "a"), "layers": LAYERS}
    return Record.model_validate({**same, **rest, **built, **changes})


REFUSED: dict[str, Any] = {"refused": "no kernel", "engine_bytes": 0, "sha256": (), "layers": {}}


def test_the_guide_is_planned_for_every_precision_that_each_device_has() -> None:
    cells = CELLS["kiosk-tiny"]
    assert {c.target for c in cells} == {"rtx-30", "rtx-40", "rtx-50"}
    for cell in cells:
        if cell.builds:
            assert cell.precision in target_named(cell.target).precisions
    assert Cell("kiosk-tiny", "rtx-30", "fp8", builds=False) in cells
    assert len({(c.target, c.precision) for c in cells if c.builds}) == 8


def test_shares_count_what_repeats_and_what_the_linter_foresaw() -> None:
    fp32 = Cell("kiosk-tiny", "rtx-40", "fp32", builds=False)
    records = [
        record(),
        record("flow_in", sha256=("a", "b")),
        record(precision="fp32", lint=("attention-fp32",), **REFUSED),
        record("flow_in", precision="fp32", lint=("made-up",)),  # builds, although the linter says no
    ]
    results = measures(records, (CELL, fp32), layers=4)
    assert results["graphs_built"].value == 1.0
    assert results["linter_agrees"].value == 0.75
    assert results["rebuilt_identical"].value == 0.5
    assert results["rebuilt_identical_backbone"].value == 1.0
    assert results["rebuilt_identical_flow_in"].value == 0.0
    assert results["build_seconds"].value == 4.0
    assert results["backbone_cache_updates"].passed
    assert results["backbone_attentions"].passed
    assert results["rtx_40_fp16_lint_warnings"].value == 2.0


def test_a_refused_graph_and_a_lost_cache_miss_their_bars() -> None:
    results = measures([record(layers={"MATRIX_MULTIPLY": 3}), record("flow_in", **REFUSED)], (CELL,), layers=4)
    assert results["graphs_built"].passed is False
    assert results["backbone_cache_updates"].passed is False
    assert results["linter_agrees"].value == 0.5


def test_engines_are_compared_with_fp16_on_the_same_device() -> None:
    int8 = Cell("kiosk-tiny", "rtx-40", "int8")
    records = [record(), record(target="rtx-30", engine_bytes=9), record(precision="int8", engine_bytes=500)]
    results = measures(records, (CELL, int8), layers=4)
    assert results["rtx_40_int8_engine_over_fp16"].value == 0.5
    assert results["rtx_40_int8_engine_over_fp16"].passed
    assert "rtx_40_fp16_engine_over_fp16" not in results


def test_other_models_have_their_name_in_front() -> None:
    results = measures([record(model="edge")], (Cell("edge", "rtx-40", "fp16"),), layers=4)
    assert all(name.startswith("edge_") for name in results)


def test_a_stopped_run_goes_on_by_cells_and_another_graph_or_library_is_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mini_bundle: Bundle
) -> None:
    built: list[str] = []

    def build(_bundle: Bundle, cell: Cell, some: list[Job], library: str, _told: object) -> list[Record]:
        built.append(cell.precision)
        return [record(j.component, precision=cell.precision, graph=j.graph, library=library) for j in some]

    monkeypatch.setattr(building, "cell_records", build)
    kept = tmp_path / "records.jsonl"
    fp16 = [Job(CELL, "flow_in", "g"), Job(CELL, "backbone", "g")]
    int8 = [Job(CELL._replace(precision="int8"), "flow_in", "g")]
    take_records(mini_bundle, fp16, kept, "1.7.1", lambda _: None)
    with kept.open("a") as file:
        file.write('{"model": "cut off')  # a line that was being written
    records = take_records(mini_bundle, [*fp16, *int8], kept, "1.7.1", lambda _: None)
    assert built == ["fp16", "int8"]
    assert [(r.precision, r.component) for r in records] == [
        ("fp16", "flow_in"),
        ("fp16", "backbone"),
        ("int8", "flow_in"),
    ]
    take_records(mini_bundle, [fp16[0], Job(CELL, "backbone", "other")], kept, "1.7.1", lambda _: None)
    take_records(mini_bundle, int8, kept, "1.7.2", lambda _: None)
    assert built == ["fp16", "int8", "fp16", "int8"]
    kept.write_text("{}\n")
    with pytest.raises(InputError, match="start again"):
        read_records(kept)


def test_one_build_repeats_nothing() -> None:
    assert not record(sha256=("a",)).identical
    assert not record(sha256=("a", "b")).identical
    assert record(sha256=("a", "a")).identical


def test_a_failure_of_building_together_is_told_unless_a_graph_tells_why(
    monkeypatch: pytest.MonkeyPatch, mini_bundle: Bundle
) -> None:
    def fails(_bundle: Bundle, _cell: Cell) -> dict[str, str]:
        raise BuildError("memory ran out", hint="close other programs")

    alone = iter([record(sha256=("a",)), record(**REFUSED)])
    monkeypatch.setattr(building, "_built_together", fails)
    monkeypatch.setattr(building, "_record", lambda *_: next(alone))
    job = Job(CELL, "backbone", "g")
    with pytest.raises(BuildError, match="memory ran out"):
        cell_records(mini_bundle, CELL, [job], "1", lambda _: None)
    (reported,) = cell_records(mini_bundle, CELL, [job], "1", lambda _: None)
    assert reported.refused == "no kernel"


@pytest.mark.slow
def test_a_cell_is_built_together_and_alone_and_a_refusal_is_kept_in_its_own_words(
    mini_bundle: Bundle, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'wanedge[rtx]'")
    bundle = half_bundle(mini_bundle, tmp_path / "mini")
    planned = list(jobs(bundle, [CELL]))
    good = cell_records(bundle, CELL, planned, "1.7.1", lambda _: None)
    assert [r.component for r in good] == [j.component for j in planned]
    assert all(r.refused is None and r.agrees and len(r.sha256) == 2 and r.layers for r in good)
    assert all(r.seconds > 0 and r.cpu_seconds > 0 for r in good)
    fp32 = CELL._replace(precision="fp32", builds=False)
    backbone = [j for j in jobs(bundle, [fp32]) if j.component == "backbone"]
    (bad,) = cell_records(bundle, fp32, backbone, "1.7.1", lambda _: None)
    assert bad.refused
    assert "attention-fp32" in bad.lint
    assert bad.sha256 == ()
