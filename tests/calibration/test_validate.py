"""Validation as QA uses it: honest bundles pass, broken ones fail and name the guilty component."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner, Result

from tests.acceptance.quantization.sabotage import CHANGES
from wanedge.bundle import Bundle, BundleWriter
from wanedge.cli.app import build_app
from wanedge.model import Model
from wanedge.verdicts import graphs_digest
from wanedge_calibration.clips import Clip
from wanedge_calibration.errors import ValidationError
from wanedge_calibration.graph.editing import read_graph, write_graph
from wanedge_calibration.validation.clip_jobs import ClipJob, Side, run_job
from wanedge_calibration.validation.clip_runs import OutputRecorder
from wanedge_calibration.validation.gate import Gate
from wanedge_calibration.validation.static import inspect_files
from wanedge_calibration.validation.validate import Compared, Plan, compare
from wanedge_runtimes.runtime import Call

# Random weights have no margin between tokens, so nothing is asked of the words.
GATE = Gate(
    limits={
        "stored.worst_channel_db": ">= 30",
        "stored.constants_changed": "== 0",
        "stored.placement_faults": "== 0",
        "teacher.backbone_snr_db": ">= 15",
        "teacher.video_psnr_db": ">= 32",
    }
)
UNITS = 6


def compared(candidate: Bundle, clips: list[Clip], folder: Path, variant: str = "int8", **options: object) -> Compared:
    chosen, of = candidate.variant(variant), candidate.variant("fp32")
    settings: dict[str, object] = {"gate": GATE, "limit": UNITS, **options}
    return compare(Plan(candidate, chosen, candidate, of, clips, folder, **settings))  # type: ignore[arg-type]


def changed(bundle: Bundle, component: str, path: Path, change: Callable[[onnx.ModelProto], object]) -> Bundle:
    """A copy of the bundle whose int8 graph of `component` was changed."""
    model = read_graph(bundle.graph(component, "int8")[0])
    change(model)
    with BundleWriter.extend(bundle, path) as writer:
        write_graph(model, writer.directory("graphs/int8"), component)
        return writer.finish(bundle.manifest.contents)


@pytest.fixture(scope="module")
def honest(quantized: Bundle, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Compared:
    return compared(quantized, clips, tmp_path_factory.mktemp("honest"))


def test_an_honest_quantization_passes(honest: Compared) -> None:
    assert honest.passed, honest.misses
    assert honest.measures["teacher.video_psnr_db"].n == 2 * UNITS
    assert honest.files.faults == []
    assert honest.files.differences == []
    assert honest.not_covered == []


def test_fp32_against_itself_is_perfect(quantized: Bundle, clips: list[Clip], tmp_path: Path) -> None:
    same = compared(quantized, clips[:1], tmp_path, variant="fp32")
    for mode in ("teacher", "free"):
        for row in same.results[0]["modes"][mode]["rows"]:
            assert (row["audio_snr_db"], row["psnr_db"], row["tokens_equal"]) == (150.0, 150.0, 1.0)
    assert same.files.layers[0].worst_db == 150.0


@pytest.mark.slow
def test_clips_in_parallel_processes_give_the_same_numbers(
    quantized: Bundle, clips: list[Clip], honest: Compared, tmp_path: Path
) -> None:
    assert compared(quantized, clips, tmp_path, processes=2).results == honest.results


@pytest.mark.slow
def test_clips_on_a_local_ray_of_two_workers_give_the_same_numbers(
    quantized: Bundle, clips: list[Clip], honest: Compared, tmp_path: Path, ray_cluster: str
) -> None:
    assert compared(quantized, clips, tmp_path, ray=ray_cluster).results == honest.results


@pytest.mark.slow
def test_an_interrupted_validation_goes_on(
    quantized: Bundle, clips: list[Clip], honest: Compared, tmp_path: Path
) -> None:
    def stop(stage: str, done: int, _all: int) -> None:
        if stage == "clips" and done:
            raise KeyboardInterrupt

    plan = Plan(
        quantized,
        quantized.variant("int8"),
        quantized,
        quantized.variant("fp32"),
        clips,
        tmp_path,
        gate=GATE,
        limit=UNITS,
    )
    with pytest.raises(KeyboardInterrupt):
        compare(plan, stop)
    assert len(list(tmp_path.glob("*.json"))) == 1
    kept = next(tmp_path.glob("*.json")).stat().st_mtime_ns
    assert compare(plan).results == honest.results
    assert kept in {p.stat().st_mtime_ns for p in tmp_path.glob("*.json")}


@pytest.mark.parametrize("calls", [1, 40, 90])
def test_an_interruption_keeps_the_clip_in_progress(
    quantized: Bundle, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Wherever Ctrl+C comes, inside a unit too: the units before it are not run again, and the numbers are the same."""
    variants = quantized.variant("fp32"), quantized.variant("int8")
    sides = [Side(quantized.root, v.name, graphs_digest(quantized, v)) for v in variants]
    whole, stopped = (ClipJob(sides[0], sides[1], clips[0], tmp_path / name, UNITS) for name in ("whole", "stopped"))
    expected = run_job(whole)
    seen: list[int] = []
    see = OutputRecorder._see

    def interrupts(self: OutputRecorder, component: str, call: Call) -> None:
        seen.append(self.unit)
        if len(seen) == calls:
            raise KeyboardInterrupt
        see(self, component, call)

    monkeypatch.setattr(OutputRecorder, "_see", interrupts)
    with pytest.raises(KeyboardInterrupt):
        run_job(stopped)
    unit = seen[-1]
    seen.clear()
    calls = -1
    assert run_job(stopped) == expected
    assert {u for u in seen if u >= 0} == set(range(max(unit, 0), UNITS))
    assert [p.name for p in sorted((tmp_path / "stopped").iterdir())] == [stopped.result.name, stopped.media.name]


