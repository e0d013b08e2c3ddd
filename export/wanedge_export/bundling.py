"""Exporting a reference model as a bundle: every component exported and checked, then one manifest over it all."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from wanedge.bundle import Bundle, BundleWriter, Contents, GraphFiles, Provenance, Variant
from wanedge.config import ModelConfig
from wanedge_export.component import Component
from wanedge_export.exporter import ExportedGraph, FloatPrecision, WeightFile, export_component
from wanedge_export.model import ReferenceModel
from wanedge_export.model.device import device_components
from wanedge_export.tokenizer import LOBBY
from wanedge_runtimes.spec import GraphSpec, Profile

Log = Callable[[str], None]

# Components that share tensors share a weights file.
_WEIGHTS = {"text_embed": "text", "text_head": "text"}
# Fixed transforms between samples and spectra: cheap, and a spectrum's range is wider than float16's resolution.
_FLOAT_MODULES = ("mel", "spectrum")
# Runtime and target of a precision's graphs: float32 runs on the CPU; engines are built from float16.
_RUNTIME = {"fp32": ("onnxruntime", "cpu"), "fp16": ("tensorrt", "any")}


def export_bundle(
    model: ReferenceModel,
    path: Path,
    *,
    profiles: Sequence[Profile] = ("portable",),
    precisions: Sequence[FloatPrecision] = ("fp32",),
    trained: bool = False,
    note: str = "",
    weights: Path | None = None,
    tokenizer: Path = LOBBY,
    command: str = "wanedge export",
    overwrite: bool = False,
    log: Log = lambda _: None,
) -> Bundle:
    """Export all components and write a bundle; each graph has passed parity with torch before.

    Args:
        profiles: "portable" makes the variant fp32, "decomposed" the variant fp32-decomposed; their weights are shared.
        precisions: "fp32" for ONNX Runtime, "fp16" for TensorRT, each with all profiles.
        trained, note: description of the weights in the manifest. weights: their file, for its SHA-256.
        log: called with one line per step.

    Raises ExportError (which component and why) or BundleError; nothing is left at `path` then.
    """
    with BundleWriter(path, overwrite=overwrite) as writer:
        writer.add_file("tokenizer.json", tokenizer)
        graphs: dict[FloatPrecision, list[ExportedGraph]] = {
            precision: [
                *_export_graphs(model.components(), writer.directory(f"graphs/{precision}"), profiles, precision, log),
                # Their inputs and outputs are float32 in every precision, and so is what they compute.
                *_export_graphs(
                    device_components(model.config), writer.directory(f"graphs/{precision}"), profiles, "fp32", log
                ),
            ]
            for precision in precisions
        }
        contents = Contents(
            made=Provenance.now(command),
            model=model.config,
            weights="trained" if trained else "random",
            weights_note=note,
            weights_sha256=None if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest(),
            tokenizer="tokenizer.json",
            components=_specs(graphs),
            variants=tuple(_variant(profile, p, graphs[p]) for p in precisions for profile in profiles),
        )
        return writer.finish(contents)


def _export_graphs(
    components: dict[str, Component],
    folder: Path,
    profiles: Sequence[Profile],
    precision: FloatPrecision,
    log: Log,
) -> list[ExportedGraph]:
    graphs: list[ExportedGraph] = []
    files = dict.fromkeys(_WEIGHTS.get(name, name) for name in components)
    for file in files:
        with WeightFile(folder / f"{file}.weights", by_content=False) as weights:
            for name, component in components.items():
                if _WEIGHTS.get(name, name) != file:
                    continue
                for profile in profiles:
                    graph = export_component(
                        component,
                        folder,
                        profile=profile,
                        weights=weights,
                        precision=precision,
                        float_modules=_FLOAT_MODULES,
                        log=log,
                    )
                    graphs.append(graph)
    return graphs


def _specs(graphs: dict[FloatPrecision, list[ExportedGraph]]) -> dict[str, dict[str, GraphSpec]]:
    specs: dict[str, dict[str, GraphSpec]] = {}
    for precision, exported in graphs.items():
        for graph in exported:
            specs.setdefault(graph.spec.component, {})[_spec_name(graph.spec.profile, precision)] = graph.spec
    return specs


def _spec_name(profile: Profile, precision: FloatPrecision) -> str:
    return profile if precision == "fp32" else f"{profile}-{precision}"


def _variant(profile: Profile, precision: FloatPrecision, graphs: list[ExportedGraph]) -> Variant:
    folder = f"graphs/{precision}"
    runtime, target = _RUNTIME[precision]
    return Variant(
        name=precision if profile == "portable" else f"{precision}-{profile}",
        precision=precision,
        runtime=runtime,
        target=target,
        profile=profile,
        graphs={
            graph.spec.component: GraphFiles(
                graph=f"{folder}/{graph.path.name}",
                data=tuple(f"{folder}/{file.name}" for file in graph.data),
                spec=_spec_name(profile, precision),
            )
            for graph in graphs
            if graph.spec.profile == profile
        },
    )


def load_or_seed(config: ModelConfig, weights: Path | None, seed: int) -> ReferenceModel:
    """The model with the weights of a file, or with seeded random ones. Raises WeightsError."""
    return ReferenceModel(config, seed) if weights is None else ReferenceModel.load(config, weights)
