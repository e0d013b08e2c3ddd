"""Compare two bundles' graphs as files, without running them. Reference first; no component's name stands here.

A run averages over thousands of numbers, and one zeroed channel hides in it. Here each node, each constant, each
output channel of a weight and each activation's scale stands alone. `graph_differences` says what is compared.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from wanedge.bundle import Bundle, Variant
from wanedge_calibration.errors import CalibrationError
from wanedge_calibration.graph.editing import read_graph
from wanedge_calibration.graph.placement import placement_faults
from wanedge_calibration.graph.sites import Site, attribute, find_sites
from wanedge_calibration.graph.trace_back import GraphView
from wanedge_calibration.quantize import RECIPES, Source, activation_ranges
from wanedge_calibration.recipe import Form, Recipe
from wanedge_calibration.statistics import Interval
from wanedge_calibration.validation.metrics import MOST_DB, snr_db
from wanedge_calibration.validation.ranges import scale_differences
from wanedge_runtimes.runtime import Array

Float = NDArray[np.float64]

NORMS = ("RMSNormalization", "LayerNormalization")
# A channel this much quieter than its layer's loudest carries no weight of its own; 8 bits of a constant say nothing.
_NEGLIGIBLE = 1e-6
# Smoothing multiplies and divides by one factor in float32, and may store the result in float16.
_SMOOTHED = 2.0**-9


@dataclass(frozen=True)
class StaticLayer:
    """worst_db: the lowest SNR of an output channel's weights; channel: which."""

    component: str
    layer: str
    worst_db: float
    channel: int


@dataclass(frozen=True)
class Difference:
    """Something that both graphs should share and do not: a node, an input, a constant, an attribute, a scale."""

    component: str
    node: str
    what: str


@dataclass(frozen=True)
class Files:
    """Results of comparing the files. layers: every layer, the worst first.

    unchecked_scales: scales of activations that no calibration was there for.
    """

    layers: list[StaticLayer]
    differences: list[Difference]
    faults: list[str]
    scales: int
    unchecked_scales: int

    @property
    def measures(self) -> dict[str, Interval]:
        values = {"constants_changed": len(self.differences), "placement_faults": len(self.faults)}
        measures = {f"stored.{name}": Interval(float(value), None, None, 1) for name, value in values.items()}
        if self.layers:
            worst = max(self.layers[0].worst_db, -MOST_DB)
            measures["stored.worst_channel_db"] = Interval(worst, None, None, len(self.layers))
        if not self.unchecked_scales:
            measures["stored.scales_unchecked"] = Interval(0.0, None, None, max(self.scales, 1))
        return measures


def inspect_files(candidate: Bundle, variant: Variant, reference: Bundle, of: Variant) -> Files:
    """Compare the graphs of two variants as they are stored, and the scales with the calibration's ranges."""
    scales_source = find_scales_source(candidate, variant, reference)
    parts = [
        compare_graphs(
            component,
            read_graph(reference.graph(component, of)[0]),
            read_graph(candidate.graph(component, variant)[0]),
            form_of(variant),
            scales_source,
        )
        for component in of.graphs
    ]
    return Files(
        layers=sorted((layer for part in parts for layer in part.layers), key=lambda x: x.worst_db),
        differences=[difference for part in parts for difference in part.differences],
        faults=[fault for part in parts for fault in part.faults],
        scales=sum(part.scales for part in parts),
        unchecked_scales=sum(part.unchecked_scales for part in parts),
    )


def compare_graphs(
    component: str, reference: ModelProto, candidate: ModelProto, form: Form, scales_source: "ScalesSource | None"
) -> Files:
    """Compare one component's graphs. scales_source: None leaves the scales unchecked."""
    differences = graph_differences(reference, candidate, component)
    quantizers = GraphView(candidate, reference).quantizers()
    if quantizers and scales_source is not None:
        source, recipe = scales_source
        expected = None if recipe is None else activation_ranges(source, component, recipe)
        for node, what in scale_differences(source, component, quantizers, form, expected):
            differences.append(Difference(component, node, what))
    return Files(
        layers=layer_differences(reference, candidate, component),
        differences=differences,
        faults=[f"{component}: {fault}" for fault in placement_faults(candidate, form)],
        scales=len(quantizers),
        unchecked_scales=len(quantizers) if scales_source is None else 0,
    )


