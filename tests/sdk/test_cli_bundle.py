"""`wanedge inspect`, `verify` and `doctor` on a real bundle, whole and damaged."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.configs import mini
from wanedge.bundle import Bundle, pack
from wanedge.cli.app import build_app
from wanedge.commands import format_bytes
from wanedge.layout import UnitLayout
from wanedge.model import STREAMING_COMPONENTS, Model
from wanedge.ring import backbone_rings
from wanedge_runtimes import doctor
from wanedge_runtimes.doctor import Finding, Report
from wanedge_runtimes.spec import DType, itemsize


def wanedge(*arguments: object) -> Result:
    return CliRunner().invoke(build_app([]), [str(a) for a in arguments])


@pytest.fixture
def copy(mini_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return copytree(mini_bundle.root, tmp_path / "copy")


@pytest.fixture(scope="module")
def inspected(mini_bundle: Bundle) -> Any:
    return json.loads(wanedge("inspect", mini_bundle.root, "--json").stdout)


def test_totals_count_a_shared_file_once(inspected: dict[str, Any], mini_bundle: Bundle) -> None:
    graphs = mini_bundle.variant("fp32").graphs.values()
    files = {path for g in graphs for path in g.data}
    assert inspected["weight_bytes"] == sum((mini_bundle.root / path).stat().st_size for path in files)
    per_component = sum(c["weight_bytes"] for c in inspected["components"])
    shared = next(c for c in inspected["components"] if c["name"] == "text_head")
    assert shared["shares_weights_with"] == ["text_embed"]
    assert per_component - inspected["weight_bytes"] == shared["weight_bytes"]
    assert inspected["total_bytes"] == sum(f["bytes"] for f in inspected["files"])


def test_state_bytes_are_those_of_the_loaded_graphs(inspected: dict[str, Any], mini_bundle: Bundle) -> None:
    model = Model.load(mini_bundle, variant="fp32")
    for component in inspected["components"]:
        if component["name"] not in STREAMING_COMPONENTS:
            assert not component["streams"]
            continue
        states = model.graphs[component["name"]].spec.states
        assert component["state_bytes"] == sum(memory(s.shape, s.dtype, s.update) for s in states)
    streamed = [c for c in inspected["components"] if c["streams"]]
    assert inspected["session_state_bytes"] == sum(c["state_bytes"] for c in streamed)


def memory(shape: tuple[int, ...], dtype: DType, update: str) -> int:
    elements = 1
    for axis in shape:
        elements *= axis
    return elements * itemsize(dtype) * {"swap": 2, "in_place": 1}[update]


def test_the_unit_and_the_caches_are_the_models(inspected: dict[str, Any]) -> None:
    layout, rings = UnitLayout(mini()), backbone_rings(mini())
    assert inspected["unit"]["slots"] == layout.slots == sum(p["slots"] for p in inspected["unit"]["parts"])
    for cache in inspected["caches"]:
        assert cache["capacity"] == rings[cache["window"]].capacity
        assert cache["capacity"] == cache["prefill"] + cache["units"] * cache["slots_per_unit"]
        assert cache["seconds"] == cache["units"] * 0.16
    backbone = next(c for c in inspected["components"] if c["name"] == "backbone")
    assert sum(c["bytes"] for c in inspected["caches"]) == backbone["state_bytes"]


def test_the_tables_name_everything(inspected: dict[str, Any], mini_bundle: Bundle) -> None:
    text = wanedge("inspect", mini_bundle.root).stdout
    for kind in ("components", "variants"):
        assert all(entry["name"] in text for entry in inspected[kind])
    assert all(f["path"] in text for f in inspected["files"])
    assert "random weights" in text
    assert format_bytes(inspected["session_state_bytes"]) in text


def test_an_archive_reads_like_its_folder(inspected: dict[str, Any], mini_bundle: Bundle, tmp_path: Path) -> None:
    archive = pack(mini_bundle.root, tmp_path / "mini.wanedge")
    document = json.loads(wanedge("inspect", archive, "--json").stdout)
    assert {**document, "bundle": inspected["bundle"]} == inspected
    assert wanedge("verify", archive).exit_code == 0


def test_another_variant_can_be_described(mini_bundle: Bundle) -> None:
    document = json.loads(wanedge("inspect", mini_bundle.root, "--variant", "fp32-decomposed", "--json").stdout)
    backbone = next(c for c in document["components"] if c["name"] == "backbone")
    assert (backbone["profile"], backbone["opset"] <= 20) == ("decomposed", True)


def test_an_unknown_variant_is_misuse_and_lists_the_known(mini_bundle: Bundle) -> None:
    result = wanedge("inspect", mini_bundle.root, "--variant", "int3")
    assert result.exit_code == 2
    assert "it has: fp32, fp32-decomposed" in result.stderr


def test_a_whole_bundle_verifies(mini_bundle: Bundle) -> None:
    document = json.loads(wanedge("verify", mini_bundle.root, "--json").stdout)
    assert document["ok"]
    assert {f["path"] for f in document["files"]} == set(mini_bundle.manifest.files)


def test_missing_damaged_and_extra_files_are_told_apart(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    weights = copy / "graphs/fp32/backbone.weights"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    (copy / "notes.txt").write_text("left behind")
    result = wanedge("verify", copy, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    bad = {f["path"]: f["status"] for f in document["files"] if f["status"] != "ok"}
    assert bad == {"tokenizer.json": "missing", "graphs/fp32/backbone.weights": "damaged"}
    assert document["extra"] == ["notes.txt"]
    text = wanedge("verify", copy).stdout
    assert f"1 missing, 1 damaged of {len(document['files'])} files" in text
    assert "extra    notes.txt" in text


def test_extra_files_alone_are_no_damage(copy: Path) -> None:
    (copy / "notes.txt").write_text("left behind")
    assert wanedge("verify", copy).exit_code == 0


def test_a_manifest_that_cannot_be_believed_fails(copy: Path) -> None:
    (copy / "manifest.json").write_text("{")
    for command in ("verify", "inspect"):
        result = wanedge(command, copy)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")


def test_the_doctor_prints_one_document() -> None:
    document = json.loads(wanedge("doctor", "--json").stdout)
    assert document["facts"]["python"]
    assert document["ok"] is True  # the tests themselves need a machine that runs models


@pytest.mark.parametrize(("level", "code"), [("note", 0), ("warning", 0), ("error", 1)])
def test_the_doctor_fails_only_where_nothing_runs(level: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(level=level, what="something is amiss", hint="pip install 'wanedge[cpu]'")
    monkeypatch.setattr(doctor, "doctor", lambda: Report(facts=doctor.collect(), findings=(finding,)))
    result = wanedge("doctor")
    assert result.exit_code == code
    assert f"{level}: something is amiss\n  -> pip install 'wanedge[cpu]'" in result.stdout
