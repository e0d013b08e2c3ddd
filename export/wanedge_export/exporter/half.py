"""Convert a float32 graph to float16, except where range or resolution needs float32.

Inputs and outputs stay float32, so that callers need no conversion; weights, caches and tails are float16.
These nodes stay float32:

- Sin, Cos, Exp, Log and similar functions, with all nodes in front of them up to a product: the angle of a flow time
  reaches 3,141, where float16 has steps of 2.
- the fixed transforms between samples and spectra, whose modules the caller names;
- nodes whose measured values come near the end of float16's range (`wide`, see `wide_tensors`).
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from wanedge_export.component import Component
from wanedge_export.exporter.reference import Dims, roll_out
from wanedge_runtimes.ort.session import LOG_FATAL_ONLY, import_onnxruntime
from wanedge_runtimes.spec import GraphSpec

# Functions that turn a small relative error of a large argument into a large error of the result.
_SENSITIVE = frozenset({"Sin", "Cos", "Exp", "Log", "Pow", "Reciprocal"})
# Operators between an argument and its origin that compute neither a product nor a norm.
_PASSING = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Neg", "Min", "Max", "Clip", "Where", "Cast"),
        *("Slice", "Split", "Concat", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Identity"),
    }
)
# Inputs that the standard fixes to float32: Resize's scales (and its region of interest).
_ALWAYS_FLOAT = {("Resize", 1), ("Resize", 2)}


def half_spec(spec: GraphSpec) -> GraphSpec:
    """Return `spec` with its float32 states in float16."""
    states = tuple(s.model_copy(update={"dtype": "float16"}) if s.dtype == "float32" else s for s in spec.states)
    return spec.model_copy(update={"states": states})


def to_half(model: ir.Model, spec: GraphSpec, modules: Collection[str] = (), wide: Collection[str] = ()) -> list[str]:
    """Convert `model` in place; `spec` is the graph's float32 spec. Returns the names of the nodes kept in float32.

    modules: names of modules whose nodes stay float32. wide: names of tensors that float16 cannot hold.
    """
    graph = model.graph
    float32 = {id(node) for node in _float32_nodes(graph, modules, set(wide))}
    states = {s.past for s in spec.states if s.dtype == "float32"}
    presents = {s.present for s in spec.states if s.dtype == "float32"}
    for value in graph.inputs:
        if value.name in states:
            value.dtype = ir.DataType.FLOAT16
    caster = _Caster(graph)
    for node in list(graph):
        _convert(node, caster, half=id(node) not in float32)
    for index, value in enumerate(graph.outputs):
        dtype = ir.DataType.FLOAT16 if value.name in presents else ir.DataType.FLOAT
        if value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16) and value.dtype != dtype:
            graph.outputs[index] = _cast_output(graph, value, dtype)
    for name in [n for n, v in graph.initializers.items() if not v.uses()]:
        del graph.initializers[name]
    return [str(node.name) for node in graph if id(node) in float32]


def _float32_nodes(graph: ir.Graph, modules: Collection[str], wide: set[str]) -> Iterator[ir.Node]:
    seen: set[int] = set()

    def upstream(node: ir.Node) -> Iterator[ir.Node]:
        waiting = [node]
        while waiting:
            current = waiting.pop()
            if id(current) in seen:
                continue
            seen.add(id(current))
            yield current
            producers = [value.producer() for value in current.inputs if value is not None]
            waiting += [p for p in producers if p is not None and p.op_type in _PASSING]

    for node in graph:
        module = str(node.name).rpartition("/")[0]
        touched = {v.name for v in (*node.inputs, *node.outputs) if v is not None}
        if node.op_type in _SENSITIVE or touched & wide:
            yield from upstream(node)
        elif any(module == name or module.startswith(f"{name}.") for name in modules) and id(node) not in seen:
            seen.add(id(node))
            yield node


def _convert(node: ir.Node, caster: "_Caster", half: bool) -> None:
    dtype = ir.DataType.FLOAT16 if half else ir.DataType.FLOAT
    for index, value in enumerate(node.inputs):
        if value is None or value.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            continue
        fixed = (node.op_type, index) in _ALWAYS_FLOAT
        replacement = caster.as_type(value, ir.DataType.FLOAT if fixed else dtype)
        if replacement is not value:
            node.replace_input_with(index, replacement)
    if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT.value:
        node.attributes["to"] = ir.AttrInt64("to", dtype.value)
    if node.op_type in ("Constant", "ConstantOfShape") and "value" in node.attributes and half:
        tensor = node.attributes["value"].as_tensor()
        if tensor.dtype == ir.DataType.FLOAT:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(_rounded(tensor.numpy())))
    for output in node.outputs:
        if output.dtype == ir.DataType.FLOAT:
            output.dtype = dtype


def _rounded(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    """Round to float16; values beyond its range become its largest, as a mask's minus infinity should."""
    limit = float(np.finfo(np.float16).max)
    return np.clip(values, -limit, limit).astype(np.float16)


