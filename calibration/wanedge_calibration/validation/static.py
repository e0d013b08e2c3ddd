"""Compare two graphs as files, without running them: every layer's stored weights, dequantized.

A run averages over thousands of numbers; one zeroed channel hides in it. Here each output channel stands alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from wanedge.bundle import Bundle, Variant
from wanedge.model import STREAMING_COMPONENTS
from wanedge_calibration.eight_bits import broadcast
from wanedge_calibration.graph.editing import read_graph
from wanedge_calibration.graph.placement import placement_faults
from wanedge_calibration.graph.sites import Site, attribute, find_sites, weights
from wanedge_calibration.recipe import Form
from wanedge_calibration.statistics import Interval
from wanedge_calibration.validation.metrics import MOST_DB, snr_db
from wanedge_runtimes.runtime import Array

Float = NDArray[np.float64]

_NORMS = ("RMSNormalization", "LayerNormalization")
# A channel this much quieter than its layer's loudest carries no weight of its own; 8 bits of a constant say nothing.
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class StaticLayer:
    """worst_db: the lowest SNR of an output channel's weights; channel: which."""

    component: str
    layer: str
    worst_db: float
    channel: int


@dataclass(frozen=True)
class Constant:
    """A constant that both graphs should share and do not: a bias, a norm's weight, an attribute of an operator."""

    component: str
    node: str
    what: str


@dataclass(frozen=True)
class Files:
    """Results of comparing the files. stored: every layer, the worst first."""

    stored: list[StaticLayer]
    constants: list[Constant]
    faults: list[str]

    @property
    def measures(self) -> dict[str, Interval]:
        values = {"constants_changed": len(self.constants), "placement_faults": len(self.faults)}
        measures = {f"stored.{name}": Interval(float(value), None, None, 1) for name, value in values.items()}
        if self.stored:
            worst = max(self.stored[0].worst_db, -MOST_DB)
            measures["stored.worst_channel_db"] = Interval(worst, None, None, len(self.stored))
        return measures


def inspect_files(candidate: Bundle, variant: Variant, reference: Bundle, of: Variant) -> Files:
    """Compare the graphs of two variants as they are stored."""
    constants: list[Constant] = []
    faults: list[str] = []
    form: Form = "tensorrt" if variant.target == "tensorrt" else "cpu"
    for component in STREAMING_COMPONENTS:
        ours = read_graph(reference.graph(component, of)[0])
        theirs = read_graph(candidate.graph(component, variant)[0])
        constants += constant_differences(ours, theirs, component)
        faults += [f"{component}: {fault}" for fault in placement_faults(theirs, form)]
    return Files(static_layers(reference, of, candidate, variant), constants, faults)


def static_layers(reference: Bundle, of: Variant, candidate: Bundle, variant: Variant) -> list[StaticLayer]:
    """Every layer, the worst first. A missing layer, or one with NaN, has -inf as worst_db."""
    layers = [
        layer
        for component in of.graphs
        if component in variant.graphs
        for layer in _layers(
            component,
            read_graph(reference.graph(component, of)[0]),
            read_graph(candidate.graph(component, variant)[0]),
        )
    ]
    return sorted(layers, key=lambda layer: layer.worst_db)


