"""Every sample runs as it is, prints what its first lines promise, and is a row of the table."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.half_graphs import half_bundle
from wanedge.bundle import Bundle
from wanedge.config import ModelConfig

ROOT = Path(__file__).parents[2]
SAMPLES = sorted(ROOT.glob("samples/[a-z]*.py"))
CLIP = ROOT / "samples" / "media" / "kiosk-visitor.mp4"
UNITS = math.ceil(json.loads(CLIP.with_suffix(".json").read_text("utf-8"))["seconds"] / 0.16)  # the last one padded


@pytest.fixture
def bundle(mini_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mini_bundle.root, tmp_path / "kiosk.wanedge"))


def run(sample: str, *arguments: object, cwd: Path) -> str:
    """Output of a sample, started as its first lines say. The environment has no source folder in its path."""
    command = [sys.executable, str(ROOT / "samples" / f"{sample}.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_file_is_streamed_and_answered_unit_by_unit(bundle: Path, tmp_path: Path) -> None:
    *units, last = run("stream_a_file", bundle, CLIP, "reply.mp4", cwd=tmp_path).splitlines()
    times = [float(match[1]) for line in units if (match := re.match(r" *([\d.]+) s +\d+ ms  <", line))]
    assert times == [pytest.approx(0.16 * i, abs=0.006) for i in range(len(times))]
    assert last == f"reply.mp4: {0.16 * len(times):.1f} s"
    assert len(times) == pytest.approx(UNITS, abs=1)
    assert (tmp_path / "reply.mp4").stat().st_size > 10_000


@pytest.mark.slow
def test_a_clip_at_the_pace_of_time_takes_the_place_of_the_devices(bundle: Path, tmp_path: Path) -> None:
    printed = run("microphone_and_camera", bundle, "--clip", CLIP, "--silent", cwd=tmp_path)
    match = re.search(r"(\d+) units, \d+ late, (\d+) dropped\n$", printed)
    assert match
    assert int(match[1]) + int(match[2]) == pytest.approx(UNITS, abs=1)


@pytest.mark.slow
def test_asyncio_takes_every_unit(bundle: Path, tmp_path: Path) -> None:
    match = re.search(r"(\d+) units\n$", run("asyncio_session", bundle, CLIP, cwd=tmp_path))
    assert match
    assert int(match[1]) == pytest.approx(UNITS, abs=1)


@pytest.mark.slow
def test_sessions_that_share_a_model_answer_everything(bundle: Path, tmp_path: Path) -> None:
    lines = run("several_sessions", bundle, CLIP, "--sessions", 2, cwd=tmp_path).splitlines()
    units = [int(match[2]) for line in lines if (match := re.match(r"session (\d): (\d+) units", line))]
    assert units == [pytest.approx(UNITS, abs=1)] * 2


def test_a_resumed_conversation_is_the_same(bundle: Path, tmp_path: Path) -> None:
    assert "with a restart: the same" in run("save_and_resume", bundle, cwd=tmp_path)


@pytest.mark.slow
def test_an_exported_component_streams_as_torch_does(tmp_path: Path) -> None:
    assert "100 chunks, largest difference to torch" in run("export_a_component", "denoiser", cwd=tmp_path)
    assert list((tmp_path / "denoiser").rglob("*.onnx"))


@pytest.mark.slow
def test_an_int8_variant_gets_a_verdict(bundle: Path, tmp_path: Path) -> None:
    clips = ("--calibrate", CLIP, "--validate", ROOT / "samples" / "media" / "visitor.mp4", "--report", "report")
    printed = run("quantize_and_validate", bundle, *clips, "--units", 40, cwd=tmp_path)
    assert re.search(r"^int8 (passed|failed|incomplete): .+$", printed, re.MULTILINE)
    assert "int8" in {variant.name for variant in Bundle.open(bundle).manifest.variants}
    assert (tmp_path / "report" / "report.html").stat().st_size > 1_000


@pytest.mark.slow
def test_engines_for_another_machine_are_in_the_bundle(mini_bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'wanedge[rtx]'")
    half_bundle(mini_bundle, tmp_path / "half.wanedge")
    printed = run("build_an_engine", "half.wanedge", "--target", "rtx-40", cwd=tmp_path)
    assert re.search(r"^backbone +[\d.]+ MiB +[\d.]+ s$", printed, re.MULTILINE)
    assert "rtx-40-fp16" in {variant.name for variant in Bundle.open(tmp_path / "half.wanedge").manifest.variants}


def test_onnx_runtime_opens_a_bundle_as_a_package_of_its_own(bundle: Path, tmp_path: Path) -> None:
    if not hasattr(pytest.importorskip("onnxruntime"), "ModelPackageContext"):
        pytest.skip("this ONNX Runtime has no model packages: they came with 1.32")
    *components, last = run("ort_model_package", bundle, tmp_path / "view", cwd=tmp_path).splitlines()
    manifest = Bundle.open(bundle).manifest
    (fp32,) = (variant for variant in manifest.variants if variant.name == "fp32")
    assert components == [f"{name}: fp32 (CPUExecutionProvider)" for name in sorted(fp32.graphs)]
    assert isinstance(manifest.model, ModelConfig)
    assert last == f"text_embed: {{'embeddings': (1, 1, {manifest.model.backbone.width})}}"


def test_every_sample_is_short_has_a_row_and_says_what_it_prints() -> None:
    table = (ROOT / "samples" / "README.md").read_text("utf-8")
    tested = Path(__file__).read_text("utf-8")
    assert SAMPLES
    for sample in (path for path in SAMPLES if path.stem != "__init__"):
        text = sample.read_text("utf-8")
        assert len(text.splitlines()) <= 120, sample
        assert f"]({sample.name})" in table
        assert f'run("{sample.stem}"' in tested
        assert f"python samples/{sample.name}" in text
        assert "Prints " in text
