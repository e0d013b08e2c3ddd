"""Quantize: a float variant, a calibration and a recipe give a quantized variant in the bundle."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from wanedge.bundle import Bundle, BundleWriter, GraphFiles, Provenance, Variant
from wanedge_calibration.eight_bits import Range, calibrate_range, represented_db, smooth
from wanedge_calibration.errors import CalibrationError, QuantizationError
from wanedge_calibration.graph.editing import read_graph, write_graph
from wanedge_calibration.graph.placement import placement_faults
from wanedge_calibration.graph.rewrite import rewrite
from wanedge_calibration.graph.sites import Site, find_sites
from wanedge_calibration.recipe import Form, Mode, Precision, Recipe, default_mode
from wanedge_calibration.rollout.calibrate import float_variant
from wanedge_calibration.rollout.recording import ROLLOUT, Calibration, model_digest, read_calibration
from wanedge_runtimes.errors import GraphError
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import RuntimeOptions

RECIPES = "calibration"  # the bundle's folder for them
_KIND = {"fp32": "qdq", "fp16": "fp16"}  # how a Q/DQ variant is called, by the float precision around its products
_RECURRENT = ("GRU", "LSTM", "RNN")
_CAST = (".half", ".float")  # what the exporter calls a tensor in the other precision

# What an input of a layer must keep when it is rounded to 8-bit integers, at its best range. In kiosk-tiny the products
# of gate and up projection (heavy tails: the largest value is 70 to 130 times the RMS) keep 16 to 21 dB, and everything
# else 32 and more.
LEAST_INPUT_DB = 30.0


@dataclass(frozen=True)
class Source:
    """Start of a quantization: the float variant and what its tensors saw."""

    bundle: Bundle
    variant: Variant
    calibration: Calibration
    calibration_sha256: str

    @classmethod
    def of(cls, bundle: Bundle, variant: str | None = None, calibrated_by: Bundle | None = None) -> "Source":
        """variant: the float graphs to quantize, fp32 by default; "fp16" for engines. All share one calibration.

        calibrated_by: another bundle that holds the calibration of these weights.
        Raises CalibrationError when the bundle has no calibration, or one of other weights, BundleError.
        """
        holder = calibrated_by or bundle
        rolled_out = float_variant(bundle)  # what `calibrate` streams, whichever variant is quantized
        chosen = float_variant(bundle, variant)
        if ROLLOUT not in holder.manifest.files:
            raise CalibrationError(
                f"{holder.origin} has no calibration", hint=f"wanedge calibrate {bundle.origin} --clips CLIPS"
            )
        calibration = read_calibration(holder.path(ROLLOUT), model_digest(bundle, rolled_out))
        return cls(bundle, chosen, calibration, holder.manifest.files[ROLLOUT].sha256)

    def graph(self, component: str) -> ModelProto:
        """A component's graph. Raises QuantizationError for one of another opset than its spec says."""
        path, spec = self.bundle.graph(component, self.variant)
        model = read_graph(path)
        opset = max(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
        if opset != spec.opset:
            raise QuantizationError(
                f"{component}: the graph is opset {opset}, its spec says {spec.opset}",
                hint="import or export the component again",
            )
        return model

    @property
    def not_calibrated(self) -> list[str]:
        """Components with layers of which the roll-out saw no input: nothing but their weights can be quantized."""
        return [c for c in self.variant.graphs if self.sites(c) and not self.calibrated(c)]

    @property
    def recurrent_layers(self) -> int:
        """Layers that stay float whatever the recipe says."""
        return sum(node.op_type in _RECURRENT for c in self.variant.graphs for node in self.graph(c).graph.node)

    def sites(self, component: str) -> list[Site]:
        return find_sites(self.graph(component))

    def calibrated(self, component: str) -> set[str]:
        """Tensors of a component that the roll-out saw."""
        return {tensor for name, tensor in self.calibration.recording.channels if name == component}

    def recorded(self, component: str, tensor: str) -> str | None:
        """The name under which the roll-out saw a tensor; None where it did not.

        A float16 graph reads some tensors through a Cast, "x.half" of "x".
        """
        plain = tensor.removesuffix(_CAST[0]).removesuffix(_CAST[1])
        seen = self.calibrated(component)
        return next((name for name in (tensor, plain) if name in seen), None)

    def fits_integers(self, component: str, tensor: str, form: Form) -> bool:
        """Return whether a tensor keeps LEAST_INPUT_DB in 8-bit integers of a form, with its best range."""
        histogram, symmetric = self.calibration.recording.overall(component, tensor), form == "tensorrt"
        return represented_db(histogram, calibrate_range(histogram, "mse", symmetric=symmetric), symmetric) >= (
            LEAST_INPUT_DB
        )


def default_recipe(source: Source, precision: Precision, form: Form = "cpu", name: str | None = None) -> Recipe:
    """Every layer at `precision`, where the form allows it and, for INT8, the layer's input fits into 8-bit integers.

    A float of 8 bits has the same relative error at any size, so heavy tails do not harm FP8.
    """
    components: dict[str, dict[str, Mode]] = {}
    for component in source.variant.graphs:
        model = source.graph(component)
        sites = find_sites(model)
        modes: dict[str, Mode] = {}
        for site in sites:
            seen = source.recorded(component, site.reads)
            fits = seen is not None and (precision == "fp8" or source.fits_integers(component, seen, form))
            modes[site.node] = default_mode(site, precision, form, fits)
        stay = _weights_that_stay(model, sites, modes)
        components[component] = {s.node: "fp32" if s.weight in stay else modes[s.node] for s in sites}
    return Recipe(
        precision=precision,
        form=form,
        variant=name or (precision if form == "cpu" else f"{precision}-{_KIND[source.variant.precision]}"),
        source=source.variant.name,
        calibration=source.calibration_sha256,
        components=components,
    )


def _weights_that_stay(model: ModelProto, sites: list[Site], modes: Mapping[str, Mode]) -> set[str]:
    """Weights of which a reader stays float: they are kept in float anyway, and 8-bit copies would only add to them."""
    quantized = {(site.node, site.weight) for site in sites if modes[site.node] != "fp32"}
    weights = {weight for _, weight in quantized}
    return {
        name
        for node in model.graph.node
        for name in node.input
        if name in weights and (node.name, name) not in quantized
    }


def quantized_graph(source: Source, component: str, recipe: Recipe) -> ModelProto:
    """One component's graph as the recipe says. Raises QuantizationError; a misplaced Q or DQ is one, too."""
    model = source.graph(component)
    sites = find_sites(model)
    scales = _smooth(model, sites, source, component, recipe)
    rewrite(
        model,
        sites,
        recipe.components.get(component, {}),
        recipe.form,
        _range_reader(source, component, recipe, scales),
    )
    if faults := placement_faults(model, recipe.form):
        raise QuantizationError(f"{component}: {faults[0]}", hint="correct the recipe's modes of that layer")
    return model


def activation_ranges(source: Source, component: str, recipe: Recipe) -> Callable[[str], Range]:
    """The range that the recipe gives to each activation of a component, by tensor. CalibrationError: never seen."""
    model = source.graph(component) if recipe.smooth is not None else ModelProto()
    scales = _smooth(model, find_sites(model), source, component, recipe)
    return _range_reader(source, component, recipe, scales)


def smoothed_tensors(source: Source, recipe: Recipe) -> dict[str, list[str]]:
    """The activations that the recipe's smoothing changes, by component; empty where it changes nothing."""
    smoothed: dict[str, list[str]] = {}
    for component in source.variant.graphs if recipe.smooth is not None else ():
        model = source.graph(component)
        if scales := _smooth(model, find_sites(model), source, component, recipe):
            smoothed[component] = sorted(scales)
    return smoothed


def _smooth(
    model: ModelProto, sites: list[Site], source: Source, component: str, recipe: Recipe
) -> dict[str, NDArray[np.float32]]:
    """Smooth the graph in place where the recipe asks for it; returns the factors by tensor."""
    if recipe.smooth is None:
        return {}
    modes = recipe.components.get(component, {})
    touched = [site for site in sites if modes.get(site.node) in ("int8", "fp8")]
    channels = {t: k for (c, t), k in source.calibration.recording.channels.items() if c == component}
    return smooth(model, touched, channels, recipe.smooth)


def _range_reader(
    source: Source, component: str, recipe: Recipe, scales: Mapping[str, NDArray[np.float32]]
) -> Callable[[str], Range]:
    overrides, recording = recipe.ranges.get(component, {}), source.calibration.recording

    def range_of(tensor: str) -> Range:
        if tensor in overrides:
            return overrides[tensor]
        if tensor in scales:  # its histogram is of before the smoothing; the channels' maxima follow exactly
            largest = recording.channels[(component, tensor)] / scales[tensor]
            return -float(largest.max()), float(largest.max())
        histogram = recording.overall(component, source.recorded(component, tensor) or tensor)
        return calibrate_range(histogram, recipe.calibrator, recipe.kept, symmetric=recipe.form == "tensorrt")

    return range_of


def apply_recipe(source: Source, recipe: Recipe, output: Path | None = None, *, only: bool = False) -> Bundle:
    """Write the recipe's variant into the bundle, or into a copy at `output`; returns it, opened.

    only: leave the other variants and the calibration behind, as a bundle for a device.

    Raises QuantizationError (a recipe of another model), CalibrationError, BundleError.
    """
    _check(source, recipe)
    bundle, folder = source.bundle, f"graphs/{recipe.variant}"
    with BundleWriter.extend(bundle, output) as writer:
        target = writer.directory(folder)
        graphs: dict[str, GraphFiles] = {}
        for component, files in source.variant.graphs.items():
            written = write_graph(quantized_graph(source, component, recipe), target, component)
            _require_loadable(source, component, written[0], recipe)
            graph, *data = (f"{folder}/{file.name}" for file in written)
            graphs[component] = GraphFiles(graph=graph, data=tuple(data), spec=files.spec)
        writer.add_file(f"{RECIPES}/{recipe.variant}.yaml", recipe.to_yaml().encode())
        variant = Variant(
            name=recipe.variant,
            precision=recipe.precision,
            runtime="tensorrt" if source.variant.precision == "fp16" else "onnxruntime",
            target="cpu" if recipe.form == "cpu" else "tensorrt" if source.variant.precision == "fp32" else "any",
            profile=source.variant.profile,
            graphs=graphs,
        )
        provenance = Provenance.now(f"wanedge quantize --recipe {recipe.variant}.yaml")
        contents = bundle.manifest.contents.with_variant(variant, {}, provenance)
        new = {g for files in graphs.values() for g in (files.graph, *files.data)}
        remaining = new | ({contents.tokenizer} - {None})
        if only:
            contents = contents.model_copy(update={"variants": (variant,)})
        for relative in bundle.manifest.files:
            stale = relative.startswith(f"{folder}/") and relative not in new
            if stale or (only and relative not in remaining):
                writer.remove(relative)
        return writer.finish(contents)


def _require_loadable(source: Source, component: str, path: Path, recipe: Recipe) -> None:
    """Raises QuantizationError unless ONNX accepts a graph just written, and ONNX Runtime loads those made for it."""
    hint = "choose other modes for the layer that it names, and report this: the recipe should have been refused"
    try:
        onnx.checker.check_model(str(path), full_check=True)
        if recipe.form == "cpu":
            spec = source.bundle.graph(component, source.variant)[1]
            open_runtime("onnxruntime", RuntimeOptions(threads=1)).load(path, spec)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, GraphError) as error:
        reason = " ".join(str(error).split())[:300]
        raise QuantizationError(f"{component}: the quantized graph cannot be used: {reason}", hint=hint) from error