ScalesSource = tuple[Source, Recipe | None]
"""A calibration of the reference's weights, and the recipe of the variant if it used that calibration."""


def form_of(variant: Variant) -> Form:
    """The form that a variant's graphs are written in."""
    return "cpu" if variant.target == "cpu" else "tensorrt"


def graph_differences(reference: ModelProto, candidate: ModelProto, component: str) -> list[Difference]:
    """Everything but weights of sites and scales in which the candidate is another graph.

    Nodes are matched by the tensor that they compute. Every node of the reference must be there, with the same
    operator, attributes and outputs. Each of its inputs, followed back through Q, DQ and casts between floats, must be
    the reference's tensor, or a constant with the reference's values. Every other node must be a Q, a DQ, or part of
    what widens a stored weight. A norm's parameter may differ by a factor that all its readers' weights undo.
    """
    return [Difference(component, node, what) for node, what in _differences(reference, candidate)]


def _differences(reference: ModelProto, candidate: ModelProto) -> Iterator[tuple[str, str]]:
    ours, theirs = GraphView(reference), GraphView(candidate, reference)
    sites = {site.node: site for site in find_sites(reference)}
    for kind, a, b in theirs.interface_differences():
        yield "graph", f"{kind} is {b} instead of {a}"
    yield from theirs.misplaced()
    smoothed = _smoothed_norms(ours, theirs, sites.values())
    for node in reference.graph.node:
        other = theirs.producers.get(node.output[0])
        if other is None:
            yield node.name, "is missing"
            continue
        site = sites.get(node.name)
        as_product = site is not None and (node.op_type, other.op_type) == ("Gemm", "MatMul")
        if (node.op_type, node.domain) != (other.op_type, other.domain) and not as_product:
            yield node.name, f"is {other.op_type} instead of {node.op_type}"
            continue
        if not as_product and ours.attributes(node) != theirs.attributes(other):
            yield node.name, "has other attributes"
        if list(node.output) != list(other.output):
            yield node.name, "has other outputs"
        if len(node.input) != len(other.input):
            yield node.name, f"has {len(other.input)} inputs instead of {len(node.input)}"
        for place, (expected, actual) in enumerate(zip(node.input, other.input, strict=False)):
            constant = ours.constant(expected)
            if constant is None:
                origin = theirs.origin(actual)
                if origin != expected:
                    yield node.name, f"reads {origin!r} instead of {expected!r} as input {place}"
            elif site is not None and expected == site.weight:
                if theirs.constant(actual) is None:
                    yield node.name, "has a weight that is computed"
            elif not (place > 0 and node.output[0] in smoothed) and not same_values(constant, theirs.constant(actual)):
                yield node.name, f"has another constant as input {place}"


def same_values(expected: Array, actual: Array | None) -> bool:
    """Whether a constant is the reference's, up to leading axes of size 1 and rounding to float16."""
    if actual is None or _core(expected.shape) != _core(actual.shape):
        return False
    if expected.dtype == np.float32 and actual.dtype == np.float16:
        expected = expected.astype(np.float16)
    if expected.dtype != actual.dtype:
        return False
    nan = expected.dtype.kind == "f"
    return bool(np.array_equal(expected.ravel(), actual.ravel(), equal_nan=nan))


def _core(shape: Sequence[int]) -> tuple[int, ...]:
    leading = next((i for i, size in enumerate(shape) if size != 1), len(shape))
    return tuple(shape[leading:])


