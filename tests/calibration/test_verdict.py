"""Three answers: only evidence that is there and good passes, and there is always a report."""

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from typer.testing import CliRunner, Result

from tests.acceptance.quantization.sabotage import CHANGES
from tests.calibration.test_validate import GATE, UNITS, changed, compared, poisoned
from tests.media import user_units
from wanedge.bundle import Bundle, BundleError, BundleWriter
from wanedge.cli.app import build_app
from wanedge.model import Model
from wanedge.units import UserUnit
from wanedge.verdicts import Answer, graphs_digest, read_verdict, verdict_path
from wanedge_calibration.clips import Clip, find_clips, save_units
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.results import Measure
from wanedge_calibration.rollout.calibrate import calibrate
from wanedge_calibration.validation import validate as module
from wanedge_calibration.validation.gate import DEFAULTS, Gate
from wanedge_calibration.validation.metrics import speech_quality
from wanedge_calibration.validation.report import differences
from wanedge_calibration.validation.verdict import Decision, Finding, decide, gate_path, next_step
from wanedge_runtimes.errors import ExecutionError


def wanedge(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(a) for a in arguments])


@pytest.fixture
def bundle(quantized: Bundle, tmp_path: Path) -> Path:
    """A copy that may be written to."""
    shutil.copytree(quantized.root, tmp_path / "kiosk.wanedge")
    return tmp_path / "kiosk.wanedge"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    GATE.write(tmp_path / "gate.yaml")
    return tmp_path / "gate.yaml"


def validated(bundle: Path, clip: Clip, gate: Path, out: Path, *more: object, reference: Path | None = None) -> Result:
    given_options = ("--variant", "int8", "--clips", clip.path, "--no-causes", "--gate", gate, "-o", out)
    return wanedge("validate", bundle, "--reference", reference or bundle, *given_options, *more)


def answer(out: Path) -> str:
    """The answer, the same in every file of the report."""
    report = json.loads((out / "report.json").read_text())
    verdict: str = report["verdict"]
    assert f">{verdict.capitalize()}</h1>" in (out / "report.html").read_text()
    suite = ElementTree.parse(out / "junit.xml").getroot()
    case = next(c for c in suite if c.attrib["name"] == "verdict")
    assert [c.tag for c in case] == {"passed": [], "failed": ["failure"], "incomplete": ["error"]}[verdict]
    return verdict


def default_of(bundle: Path) -> str:
    return Model.load(Bundle.open(bundle)).variant


def test_two_units_are_no_evidence(bundle: Path, clips: list[Clip], gate: Path, tmp_path: Path) -> None:
    done = validated(bundle, clips[0], gate, tmp_path / "r", "--units", 2, "--record")
    assert done.exit_code == 1
    assert answer(tmp_path / "r") == "incomplete"
    assert "incomplete: int8" in done.output
    assert "needs a clip of 6 units or more" in done.output  # one more than the mini model's longest window
    assert default_of(bundle) == "fp32"


@pytest.mark.slow
def test_the_default_gate_says_what_a_short_clip_lacks(bundle: Path, clips: list[Clip], tmp_path: Path) -> None:
    command = ("validate", bundle, "--reference", bundle, "--variant", "int8", "--clips", clips[0].path, "--no-causes")
    done = wanedge(*command, "-o", tmp_path / "r", "--json")
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert done.exit_code == 1
    if report["verdict"] == "incomplete":  # random weights may miss a threshold, too
        assert "needs a clip of 30 units or more, for drift.grows" in report["reason"]
    assert {"drift.grows"} <= set(report["unmeasured"])


