"""Check that a written graph is what its spec says, in operators that every runtime of its profile has."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TypeProto

from wanedge_export.component import ExportError
from wanedge_runtimes.spec import Dim, DType, GraphSpec

Expected = Mapping[str, tuple[DType, tuple[Dim, ...]]]


def check_graph(path: Path, spec: GraphSpec) -> None:
    """Raise an ExportError that names the component, the tensor or operator, and what to change."""
    model = onnx.load(path, load_external_data=False)
    _check_operators(model, spec)
    pasts: Expected = {s.past: (s.dtype, s.shape) for s in spec.states}
    presents: Expected = {s.present: (s.dtype, s.shape) for s in spec.states}
    _check_side("input", model.graph.input, {t.name: (t.dtype, t.shape) for t in spec.inputs} | dict(pasts), spec)
    _check_side("output", model.graph.output, {t.name: (t.dtype, t.shape) for t in spec.outputs} | dict(presents), spec)
    _check_consumed(model.graph, spec)
    if spec.profile == "portable":
        _check_in_place(model.graph, spec)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"{spec.component}: the ONNX checker refuses the graph: {error}",
            hint="rewrite the operation that it names; if forward() uses torch.onnx.ops.symbolic, check its arguments",
        ) from error


def _check_operators(model: ModelProto, spec: GraphSpec) -> None:
    """Allow only operators of the ONNX standard at the spec's opset; for the decomposed profile that is opset <= 20."""
    if model.functions:
        raise ExportError(
            f"{spec.component}: the graph defines the functions {[f.name for f in model.functions]}",
            hint="write forward() in operators that ONNX has, so that nothing is left to a function",
        )
    for node in _nodes(model.graph):
        where = f"{spec.component}: node '{node.name}' is {node.domain or 'ai.onnx'}::{node.op_type}"
        if node.domain not in ("", "ai.onnx"):
            raise ExportError(f"{where}, a custom operator", hint="express it in standard ONNX operators")
        if not onnx.defs.has(node.op_type, spec.opset):
            raise ExportError(
                f"{where}, which opset {spec.opset} ({spec.profile} profile) does not have",
                hint="give the operation a decomposed face, as wanedge_export/operators.py does",
            )
    opsets = {o.domain or "ai.onnx": o.version for o in model.opset_import}
    if opsets != {"ai.onnx": spec.opset}:
        raise ExportError(
            f"{spec.component}: the graph imports {opsets}, asked for was opset {spec.opset}",
            hint="choose an opset that torch can write: 18 to 24",
        )


def _check_side(kind: str, values: list[onnx.ValueInfoProto], expected: Expected, spec: GraphSpec) -> None:
    actual = {v.name: v.type for v in values}
    if list(actual) != list(expected):
        raise ExportError(
            f"{spec.component}: the graph's {kind}s are {list(actual)}, the spec's {list(expected)}",
            hint=f"return each {kind} as a tensor of its own, in the spec's order",
        )
    for name, (dtype, shape) in expected.items():
        if (_element(actual[name]), _shape(actual[name])) != (_onnx_type(dtype), shape):
            raise ExportError(
                f"{spec.component}: {kind} '{name}' has shape {list(_shape(actual[name]))} in the graph, "
                f"the spec says {dtype} {list(shape)}",
                hint="make spec() and forward() agree",
            )


def _check_consumed(graph: GraphProto, spec: GraphSpec) -> None:
    """An input that nothing reads was folded away by tracing, or should not be in the spec."""
    read = {name for node in _nodes(graph) if node.op_type != "Identity" for name in node.input}
    # A pure delay computes nothing: its input becomes a state, and its state an output.
    unchanged = {(s.past, s.present) for s in spec.states}
    outputs = {value.name for value in graph.output}
    read |= {
        node.input[0]
        for node in graph.node
        if node.op_type == "Identity" and node.output[0] in outputs and (node.input[0], node.output[0]) not in unchanged
    }
    for value in graph.input:
        if value.name not in read:
            raise ExportError(
                f"{spec.component}: input '{value.name}' is used by no node",
                hint="take it out of spec(), or let forward() compute with the tensor instead of a Python value of it",
            )


def _check_in_place(graph: GraphProto, spec: GraphSpec) -> None:
    """past -> TensorScatter -> present, nothing between and no other reader of the past.

    TensorRT takes a cache only as a network's input and output, and any other reader of the past would see it half
    overwritten.
    """
    for state in spec.states:
        if state.update != "in_place":
            continue
        readers = [node for node in _nodes(graph) if state.past in node.input]
        direct = [
            n
            for n in readers
            if n.op_type == "TensorScatter" and n.input[0] == state.past and n.output[0] == state.present
        ]
        if len(readers) != 1 or len(direct) != 1:
            raise ExportError(
                f"{spec.component}: state '{state.name}' is in place, but '{state.past}' goes to "
                f"{[n.op_type for n in readers]} instead of straight through one TensorScatter to '{state.present}'",
                hint="write it with operators.cache_write, read only its result, keep it in one dtype; "
                'or set update="swap"',
            )


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of If, Loop and Scan bodies included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(body)


def _element(value: TypeProto) -> int:
    return int(value.tensor_type.elem_type)


def _shape(value: TypeProto) -> tuple[Dim, ...]:
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in value.tensor_type.shape.dim)


def _onnx_type(dtype: DType) -> int:
    return int(onnx.TensorProto.DataType.Value({"float32": "FLOAT"}.get(dtype, dtype.upper())))