def _smoothed_norms(ours: GraphView, theirs: GraphView, sites: Iterable[Site]) -> dict[str, Float]:
    """Norms whose parameters all differ by one factor per channel: tensor -> reference over candidate [K].

    Only where every reader is a product whose weights are compared together with the norm (`layer_differences`).
    """
    by_tensor: dict[str, list[Site]] = {}
    for site in sites:
        by_tensor.setdefault(site.reads, []).append(site)
    factors: dict[str, Float] = {}
    for tensor, readers in by_tensor.items():
        norm, other = ours.producers.get(tensor), theirs.producers.get(tensor)
        if norm is None or other is None or norm.op_type not in NORMS or len(norm.input) != len(other.input):
            continue
        if any(site.op != "MatMul" for site in readers) or len(ours.readers.get(tensor, [])) != len(readers):
            continue
        parameters = [
            (ours.constant(a), theirs.constant(b)) for a, b in zip(norm.input[1:], other.input[1:], strict=True)
        ]
        if any(a is None or b is None or a.shape != b.shape for a, b in parameters):
            continue
        values = [
            (a.astype(np.float64), b.astype(np.float64)) for a, b in parameters if a is not None and b is not None
        ]
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = values[0][0] / values[0][1]
        if np.isfinite(factor).all() and all(np.allclose(a, b * factor, rtol=_SMOOTHED) for a, b in values):
            factors[tensor] = factor
    return factors


def layer_differences(reference: ModelProto, candidate: ModelProto, component: str) -> list[StaticLayer]:
    """Every site's weights, output channel by output channel. A missing layer, or one with NaN, has -inf."""
    ours, theirs = GraphView(reference), GraphView(candidate, reference)
    sites = find_sites(reference)
    factors = _smoothed_norms(ours, theirs, sites)
    nodes = {node.name: node for node in reference.graph.node}
    layers: list[StaticLayer] = []
    for site in sites:
        node = theirs.producers.get(nodes[site.node].output[0])
        place = 0 if site.op == "Gather" else 1
        stored = None if node is None or len(node.input) <= place else theirs.constant(node.input[place])
        expected = ours.constant(site.weight)
        if stored is None or expected is None or node is None:
            layers.append(StaticLayer(component, site.node, -np.inf, 0))
            continue
        stored, expected = stored.astype(np.float64), expected.astype(np.float64)
        if site.op == "Gemm" and node.op_type == "MatMul" and attribute(nodes[site.node], "transB", 0):
            stored = stored.T
        if site.reads in factors and stored.ndim == 2:
            # Smoothing moves a factor from the norm's parameters into the matrix; their product stays.
            stored = stored / factors[site.reads][:, None]
        layers.append(_worst_channel(component, site, expected, stored))
    return layers


def _worst_channel(component: str, site: Site, expected: Float, stored: Float) -> StaticLayer:
    if expected.shape != stored.shape or not np.isfinite(stored).all():
        return StaticLayer(component, site.node, -np.inf, 0)
    axes = tuple(a for a in range(expected.ndim) if a != site.axis)
    signal, noise = (expected**2).sum(axis=axes), ((expected - stored) ** 2).sum(axis=axes)
    noise = np.where(np.maximum(signal, noise) < _NEGLIGIBLE * signal.max(), 0.0, noise)
    levels = [snr_db(float(s), float(n)) for s, n in zip(signal, noise, strict=True)]
    channel = int(np.argmin(levels))
    return StaticLayer(component, site.node, levels[channel], channel)


def find_scales_source(candidate: Bundle, variant: Variant, reference: Bundle) -> ScalesSource | None:
    """Find what the scales should come from, in the reference first; None where there is no calibration."""
    for bundle in (reference, candidate):
        try:
            source = Source.of(reference, calibrated_by=bundle)
        except CalibrationError:
            continue
        path = f"{RECIPES}/{variant.name}.yaml"
        recipe = Recipe.read(candidate.path(path)) if path in candidate.manifest.files else None
        used = recipe is not None and recipe.calibration == source.calibration_sha256
        if used and recipe is not None and recipe.source != source.variant.name:
            source = Source.of(reference, recipe.source, calibrated_by=bundle)
        return source, recipe if used else None
    return None