def constant_differences(reference: ModelProto, candidate: ModelProto, component: str) -> list[Constant]:
    """Operators of the reference whose attributes, state wiring or float constants are not the candidate's.

    Norms whose parameter was smoothed are compared with the weights behind them (`static_layers`).
    """
    theirs = {node.name: node for node in candidate.graph.node}
    ours, others = weights(reference), weights(candidate)
    sites = {site.node for site in find_sites(reference)}
    differences: list[Constant] = []
    for node in reference.graph.node:
        other = theirs.get(node.name)
        if other is None:
            differences.append(Constant(component, node.name, "is missing"))
            continue
        if node.op_type == other.op_type and list(node.attribute) != list(other.attribute):
            differences.append(Constant(component, node.name, "has other attributes"))
        if node.name in sites:  # its weight is compared by `static_layers`, what it reads by the placement check
            if any(not _same_input(a, b, ours, others) for a, b in zip(node.input[2:], other.input[2:], strict=False)):
                differences.append(Constant(component, node.name, "has another bias"))
            continue
        if list(node.output) != list(other.output) or len(node.input) != len(other.input):
            differences.append(Constant(component, node.name, "is wired otherwise"))
        for place, (name, theirs_name) in enumerate(zip(node.input, other.input, strict=False)):
            if name in ours:
                same = theirs_name in others and _same(ours[name], others[theirs_name])
                if not same and not (node.op_type in _NORMS and "smoothed" in theirs_name):
                    differences.append(Constant(component, node.name, f"has another constant as input {place}"))
            elif name != theirs_name:
                differences.append(Constant(component, node.name, f"reads {theirs_name!r} instead of {name!r}"))
    return differences


def _same_input(name: str, theirs: str, ours: dict[str, Array], others: dict[str, Array]) -> bool:
    return name == theirs if name not in ours else theirs in others and _same(ours[name], others[theirs])


def _same(a: Array, b: Array) -> bool:
    return a.size == b.size and bool(np.array_equal(a.ravel(), b.ravel()))


def _layers(component: str, reference: ModelProto, candidate: ModelProto) -> list[StaticLayer]:
    ours, theirs = weights(reference), weights(candidate)
    makers = {output: node for node in candidate.graph.node for output in node.output}
    nodes = {node.name: node for node in candidate.graph.node}
    norms, plain_norms = _norm_weights(candidate), _norm_weights(reference)
    layers: list[StaticLayer] = []
    for site in find_sites(reference):
        node = nodes.get(site.node)
        if node is None:
            layers.append(StaticLayer(component, site.node, -np.inf, 0))
            continue
        place = 0 if site.op == "Gather" else 1
        stored = _widened(node.input[place], makers, theirs)
        if stored is None:
            layers.append(StaticLayer(component, site.node, -np.inf, 0))
            continue
        if site.op == "Gemm" and node.op_type == "MatMul" and _transposed(reference, site):
            stored = stored.T
        expected = ours[site.weight].astype(np.float64)
        if site.op == "MatMul" and site.reads in plain_norms and site.reads in norms:
            # Smoothing moves a factor from the norm's weight into the matrix; their product stays.
            expected = plain_norms[site.reads][:, None] * expected
            stored = norms[site.reads][:, None] * stored
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


def _norm_weights(model: ModelProto) -> dict[str, Float]:
    values = weights(model)
    return {
        n.output[0]: values[n.input[1]].astype(np.float64)
        for n in model.graph.node
        if n.op_type in _NORMS and n.input[1] in values
    }


def _transposed(model: ModelProto, site: Site) -> bool:
    node = next(n for n in model.graph.node if n.name == site.node)
    return bool(attribute(node, "transB", 0))


def _widened(name: str, makers: dict[str, NodeProto], values: dict[str, Array]) -> Float | None:
    """A weight as its reader sees it: through DequantizeLinear, Cast and Mul; None for anything else."""
    if name in values:
        return values[name].astype(np.float64)
    maker = makers.get(name)
    if maker is None:
        return None
    inside = [_widened(i, makers, values) for i in maker.input]
    if any(part is None for part in inside):
        return None
    parts = [part for part in inside if part is not None]
    if maker.op_type == "Cast":
        return parts[0]
    if maker.op_type == "Mul":
        product: Float = parts[0] * parts[1]
        return product
    if maker.op_type == "DequantizeLinear":
        axis, rank = attribute(maker, "axis", 1), parts[0].ndim
        scale, zero = (broadcast(p, rank, axis) if p.ndim else p for p in (parts[1], parts[2]))
        dequantized: Float = (parts[0] - zero) * scale
        return dequantized
    return None
