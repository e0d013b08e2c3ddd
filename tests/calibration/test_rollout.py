"""Calibration records what the model really saw, knows what it did not see, and can be interrupted."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.calibration.conftest import UNITS
from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge_calibration.clips import Clip, find_clips, save_units
from wanedge_calibration.errors import CalibrationError, NotFinite
from wanedge_calibration.quantize import Source
from wanedge_calibration.rollout import calibrate as module
from wanedge_calibration.rollout.calibrate import Recorder, calibrate
from wanedge_calibration.rollout.moment import fill_level, fill_levels
from wanedge_calibration.rollout.recording import ROLLOUT, read_calibration
from wanedge_runtimes.errors import InputError


def test_every_phase_and_fill_level_is_recorded(source: Source) -> None:
    keys = [k for k in source.calibration.recording.histograms if k.component == "backbone"]
    assert {k.phase for k in keys} == {"prefill", "user", "thought", "flow t=1.00", "flow t=0.50", "clean"}
    assert {k.fill for k in keys if k.phase == "clean"} == {"cold", "local wrapped", "wrapped"}
    coverage = source.calibration.recording.coverage
    assert (coverage.units, coverage.speech, coverage.silence) == (2 * UNITS, 12, 4)
    assert coverage.fills == {"cold": 4, "local wrapped": 6, "wrapped": 6}


def test_a_tensors_counts_are_its_elements(source: Source) -> None:
    """The text head reads one hidden vector per thought slot of every unit."""
    histogram = source.calibration.recording.overall("text_head", "view")
    config = source.bundle.model
    if not histogram.total:  # the exporter may name the flattened tensor otherwise
        (tensor,) = source.calibrated("text_head")
        histogram = source.calibration.recording.overall("text_head", tensor)
    assert histogram.total == 2 * UNITS * (1 + config.text.agent_slots) * config.backbone.width


def test_fill_levels_follow_the_rings(source: Source) -> None:
    config = source.bundle.model
    assert [fill_level(config, unit) for unit in (0, 1, 2, 4, 5)] == [
        "cold",
        "cold",
        "local wrapped",
        "local wrapped",
        "wrapped",
    ]
    assert fill_levels(config) == ["cold", "local wrapped", "wrapped"]


def test_an_interrupted_calibration_goes_on_and_ends_with_the_same_bytes(
    mini_bundle: Bundle, calibrated: Bundle, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(mini_bundle.root, tmp_path / "mini.wanedge")
    bundle, streamed = Bundle.open(tmp_path / "mini.wanedge"), list[str]()
    stream = Recorder.stream

    def interrupted(self: Recorder, clip: Clip, *rest: object) -> int:
        if streamed:
            raise KeyboardInterrupt
        streamed.append(clip.name)
        return stream(self, clip, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module.Recorder, "stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate(bundle, clips, threads=1)
    monkeypatch.undo()
    done = calibrate(bundle, clips, threads=1)
    assert done.resumed == 1
    assert done.bundle.manifest.files[ROLLOUT].sha256 == calibrated.manifest.files[ROLLOUT].sha256
    assert [p.name for p in tmp_path.iterdir()] == ["mini.wanedge"]


def test_clips_too_short_to_wrap_the_ring_are_told(mini_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(mini_bundle.root, tmp_path / "mini.wanedge")
    save_units(tmp_path / "short.npz", list(user_units(mini_bundle.model, 3)))
    done = calibrate(Bundle.open(tmp_path / "mini.wanedge"), find_clips([tmp_path / "short.npz"]), threads=1)
    assert done.missing == ["wrapped"]


def test_no_clips_is_a_misuse_that_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--clips: no clips"):
        find_clips([tmp_path])
    with pytest.raises(InputError, match="there is no file"):
        find_clips([tmp_path / "nothing.mp4"])


def test_a_calibration_of_other_weights_is_refused(calibrated: Bundle) -> None:
    with pytest.raises(CalibrationError, match="recorded with other weights"):
        read_calibration(calibrated.path(ROLLOUT), "0" * 64)


def test_a_damaged_calibration_is_refused(calibrated: Bundle, tmp_path: Path, source: Source) -> None:
    data = calibrated.path(ROLLOUT).read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    with pytest.raises(CalibrationError, match="not a calibration file"):
        read_calibration(tmp_path / "cut", source.calibration.model)


def test_nan_is_reported_with_its_first_tensor_and_unit(
    mini_bundle: Bundle, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(mini_bundle.root, tmp_path / "mini.wanedge")
    bundle = Bundle.open(tmp_path / "mini.wanedge")
    path, _ = bundle.graph("backbone", "fp32")
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.name == "layers.1.self_attn.o_proj.weight.transposed":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.nan, tensor.name))
    onnx.save(model, str(tmp_path / "bad.onnx"))
    plain = Bundle.graph
    monkeypatch.setattr(
        Bundle,
        "graph",
        lambda b, c, v: (tmp_path / "bad.onnx", plain(b, c, v)[1]) if c == "backbone" else plain(b, c, v),
    )
    with pytest.raises(
        NotFinite, match=r"backbone: tensor 'rms_norm_\d+' holds NaN or infinity in unit -1 \(prefill\)"
    ):
        calibrate(bundle, clips, threads=1)
