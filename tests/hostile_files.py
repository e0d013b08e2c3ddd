"""The formats that wanedge reads from outside, as targets of tests/fuzzing.py."""

import hashlib
import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.bundles import specs, write_bundle
from tests.configs import mini
from tests.fuzzing import Target
from wanedge.bundle import pack, verify
from wanedge.bundle.manifest import parse_manifest
from wanedge.bundle.signature import check_signature
from wanedge.streaming import Streamer
from wanedge.text import Tokenizer
from wanedge.verdicts import parse_verdict
from wanedge_runtimes.snapshots import load_states, save_states
from wanedge_runtimes.weights import check_weights

SHA = "ab" * 32


def sdk_targets(streamer: Streamer, tokenizer: Path) -> list[Target]:
    """What a device reads. streamer: whose states are restored. tokenizer: a tokenizer file of its model."""

    def state_seeds(folder: Path) -> list[bytes]:
        tensors, metadata = streamer.snapshot()
        save_states(folder / "state", tensors, metadata)
        small = (folder / "state").read_bytes()
        save_states(folder / "other", {"a": {"x": np.zeros((2, 3), np.float32)}}, {"streamer": "{}"})
        return [small, (folder / "other").read_bytes()]

    def restore(path: Path) -> None:
        streamer.restore(*load_states(path))

    def restore_about(path: Path) -> None:
        # What the digest cannot keep out: a file that was written on purpose.
        tensors, metadata = streamer.snapshot()
        about = path.read_bytes().decode("utf-8", "replace")
        try:
            streamer.restore(tensors, metadata | {"streamer": about})
        finally:
            streamer.restore(tensors, metadata)

    def restore_tensors(path: Path) -> None:
        written_on_purpose = path.with_name("resealed")
        save_states(written_on_purpose, load_tensors(path), streamer.snapshot()[1])
        streamer.restore(*load_states(written_on_purpose))

    return [
        Target("manifest", manifest_seeds, lambda path: parse_manifest(path.read_bytes(), path)),
        Target("archive", archive_seeds, verify),
        Target("saved state", state_seeds, restore),
        Target("saved state's text", lambda _: [streamer.snapshot()[1]["streamer"].encode()], restore_about),
        Target("saved state's tensors", state_seeds, restore_tensors),
        Target("tokenizer", lambda _: [tokenizer.read_bytes()], lambda path: Tokenizer(path, streamer.config)),
        Target("verdict", verdict_seeds, lambda path: parse_verdict(path.read_bytes(), path)),
        Target("public key", key_seeds, lambda path: check_signature(b"manifest", b"s" * 64, path, Path("kiosk"))),
        Target("graph's weights", graph_seeds, check_weights),
    ]


def calibration_targets() -> list[Target]:
    """What a workstation reads."""
    from wanedge_calibration.recipe import Recipe
    from wanedge_calibration.results import Results
    from wanedge_calibration.rollout.recording import read_calibration
    from wanedge_calibration.validation.behaviour import Outcomes
    from wanedge_calibration.validation.gate import DEFAULTS, Gate
    from wanedge_calibration.validation.report import read_report

    gates = [gate.to_yaml().encode() for gate in DEFAULTS.values()]
    recipe = Recipe(
        precision="int8",
        form="cpu",
        variant="int8",
        components={"backbone": {"layers.0.q/MatMul": "int8", "layers.0.k/MatMul": "fp32"}},
        ranges={"backbone": {"x": (-1.0, 1.0)}},
        calibration=SHA,
    )
    return [
        Target("gate", lambda _: gates, Gate.read),
        Target("recipe", lambda _: [recipe.to_yaml().encode()], Recipe.read),
        Target("calibration", calibration_seeds, lambda path: read_calibration(path, SHA)),
        Target("outcomes", lambda _: [json.dumps(OUTCOMES).encode()], lambda path: Outcomes.read(path, SHA)),
        Target("results", lambda _: [json.dumps(RESULTS).encode()], Results.read),
        Target("report", lambda _: [json.dumps(REPORT).encode()], read_report),
        Target("trace", trace_seeds, read_trace),
        Target("trace's call", lambda _: [packed_call()], read_call),
    ]


def weights_target() -> Target:
    """Weights of the reference model, which needs torch. Slow: a model is built for each file that can be read."""
    from safetensors.numpy import save

    from wanedge_export.model import ReferenceModel

    seed = save({"text_embed.table.weight": np.zeros((4, 3), np.float32), "x": np.zeros(3, np.int8)})
    return Target("weights", lambda _: [seed], lambda path: ReferenceModel.load(mini(), path))


def manifest_seeds(folder: Path) -> list[bytes]:
    write_bundle(folder / "kiosk")
    return [(folder / "kiosk" / "manifest.json").read_bytes()]


def archive_seeds(folder: Path) -> list[bytes]:
    write_bundle(folder / "kiosk")
    return [pack(folder / "kiosk", folder / "kiosk.wanedge").read_bytes()]