class _Caster:
    """Insert one Cast per tensor and type, and for weights one converted copy in place of a Cast."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._casts: dict[tuple[int, ir.DataType], ir.Value] = {}

    def as_type(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if value.dtype == dtype:
            return value
        key = (id(value), dtype)
        if key not in self._casts:
            constant = value.name in self._graph.initializers
            self._casts[key] = self._weight(value) if constant else self._cast(value, dtype)
        return self._casts[key]

    def _weight(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None
        name = f"{value.name}.half"
        tensor = ir.tensor(_rounded(value.const_value.numpy()), name=name)
        copy = ir.Value(
            name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(ir.DataType.FLOAT16), const_value=tensor
        )
        self._graph.initializers[name] = copy
        return copy

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        suffix = "half" if dtype == ir.DataType.FLOAT16 else "float"
        cast = ir.node("Cast", [value], {"to": dtype.value}, name=f"{value.name}.{suffix}/Cast")
        result = cast.outputs[0]
        result.name, result.shape = f"{value.name}.{suffix}", value.shape
        result.type = ir.TensorType(dtype)
        # Behind its source and not in front of its first reader, because an earlier reader may follow.
        source = value.producer()
        if source is None:
            self._graph.insert_before(self._graph[0], cast)
        else:
            self._graph.insert_after(source, cast)
        return result


def _cast_output(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Return a cast output under the graph's name; the computed tensor gets a new name."""
    name, producer = str(value.name), value.producer()
    assert producer is not None
    value.name = f"{name}.{'half' if value.dtype == ir.DataType.FLOAT16 else 'float'}"
    cast = ir.node("Cast", [value], {"to": dtype.value}, name=f"{name}/Cast")
    output = cast.outputs[0]
    output.name, output.shape, output.type = name, value.shape, ir.TensorType(dtype)
    graph.append(cast)
    return output


# A quarter of float16's largest number: real media may be several times louder than the measured inputs.
LIMIT = float(np.finfo(np.float16).max) / 4
STEPS = 4


def wide_tensors(component: Component, model: ir.Model, spec: GraphSpec, dims: Sequence[Dims]) -> dict[str, float]:
    """Return the float32 tensors whose largest magnitude exceeds LIMIT, with that magnitude.

    Runs the graph on the component's sample inputs and states; not finite counts as infinite.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = LOG_FATAL_ONLY
    session = ort.InferenceSession(_with_all_outputs(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    largest: dict[str, float] = {}
    state = component.init_state()
    for step in roll_out(component, dims, STEPS):
        feeds = {name: tensor.numpy() for name, tensor in step.inputs.items()}
        feeds |= {s.past: state[s.name].numpy() for s in spec.states}
        state = step.state
        for name, values in zip(names, session.run(names, feeds), strict=True):
            if values.dtype == np.float32 and values.size:
                top = float(np.abs(values).max())
                largest[name] = max(largest.get(name, 0.0), top if np.isfinite(top) else float("inf"))
    return {name: top for name, top in largest.items() if top > LIMIT}


def _with_all_outputs(model: ir.Model) -> bytes:
    proto = ir.to_proto(model)
    known = {output.name for output in proto.graph.output}
    for value in proto.graph.value_info:
        if value.name not in known and value.type.tensor_type.elem_type == ir.DataType.FLOAT.value:
            proto.graph.output.append(value)
    content: bytes = proto.SerializeToString()
    return content
