"""From a reference model to a bundle: every component exported and checked, then one manifest over it all."""

from collections.abc import Callable, Sequence
from pathlib import Path

from wanedge.bundle import Bundle, BundleWriter, Contents, GraphFiles, Made, Variant
from wanedge.config import ModelConfig
from wanedge_export.component import Component
from wanedge_export.exporter import ExportedGraph, WeightFile, export_component
from wanedge_export.model import ReferenceModel
from wanedge_export.tokenizer import LOBBY
from wanedge_runtimes.spec import GraphSpec, Profile

Log = Callable[[str], None]

# Components that share tensors share a weights file.
_WEIGHTS = {"text_embed": "text", "text_head": "text"}


def export_bundle(
    model: ReferenceModel,
    path: Path,
    *,
    profiles: Sequence[Profile] = ("portable",),
    trained: bool = False,
    note: str = "",
    tokenizer: Path = LOBBY,
    command: str = "wanedge export",
    overwrite: bool = False,
    log: Log = lambda _: None,
) -> Bundle:
    """Export all components in float32 and write a bundle; each graph has passed parity with torch before.

    Args:
        profiles: "portable" makes the variant fp32, "decomposed" the variant fp32-decomposed; their weights are shared.
        trained, note: what the manifest says of the weights.
        log: told one line per step.

    Raises ExportError (which component and why) or BundleError; nothing is left at `path` then.
    """
    with BundleWriter(path, overwrite=overwrite) as writer:
        writer.add_file("tokenizer.json", tokenizer)
        folder = "graphs/fp32"
        graphs = _export_graphs(model.components(), writer.directory(folder), profiles, log)
        contents = Contents(
            made=Made.now(command),
            model=model.config,
            weights="trained" if trained else "random",
            weights_note=note,
            tokenizer="tokenizer.json",
            components=_specs(graphs),
            variants=tuple(_variant(profile, folder, graphs) for profile in profiles),
        )
        return writer.finish(contents)


def _export_graphs(
    components: dict[str, Component], folder: Path, profiles: Sequence[Profile], log: Log
) -> list[ExportedGraph]:
    graphs: list[ExportedGraph] = []
    files = dict.fromkeys(_WEIGHTS.get(name, name) for name in components)
    for file in files:
        with WeightFile(folder / f"{file}.weights") as weights:
            for name, component in components.items():
                if _WEIGHTS.get(name, name) != file:
                    continue
                for profile in profiles:
                    graphs.append(export_component(component, folder, profile=profile, weights=weights, log=log))
    return graphs


def _specs(graphs: list[ExportedGraph]) -> dict[str, dict[str, GraphSpec]]:
    specs: dict[str, dict[str, GraphSpec]] = {}
    for graph in graphs:
        specs.setdefault(graph.spec.component, {})[graph.spec.profile] = graph.spec
    return specs


def _variant(profile: Profile, folder: str, graphs: list[ExportedGraph]) -> Variant:
    return Variant(
        name="fp32" if profile == "portable" else f"fp32-{profile}",
        precision="fp32",
        runtime="onnxruntime",
        target="cpu",
        profile=profile,
        graphs={
            graph.spec.component: GraphFiles(
                graph=f"{folder}/{graph.path.name}",
                data=tuple(f"{folder}/{file.name}" for file in graph.data),
                spec=profile,
            )
            for graph in graphs
            if graph.spec.profile == profile
        },
    )


def load_or_seed(config: ModelConfig, weights: Path | None, seed: int) -> ReferenceModel:
    """The model with the weights of a file, or with seeded random ones. Raises WeightsError."""
    return ReferenceModel(config, seed) if weights is None else ReferenceModel.load(config, weights)
