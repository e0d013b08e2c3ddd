"""Convert a float32 graph to float16, except where range or resolution needs float32.

Inputs and outputs stay float32, so that callers need no conversion; weights, caches and tails are float16.
These nodes stay float32:

- Sin, Cos, Exp, Log and similar functions, with all nodes in front of them up to a product: the angle of a flow time
  reaches 3,141, where float16 has steps of 2.
- the fixed transforms between samples and spectra, whose modules the caller names;
- squares, their mean, its root and the division by it, in hand-written norms: squares of 256 end float16's range;
- If, Loop and Scan with their bodies, and GRU and LSTM, whose recurrence feeds rounding errors back;
- nodes whose measured values come near the end of float16's range (`wide`, see `wide_tensors`).
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from wanedge_export.component import Component, Tensors
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
# How hand-written norms add squares up, and what stands behind: up to the first Mul or Div that is no root's.
_MEANS = frozenset({"ReduceMean", "ReduceSum"})
_ROOTS = frozenset({"Add", "Max", "Clip", "Sqrt", "Reciprocal", "Pow"})
_NORM = frozenset({*_ROOTS, "Mul", "Div"})
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_BODIES = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})
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
        touched = {v.name for v in (*node.inputs, *node.outputs) if v is not None}
        if node.op_type in _SENSITIVE or touched & wide:
            yield from upstream(node)
        elif node.op_type in _MEANS and (square := _square(node)) is not None:
            for part in (square, *_norm_behind(node)):
                if id(part) not in seen:
                    seen.add(id(part))
                    yield part
        elif id(node) not in seen and (
            node.op_type in _RECURRENT or _has_body(node) or _is_inside(str(node.name), modules)
        ):
            seen.add(id(node))
            yield node


def _has_body(node: ir.Node) -> bool:
    """Return whether the node holds graphs of its own, as If, Loop and Scan do."""
    return any(attribute.type in _BODIES for attribute in node.attributes.values())


def _is_inside(node: str, modules: Collection[str]) -> bool:
    module = node.rpartition("/")[0]
    return any(module == name or module.startswith(f"{name}.") for name in modules)


def _square(node: ir.Node) -> ir.Node | None:
    """The node that squares what a mean or a sum adds up."""
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if source is None:
        return None
    if source.op_type == "Mul" and source.inputs[0] is source.inputs[1]:
        return source
    if source.op_type == "Pow" and source.inputs[1] is not None:
        exponent = source.inputs[1].const_value
        return source if exponent is not None and float(exponent.numpy().reshape(-1)[0]) == 2 else None
    return None


def _norm_behind(mean: ir.Node) -> Iterator[ir.Node]:
    """The mean and what makes a norm of it: an epsilon, a root, and the division or product with its reciprocal."""
    waiting = [mean]
    while waiting:
        node = waiting.pop()
        yield node
        if node is mean or node.op_type in _ROOTS:
            waiting += [use.node for output in node.outputs for use in output.uses() if use.node.op_type in _NORM]


def _convert(node: ir.Node, caster: "_Caster", half: bool) -> None:
    dtype = ir.DataType.FLOAT16 if half else ir.DataType.FLOAT
    if _has_body(node):
        _keep_bodies(node, caster)
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


def _keep_bodies(node: ir.Node, caster: "_Caster") -> None:
    """Let the bodies of an If, Loop or Scan read in float32 what they take from outside."""
    bodies = [
        body
        for attribute in node.attributes.values()
        if attribute.type in _BODIES
        for body in ([attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs())
    ]
    for body in bodies:
        own = {id(value) for value in (*body.inputs, *body.initializers.values())}
        inner = list(ir.traversal.RecursiveGraphIterator(body))
        own |= {id(value) for each in inner for value in each.outputs}
        for each in inner:
            for index, value in enumerate(each.inputs):
                if value is None or id(value) in own or value.dtype != ir.DataType.FLOAT16:
                    continue
                each.replace_input_with(index, caster.as_type(value, ir.DataType.FLOAT))


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


def wide_tensors(
    component: Component,
    model: ir.Model,
    spec: GraphSpec,
    dims: Sequence[Dims],
    calibration: Sequence[Tensors] = (),
) -> dict[str, float]:
    """Return the float32 tensors whose largest magnitude exceeds LIMIT, with that magnitude.

    Runs the graph on the component's sample inputs, and then on `calibration`, real inputs of consecutive steps; not
    finite counts as infinite.
    """
    largest: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        session = _session(model, Path(folder))
        names = [output.name for output in session.get_outputs()]
        for inputs, state in _runs(component, dims, calibration):
            feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
            feeds |= {s.past: state[s.name].numpy() for s in spec.states}
            for name, values in zip(names, session.run(names, feeds), strict=True):
                if values.dtype == np.float32 and values.size:
                    top = float(np.abs(values).max())
                    largest[name] = max(largest.get(name, 0.0), top if np.isfinite(top) else float("inf"))
    return {name: top for name, top in largest.items() if top > LIMIT}


def _runs(
    component: Component, dims: Sequence[Dims], calibration: Sequence[Tensors]
) -> Iterator[tuple[Tensors, Tensors]]:
    """Inputs and state of every step: a roll-out on sample inputs, then one on real inputs."""
    state = component.init_state()
    for step in roll_out(component, dims, STEPS):
        yield step.inputs, state
        state = step.state
    state = component.init_state()
    for inputs in calibration:
        yield inputs, {name: tensor.clone() for name, tensor in state.items()}
        with torch.inference_mode():
            _, state = component({name: tensor.clone() for name, tensor in inputs.items()}, state)


def _session(model: ir.Model, folder: Path) -> Any:
    """A session of ONNX Runtime with every float tensor as an output. The weights go through a file: they may be
    larger than the 2 GB that a serialized graph holds.
    """
    path = folder / "graph.onnx"
    ir.save(ir.serde.deserialize_model(_with_all_outputs(model)), path, external_data="graph.weights")
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = LOG_FATAL_ONLY
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _with_all_outputs(model: ir.Model) -> onnx.ModelProto:
    proto = ir.to_proto(model)
    known = {output.name for output in proto.graph.output}
    for value in proto.graph.value_info:
        if value.name not in known and value.type.tensor_type.elem_type == ir.DataType.FLOAT.value:
            proto.graph.output.append(value)
    return proto