@pytest.mark.parametrize("kind", CHANGES)
def test_the_files_alone_show_each_kind_of_sabotage(quantized: Bundle, tmp_path: Path, kind: str) -> None:
    """On the backbone where it has such a thing, else on the picture's decoder."""
    for component in ("backbone", "video_decoder"):
        model = read_graph(quantized.graph(component, "int8")[0])
        if CHANGES[kind](model, np.random.default_rng(5)) is not None:
            break
    broken = changed(quantized, component, tmp_path / "broken", lambda m: CHANGES[kind](m, np.random.default_rng(5)))
    files = inspect_files(broken, broken.variant("int8"), broken, broken.variant("fp32"))
    bad = {x.component for x in files.layers if x.worst_db < 30} | {d.component for d in files.differences}
    assert bad | {f.partition(":")[0] for f in files.faults} == {component}


def poisoned(model: onnx.ModelProto) -> None:
    """NaN in what leaves the backbone."""
    last = next(node for node in model.graph.node if node.output[0] == "hidden")
    model.graph.initializer.append(numpy_helper.from_array(np.full(32, np.nan, np.float32), "poison"))
    last.input[1] = "poison"


def test_nan_in_a_component_fails_and_is_named_with_tensor_and_unit(
    quantized: Bundle, clips: list[Clip], tmp_path: Path
) -> None:
    actual = compared(changed(quantized, "backbone", tmp_path / "nan", poisoned), clips[:1], tmp_path / "clips")
    assert actual.decision.answer == "failed"
    faults = [f for f in actual.findings if f.component == "backbone"]
    assert any(re.search(r"tensor 'hidden' .* in the prefill", f.what) for f in faults)