def test_a_passed_verdict_holds_its_evidence(bundle: Path, clips: list[Clip], gate: Path, tmp_path: Path) -> None:
    done = validated(bundle, clips[0], gate, tmp_path / "r", "--units", UNITS, "--record")
    assert done.exit_code == 0, done.output
    assert answer(tmp_path / "r") == "passed"
    opened = Bundle.open(bundle)
    verdict = read_verdict(opened, opened.variant("int8"))
    assert verdict is not None
    assert verdict.passed
    assert [(c.sha256, c.units) for c in verdict.clips] == [(clips[0].sha256, UNITS)]
    assert verdict.coverage == {"cold": 2, "local wrapped": 3, "wrapped": 1}
    assert verdict.reference_sha256 == graphs_digest(opened, opened.variant("fp32"))
    assert verdict.gate_sha256 == GATE.sha256
    assert verdict.thresholds == GATE.thresholds
    kept = Gate.read(opened.path(gate_path("int8")))
    assert kept.limits == GATE.limits
    assert kept.reference == verdict.reference_sha256
    assert Gate.read(tmp_path / "r" / "gate.yaml") == kept
    assert default_of(bundle) == "int8"


def test_a_verdict_of_the_first_format_is_no_evidence(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    variant = opened.variant("int8")
    old = {"variant": "int8", "passed": True, "graphs_sha256": graphs_digest(opened, variant)}
    with BundleWriter.extend(opened) as writer:
        writer.add_file(verdict_path("int8"), json.dumps(old).encode())
        opened = writer.finish(opened.manifest.contents)
    assert read_verdict(opened, variant) is None
    assert default_of(bundle) == "fp32"
    with BundleWriter.extend(opened) as writer:
        writer.add_file(verdict_path("int8"), b"[1]")
        opened = writer.finish(opened.manifest.contents)
    with pytest.raises(BundleError, match="is not a verdict"):
        read_verdict(opened, variant)


@pytest.mark.slow
def test_nan_leaves_a_whole_report_and_withdraws_the_old_verdict(
    bundle: Path, quantized: Bundle, clips: list[Clip], gate: Path, tmp_path: Path
) -> None:
    report = tmp_path / "r"
    assert validated(bundle, clips[0], gate, report, "--units", UNITS, "--record").exit_code == 0
    assert default_of(bundle) == "int8"
    broken = changed(Bundle.open(bundle), "backbone", tmp_path / "nan.wanedge", poisoned)
    done = validated(broken.root, clips[0], gate, report, "--units", UNITS, "--record", reference=quantized.root)
    assert done.exit_code == 1
    assert answer(report) == "failed"
    assert "look first at: backbone" in done.output
    assert "NaN" in done.output
    verdict = read_verdict(Bundle.open(broken.root), Bundle.open(broken.root).variant("int8"))
    assert verdict is not None
    assert verdict.answer == "failed"


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ExecutionError("the graph ended", hint="-")])
def test_an_exception_leaves_a_whole_report_and_withdraws_the_old_verdict(
    bundle: Path, clips: list[Clip], gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    report = tmp_path / "r"
    assert validated(bundle, clips[0], gate, report, "--units", UNITS, "--record").exit_code == 0

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "run_jobs", fails)
    done = validated(bundle, clips[1], gate, report, "--units", UNITS, "--record")
    assert done.exit_code == 1
    assert answer(report) == ("failed" if isinstance(error, ExecutionError) else "incomplete")
    assert str(error.args[0]).partition("\n")[0] in (report / "report.json").read_text()
    assert default_of(bundle) == "fp32"


