"""Bundles of tests: real ones, exported once and kept, and a small one whose graphs are arbitrary bytes."""

import fcntl
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.configs import mini
from wanedge.bundle import Bundle, BundleWriter, Contents, GraphFiles, Provenance, Variant, verify
from wanedge.bundle.manifest import seal
from wanedge_runtimes.spec import GraphSpec, StateSpec, TensorSpec

ROOT = Path(__file__).parent.parent
FILES = {
    "tokenizer.json": b'{"version": "1.0"}',
    "graphs/fp32/backbone.onnx": b"graph of the backbone" * 3,
    "graphs/fp32/backbone.weights": bytes(range(256)),
    "graphs/fp32/text_embed.onnx": b"graph of the embedding",
    "reports/empty.txt": b"",
}
MADE = Provenance(wanedge="0.1.0", date=datetime(2026, 1, 1, tzinfo=UTC), command="wanedge export --preset tiny")


def kept_bundle(name: str, export: Callable[[Path], Bundle]) -> Bundle:
    """A bundle in out/tests that `export` writes to the path that it gets, unless one of the same sources is there.

    Runs that ask at the same time wait for the first. name: everything that the call of `export` depends on.
    """
    path = ROOT / "out" / "tests" / f"{name}-{_sources_digest()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return Bundle.open(path) if path.exists() and verify(path).ok else export(path)


def _sources_digest() -> str:
    sources = [
        *(ROOT / "export/wanedge_export" / f"{name}.py" for name in ("bundling", "component", "operators")),
        *ROOT.glob("export/wanedge_export/exporter/*.py"),
        *ROOT.glob("export/wanedge_export/model/*.py"),
        *ROOT.glob("export/wanedge_export/tokenizer/*.*"),
        *ROOT.glob("sdk/wanedge/bundle/*.py"),
        *ROOT.glob("sdk/wanedge/[clt]*.py"),  # configuration, layout, text
        *ROOT.glob("runtimes/wanedge_runtimes/spec.py"),
    ]
    digest = hashlib.sha256()
    for file in sorted([*sources, ROOT / "tests" / "configs.py"]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def specs() -> dict[str, dict[str, GraphSpec]]:
    backbone = GraphSpec(
        component="backbone",
        opset=24,
        inputs=(TensorSpec(name="embeddings", dtype="float32", shape=(1, "S", 32)),),
        outputs=(TensorSpec(name="hidden", dtype="float32", shape=(1, "S", 32)),),
        states=(
            StateSpec(
                name="layers.0.key",
                past="past_key_values.0.key",
                present="present.0.key",
                dtype="float32",
                shape=(1, 2, 64, 16),
                update="in_place",
            ),
        ),
    )
    text_embed = GraphSpec(
        component="text_embed",
        opset=24,
        inputs=(TensorSpec(name="ids", dtype="int64", shape=(1, "S")),),
        outputs=(TensorSpec(name="embeddings", dtype="float32", shape=(1, "S", 32)),),
    )
    return {"backbone": {"portable": backbone}, "text_embed": {"portable": text_embed}}


def contents(**changes: Any) -> Contents:
    fp32 = Variant(
        name="fp32",
        precision="fp32",
        runtime="onnxruntime",
        target="cpu",
        graphs={
            "backbone": GraphFiles(
                graph="graphs/fp32/backbone.onnx", data=("graphs/fp32/backbone.weights",), spec="portable"
            ),
            "text_embed": GraphFiles(graph="graphs/fp32/text_embed.onnx", spec="portable"),
        },
    )
    parts: dict[str, Any] = {
        "made": MADE,
        "model": mini(),
        "weights": "random",
        "weights_note": "initialised with seed 0",
        "tokenizer": "tokenizer.json",
        "components": specs(),
        "variants": (fp32,),
    }
    return Contents(**parts | changes)


def write_bundle(path: Path, **options: Any) -> Bundle:
    with BundleWriter(path, **options) as writer:
        for relative, data in FILES.items():
            writer.add_file(relative, data)
        return writer.finish(contents())


def edit_manifest(root: Path, change: Callable[[dict[str, Any]], object], *, sealed: bool = True) -> None:
    """Change the manifest as a hostile or a future writer would: with a matching seal."""
    path = root / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    raw = json.dumps(manifest).encode()
    path.write_bytes(raw)
    if sealed:
        (root / "manifest.sha256").write_bytes(seal(raw))


def content(root: Path) -> dict[str, bytes]:
    """Every file under `root`."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def flip(path: Path, position: int, mask: int = 0xFF) -> None:
    """Change bits of one byte."""
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)