def variant_bytes(bundle: Bundle, variant: Variant) -> int:
    """Bytes of a variant's files, shared ones once."""
    files = {p for g in variant.graphs.values() for p in (g.graph, *g.data)}
    return sum(bundle.manifest.files[name].bytes for name in files)


def _check(source: Source, recipe: Recipe) -> None:
    if recipe.variant == source.variant.name or recipe.source != source.variant.name:
        raise QuantizationError(
            f"the recipe makes {recipe.variant!r} from {recipe.source!r}, the source here is {source.variant.name!r}",
            hint="set `source` and `variant` in the recipe",
        )
    existing = next((v for v in source.bundle.manifest.variants if v.name == recipe.variant), None)
    if existing is not None and (
        existing.engines or f"{RECIPES}/{recipe.variant}.yaml" not in source.bundle.manifest.files
    ):
        kind = "engines" if existing.engines else f"a {existing.precision} variant that no recipe made"
        raise QuantizationError(
            f"the recipe would replace variant {recipe.variant!r}, which is {kind}",
            hint="give the recipe another `variant`",
        )
    if source.variant.precision == "fp16" and (recipe.form == "cpu" or recipe.smooth is not None):
        raise QuantizationError(
            "float16 graphs are quantized for engines: in the tensorrt form, and without smoothing",
            hint="wanedge quantize BUNDLE --source fp16 --form tensorrt",
        )
    if recipe.calibration != source.calibration_sha256:
        raise QuantizationError(
            f"the recipe was made with calibration {str(recipe.calibration)[:12]}, "
            f"the bundle has {source.calibration_sha256[:12]}",
            hint="quantize again: wanedge quantize BUNDLE --precision int8; or calibrate with the same clips",
        )
    _check_components(recipe.components, source)
    _check_components(recipe.ranges, source)
    for component, ranges in recipe.ranges.items():
        read = {site.reads for site in source.sites(component)}
        if unknown := sorted(ranges.keys() - read):
            raise QuantizationError(
                f"ranges: no layer of {component} reads a tensor {unknown[0]!r}",
                hint=f"its layers read: {', '.join(sorted(read)[:6])}",
            )


def _check_components(components: Mapping[str, object], source: Source) -> None:
    if unknown := sorted(components.keys() - source.variant.graphs.keys()):
        raise QuantizationError(
            f"the recipe names a component {unknown[0]!r} that the bundle does not have",
            hint=f"it has: {', '.join(source.variant.graphs)}",
        )