def test_an_interruption_leaves_incomplete_and_no_old_passed(
    bundle: Path, clips: list[Clip], gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "r"
    assert validated(bundle, clips[0], gate, report, "--units", UNITS, "--record").exit_code == 0

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_jobs", interrupted)
    validated(bundle, clips[1], gate, report, "--units", UNITS, "--record")
    assert answer(report) == "incomplete"
    assert "did not end" in (report / "report.html").read_text()
    assert default_of(bundle) == "fp32"


def test_files_are_compared_before_anything_runs(
    bundle: Path, quantized: Bundle, clips: list[Clip], gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a bundle that does not even load is failed by its files, and named."""
    change = CHANGES["bias moved"]
    broken = changed(quantized, "audio_decoder", tmp_path / "b", lambda m: change(m, np.random.default_rng(1)))

    def fails(*_: object) -> None:
        raise RuntimeError("it does not run")

    monkeypatch.setattr(module, "run_jobs", fails)
    monkeypatch.setattr(module, "probe_quantizers", fails)
    validated(broken.root, clips[0], gate, tmp_path / "r", reference=bundle)
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert answer(tmp_path / "r") == "failed"
    assert report["suspects"][0] == "audio_decoder"
    assert "stored.constants_changed" in report["misses"]


@pytest.mark.slow
def test_a_reference_that_is_not_the_gates_is_refused(
    bundle: Path, quantized: Bundle, clips: list[Clip], tmp_path: Path
) -> None:
    """A damaged fp32, from which an equally damaged int8 was made: nothing but the digest shows it."""
    pinned = Gate(limits=GATE.limits, reference=graphs_digest(quantized, quantized.variant("fp32")))
    pinned.write(tmp_path / "pinned.yaml")
    damaged = damaged_reference(quantized, clips, tmp_path / "damaged")
    done = validated(damaged.root, clips[0], tmp_path / "pinned.yaml", tmp_path / "r", "--units", UNITS)
    assert done.exit_code == 1
    assert answer(tmp_path / "r") == "failed"
    assert "the gate accepts only" in done.output
    assert validated(bundle, clips[0], tmp_path / "pinned.yaml", tmp_path / "r2", "--units", UNITS).exit_code == 0


def damaged_reference(quantized: Bundle, clips: list[Clip], path: Path) -> Bundle:
    shutil.copytree(quantized.root, path)
    opened = Bundle.open(path)
    model = onnx.load(str(opened.graph("audio_decoder", "fp32")[0]))
    weight = next(i for i in model.graph.initializer if len(i.dims) == 2 and i.data_type == 1)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.4), weight.name))
    place = Path(opened.variant("fp32").graphs["audio_decoder"].graph)
    data = opened.variant("fp32").graphs["audio_decoder"].data
    with BundleWriter.extend(opened) as writer:
        onnx.save(
            model, str(writer.directory(str(place.parent)) / place.name), save_as_external_data=bool(data),
            location=Path(data[0]).name if data else None, size_threshold=1024,
        )  # fmt: skip
        opened = writer.finish(opened.manifest.contents)
    recalibrated = calibrate(opened, clips[:1], threads=1).bundle
    source = Source.of(recalibrated)
    return apply_recipe(source, default_recipe(source, "int8"))


@pytest.mark.parametrize("named", [None, "b" * 64])
def test_a_reference_of_other_weights_than_the_gates_is_refused(
    bundle: Path, clips: list[Clip], gate: Path, tmp_path: Path, named: str | None
) -> None:
    """Also a reference that does not say from which weights it was exported."""
    opened = Bundle.open(bundle)
    with BundleWriter.extend(opened) as writer:
        writer.finish(opened.manifest.contents.model_copy(update={"weights_sha256": named}))
    pinned = tmp_path / "pinned.yaml"
    Gate.read(gate).pinned(graphs_digest(opened, opened.variant("fp32")), "a" * 64).write(pinned)
    done = validated(bundle, clips[0], pinned, tmp_path / "r", "--units", 2)
    assert done.exit_code == 1
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report["verdict"] == "failed"
    assert any("the gate accepts only aaaaaaaaaaaa" in f["what"] for f in report["findings"])


@pytest.mark.parametrize(
    ("answer", "suspects", "expected"),
    [
        ("passed", (), "--record"),
        ("incomplete", (), "needs a clip of 336 units or more; then validate again"),
        ("failed", ("backbone", "flow_in"), "look at backbone"),
        ("failed", (), "make the variant again"),
    ],
)
def test_every_answer_has_a_next_step(answer: Answer, suspects: tuple[str, ...], expected: str) -> None:
    decision = Decision(answer, "needs a clip of 336 units or more; and another thing")
    assert expected in next_step(decision, suspects)


def test_a_reference_that_changed_since_the_last_verdict_needs_a_pin(
    bundle: Path, clips: list[Clip], gate: Path, tmp_path: Path
) -> None:
    assert validated(bundle, clips[0], gate, tmp_path / "r", "--units", UNITS, "--record").exit_code == 0
    opened = Bundle.open(bundle)
    before = read_verdict(opened, opened.variant("int8"))
    assert before is not None
    moved = before.model_copy(update={"reference_sha256": "0" * 64})
    with BundleWriter.extend(opened) as writer:
        writer.add_file(verdict_path("int8"), moved.model_dump_json().encode())
        writer.finish(opened.manifest.contents)
    done = validated(bundle, clips[0], gate, tmp_path / "r", "--units", UNITS)
    assert answer(tmp_path / "r") == "incomplete"
    assert "that of the recorded verdict was 000000000000" in done.output


def test_nan_in_front_of_a_q_is_found_where_the_output_is_finite(
    quantized: Bundle, clips: list[Clip], tmp_path: Path
) -> None:
    """Quantization turns NaN into a number: only the tensor in front of the Q shows it."""

    def vanishes(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
        model.graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
        index = list(model.graph.node).index(node)
        model.graph.node.insert(index, helper.make_node("Add", [node.input[0], "nan"], ["gone"], name="gone"))
        node.input[0] = "gone"

    broken = changed(quantized, "audio_encoder", tmp_path / "nan", vanishes)
    actual = compared(broken, clips[:1], tmp_path / "clips")
    assert actual.measures["probe.not_finite"].value == 1
    assert actual.probes[0].component == "audio_encoder"
    assert any("'gone'" in f.what and f.component == "audio_encoder" for f in actual.findings)


def test_a_calibration_on_silence_is_clipped_in_front_of_its_qs(
    quantized: Bundle, mini_bundle: Bundle, clips: list[Clip], tmp_path: Path
) -> None:
    """Files, recipe and calibration agree with each other; only what the tensors hold shows it."""
    shutil.copytree(mini_bundle.root, tmp_path / "silent.wanedge")
    heard = user_units(quantized.model, 6, seed=3)
    units = [UserUnit(index=u.index, audio=u.audio * 0, frames=u.frames * 0) for u in heard]
    save_units(tmp_path / "silence.npz", units)
    silent = calibrate(Bundle.open(tmp_path / "silent.wanedge"), find_clips([tmp_path / "silence.npz"]), threads=1)
    source = Source.of(silent.bundle)
    made = apply_recipe(source, default_recipe(source, "int8"))
    actual = compared(made, clips[:1], tmp_path / "clips", gate=DEFAULTS["int8"])
    assert actual.files.differences == []
    assert "probe.saturated_worst" in actual.misses
    honest = compared(quantized, clips[:1], tmp_path / "clips", gate=DEFAULTS["int8"])
    assert "probe.saturated_worst" not in honest.misses


@pytest.mark.slow
def test_components_are_held_to_what_honest_quantizations_reach(
    quantized: Bundle, clips: list[Clip], tmp_path: Path
) -> None:
    plain = Gate(limits={"teacher.video_psnr_db": ">= 20"})
    honest = compared(quantized, clips, tmp_path / "a", gate=plain, component_thresholds=True)
    components = {n for n in honest.gate.limits if n.startswith("teacher.") and n.endswith("_snr_db")}
    assert components == {f"teacher.{c}_snr_db" for c in honest.results[0]["modes"]["teacher"]["rows"][0]["components"]}
    assert honest.passed, honest.decision
    coarse = changed(
        quantized, "audio_encoder", tmp_path / "b", lambda m: CHANGES["layer at 4 bits"](m, np.random.default_rng(0))
    )
    actual = compared(coarse, clips, tmp_path / "c", gate=plain, component_thresholds=True)
    assert "teacher.audio_encoder_snr_db" in actual.misses


def judged_share(hits: int, n: int, threshold: str = ">= 0.98") -> Measure:
    from wanedge_calibration.statistics import exact_share

    return exact_share(hits, n).measure("ratio", threshold)


WORDS = Gate(limits={"free.tokens_equal": ">= 0.98"})


def decided(measure: Measure) -> str:
    return decide({"free.tokens_equal": measure}, WORDS, [], [], 10).answer


def test_one_token_of_sixteen_decides_nothing() -> None:
    assert decided(judged_share(15, 16)) == "incomplete"
    assert decided(judged_share(16, 16)) == "incomplete"
    assert decided(judged_share(50, 50)) == "passed"
    assert decided(judged_share(1490, 1500)) == "passed"
    assert decided(judged_share(8, 16)) == "failed"
    assert decided(judged_share(1400, 1500)) == "failed"


@given(st.integers(1, 400), st.integers(0, 400), st.sampled_from([0.5, 0.9, 0.98, 0.99]))
def test_no_small_sample_is_called_failed_without_proof(n: int, errors: int, limit: float) -> None:
    """Failed only where so few hits would be rarer than one in 40 at the threshold itself."""
    from scipy import stats

    hits = max(n - errors, 0)
    said = decided(judged_share(hits, n, f">= {limit}"))
    if said == "failed":
        assert stats.binom.cdf(hits, n, limit) <= 0.0251
    if said == "passed":
        assert hits / n >= limit
        assert n * (1 - limit) >= 1 - 1e-6


def test_faults_outweigh_gaps_and_gaps_outweigh_numbers() -> None:
    good = {"free.tokens_equal": judged_share(500, 500)}
    gap, fault = Finding("incomplete", "the clip ended"), Finding("failed", "NaN", "decoder")
    assert decide(good, WORDS, [], [], 10).answer == "passed"
    assert decide(good, WORDS, [gap], [], 10).answer == "incomplete"
    assert decide(good, WORDS, [gap, fault], [], 10).answer == "failed"
    assert decide(good, WORDS, [], ["wrapped"], 335).reason == "needs a clip of 336 units or more, for wrapped caches"
    assert decide({}, WORDS, [], [], 10).answer == "incomplete"


def test_stoi_of_too_little_speech_is_no_value() -> None:
    """pystoi gives 1e-5 for it, which failed an honest model."""
    random = np.random.default_rng(0)
    pcm = np.zeros(32_000, np.float32)
    pcm[:3_000] = random.standard_normal(3_000).astype(np.float32)
    assert "stoi" not in speech_quality(pcm, pcm, 16_000)
    loud = random.standard_normal(32_000).astype(np.float32)
    assert speech_quality(loud, loud, 16_000)["stoi"] == pytest.approx(1.0)


def test_junit_counts_are_those_of_its_cases(bundle: Path, clips: list[Clip], gate: Path, tmp_path: Path) -> None:
    """The rules that build servers hold a file to: known elements, numeric counts that are true."""
    change = CHANGES["zeroed channel"]
    broken = changed(Bundle.open(bundle), "backbone", tmp_path / "b", lambda m: change(m, np.random.default_rng(0)))
    for number, path in enumerate((bundle, broken.root)):
        validated(path, clips[0], gate, tmp_path / str(number), "--units", 2, reference=bundle)
        suite = ElementTree.parse(tmp_path / str(number) / "junit.xml").getroot()
        assert suite.tag == "testsuite"
        assert suite.attrib.keys() == {"name", "tests", "failures", "errors", "skipped", "time"}
        kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
        for count, tag in kinds.items():
            assert int(suite.attrib[count]) == len(suite.findall(f"./testcase/{tag}"))
        assert int(suite.attrib["tests"]) == len(list(suite))
        for case in suite:
            assert case.tag == "testcase"
            assert case.attrib.keys() == {"name", "classname", "time"}
            assert len(case) <= 1
            assert all(re.fullmatch(r"failure|error|skipped", child.tag) for child in case)
        names = [case.attrib["name"] for case in suite]
        assert len(set(names)) == len(names)


@pytest.mark.slow
def test_reports_of_other_clips_are_not_compared(bundle: Path, clips: list[Clip], gate: Path, tmp_path: Path) -> None:
    for name, clip, units in (("a", clips[0], UNITS), ("b", clips[1], UNITS), ("c", clips[0], 2)):
        validated(bundle, clip, gate, tmp_path / name, "--units", units)
    for other in ("b", "c"):
        done = wanedge("validate", "--compare", tmp_path / "a" / "report.json", tmp_path / other / "report.json")
        assert done.exit_code != 0
        assert "over other clips" in done.output
    same = json.loads((tmp_path / "a" / "report.json").read_text())
    rows = {row[0]: row for row in differences(same, same)}
    assert rows["teacher.video_psnr_db"][3:] == (GATE.limits["teacher.video_psnr_db"], "same")