def verdict_seeds(_: Path) -> list[bytes]:
    verdict = {
        "wanedge_verdict": 2,
        "variant": "int8",
        "answer": "passed",
        "reason": "everything holds",
        "graphs_sha256": SHA,
        "reference": "fp32",
        "reference_sha256": SHA,
        "gate_sha256": SHA,
        "thresholds": {"teacher.video_psnr_db": ">= 32"},
        "clips": [{"name": "a", "sha256": SHA, "units": 3}],
        "coverage": {"0": 1},
        "not_covered": [],
        "wanedge": "0.1.0",
        "date": "2026-01-01T00:00:00Z",
    }
    old = {"variant": "int8", "passed": True, "graphs_sha256": SHA}
    return [json.dumps(verdict).encode(), json.dumps(old).encode()]


def key_seeds(_: Path) -> list[bytes]:
    from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    keys = (ed25519.Ed25519PrivateKey.generate().public_key(), x25519.X25519PrivateKey.generate().public_key())
    return [key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys]


def graph_seeds(_: Path) -> list[bytes]:
    return [b"..\x0a\x08location\x12\x1aheads.3f2a9c01b4d7.weights", b"..\x0a\x08location\x12\x07../../a"]


def calibration_seeds(_: Path) -> list[bytes]:
    from wanedge_calibration.rollout.recording import Calibration, Coverage, Histogram, Key, Recording

    recording = Recording(coverage=Coverage(units=2, silence=2, fills={"0": 2}))
    histogram = Histogram()
    histogram.add(np.linspace(-1, 1, 50, dtype=np.float32))
    recording.histograms[Key("backbone", "x", "user", "0")] = histogram
    recording.channels["backbone", "x"] = np.ones(3, np.float32)
    clips: list[dict[str, str | int]] = [{"name": "a", "sha256": SHA, "units": 2}]
    return [Calibration(SHA, recording, clips, "A lobby.", 3).to_bytes()]


OUTCOMES = {
    "wanedge_behaviour": 1,
    "variant": "int8",
    "graphs_sha256": SHA,
    "made": "by hand",
    "outcomes": {"right_reply": {"voices/1#0": True, "voices/1#1": False}},
}
_MEASURE = {"value": 0.5, "unit": "ratio", "low": 0.4, "high": 0.6, "n": 5, "bar": "<= 0.6", "met": True}
_MADE = {"command": "make bench", "commit": None, "date": "2026-01-01", "model_sha256": None}
RESULTS = {"machine": {"cpu": "x"}, "made": _MADE, "measures": {"a": _MEASURE}}
REPORT = {
    "measures": {"free.tokens_equal": _MEASURE},
    "clips": [{"sha256": SHA, "units": 3}],
    "gate": {},
    "verdict": "passed",
}


def packed_call() -> bytes:
    arrays = {
        "input.embeddings": np.zeros((1, 2, 32), np.float32),
        "output.hidden": np.ones((1, 2, 32), np.float32),
        "before.layers.0.key": np.zeros((1, 2, 64, 16), np.float32),
        "after-places.layers.0.key": np.array([3]),
        "after-values.layers.0.key": np.array([7], np.uint32),
    }
    out = BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def trace_seeds(_: Path) -> list[bytes]:
    return [trace_of(packed_call())]


def trace_of(content: bytes) -> bytes:
    """A trace of one call, with the digest of whatever it holds."""
    file, digest = BytesIO(), hashlib.sha256(content).hexdigest()
    call = {"member": "calls/0.npz", "sha256": digest, "component": "backbone", "kind": "stream", "unit": 0, "fill": ""}
    about = {
        "wanedge_trace": 1,
        "model": "mini",
        "variant": "fp32",
        "precision": "fp32",
        "reference_sha256": SHA,
        "graphs": {"backbone": SHA},
        "specs": {"backbone": specs()["backbone"]["portable"].model_dump(mode="json")},
        "clips": {SHA: 1},
        "coverage": {"0": 1},
        "calls": [call],
        "twins": {},
    }
    with zipfile.ZipFile(file, "w") as members:
        members.writestr("calls/0.npz", content)
        members.writestr("about.json", json.dumps(about))
    return file.getvalue()


def read_trace(path: Path) -> None:
    from wanedge_calibration.validation.trace import Trace

    for _ in Trace.open(path).calls():
        pass


def read_call(path: Path) -> None:
    trace = path.with_name("trace")
    trace.write_bytes(trace_of(path.read_bytes()))
    read_trace(trace)


def load_tensors(path: Path) -> dict[str, dict[str, NDArray[np.generic]]]:
    """The tensors of a safetensors file by component; none where it cannot be read."""
    from safetensors.numpy import load

    states: dict[str, dict[str, NDArray[np.generic]]] = {}
    try:
        tensors = load(path.read_bytes())
    except Exception:  # the target "saved state" is about these
        return {}
    for key, values in tensors.items():
        component, _, name = key.partition("/")
        states.setdefault(component, {})[name] = values
    return states