def test_another_architecture_is_refused(quantized: Bundle, clips: list[Clip], tmp_path: Path) -> None:
    path = tmp_path / "other"
    with BundleWriter.extend(quantized, path) as writer:
        flow = quantized.model.flow.model_copy(update={"steps": 7})
        model = quantized.model.model_copy(update={"flow": flow})
        other = writer.finish(quantized.manifest.contents.model_copy(update={"model": model}))
    with pytest.raises(ValidationError, match=r"another architecture .* its flow is"):
        compare(Plan(other, other.variant("int8"), quantized, quantized.variant("fp32"), clips, tmp_path / "clips"))


def wanedge(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(a) for a in arguments])


@pytest.mark.slow
def test_the_command_fails_on_a_sabotaged_bundle_and_its_report_names_the_guilty(
    quantized: Bundle, clips: list[Clip], tmp_path: Path
) -> None:
    broken = changed(
        quantized,
        "audio_decoder",
        tmp_path / "broken.wanedge",
        lambda m: CHANGES["zeroed channel"](m, np.random.default_rng(1)),
    )
    (tmp_path / "gate.yaml").write_text("limits:\n" + "".join(f'  {k}: "{v}"\n' for k, v in GATE.limits.items()))
    report = tmp_path / "report"
    done = wanedge(
        *(
            "validate",
            broken.root,
            "--reference",
            quantized.root,
            "--variant",
            "int8",
            "--gate",
            tmp_path / "gate.yaml",
        ),
        *("--clips", clips[0].path, "--units", 2, "-o", report),
    )
    assert done.exit_code == 1, done.output
    assert "look first at: audio_decoder" in done.output
    actual = json.loads((report / "report.json").read_text())
    assert (actual["verdict"], actual["suspects"][0]) == ("failed", "audio_decoder")
    cases = ElementTree.parse(report / "junit.xml").getroot()
    assert cases.attrib["failures"] == str(len(cases.findall(".//failure"))) == str(len(actual["misses"]) + 1)
    page = (report / "report.html").read_text()
    assert page.index("Failed") < page.index("Look first at audio_decoder") < page.index("Worst clips")
    assert re.findall(r"(?:src|href)=['\"](?!data:)", page) == []
    assert "<script" not in page

    twice = wanedge("validate", "--compare", report / "report.json", report / "report.json", "--json")
    assert {row["verdict"] for row in json.loads(twice.output)} <= {"same", "within the noise"}


@pytest.mark.slow
def test_a_passed_and_recorded_variant_is_what_runs_by_default_on_the_cpu(
    quantized: Bundle, clips: list[Clip], tmp_path: Path
) -> None:
    path = tmp_path / "kiosk.wanedge"
    shutil.copytree(quantized.root, path)
    assert Model.load(Bundle.open(path)).variant == "fp32"
    (tmp_path / "gate.yaml").write_text('limits:\n  teacher.video_psnr_db: ">= 32"\n')
    command = ("validate", path, "--reference", path, "--variant", "int8", "--clips", clips[0].path, "--units", UNITS)
    done = wanedge(*command, "--no-causes", "-o", tmp_path / "r", "--record", "--gate", tmp_path / "gate.yaml")
    assert done.exit_code == 0, done.output
    assert Model.load(Bundle.open(path)).variant == "int8"
    moved = CHANGES["weight scale x1.5"]
    changed(Bundle.open(path), "backbone", tmp_path / "changed", lambda m: moved(m, np.random.default_rng(0)))
    assert Model.load(Bundle.open(tmp_path / "changed")).variant == "fp32"


def test_a_disk_that_fills_leaves_no_half_report(quantized: Bundle, clips: list[Clip], tmp_path: Path) -> None:
    """/dev/full takes no byte; a folder on it cannot be made, so a file stands where the folder should be."""
    (tmp_path / "report").write_text("in the way")
    done = wanedge(
        *("validate", quantized.root, "--reference", quantized.root, "--variant", "int8", "--clips", clips[0].path),
        *("--units", 1, "-o", tmp_path / "report"),
    )
    assert done.exit_code == 1
    assert "error:" in done.output
    assert (tmp_path / "report").read_text() == "in the way"
