"""A float32 graph in float16, with float32 kept where range or resolution demands it.

Inputs and outputs stay float32, so that whoever calls the graph need not care; weights, caches and tails are float16.
What stays float32:

- Sin, Cos, Exp, Log and their like, with everything that leads up to them without a product: the angle of a flow time
  reaches 3,141, where float16 counts in steps of 2.
- the fixed transforms between samples and spectra, which the caller names by module;
- nodes whose measured values come near the end of float16's range (`wide`, see ranges.py).
"""

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

from wanedge_runtimes.spec import GraphSpec

# Functions that turn a small relative error of a large argument into a large one of the result.
_SENSITIVE = frozenset({"Sin", "Cos", "Exp", "Log", "Pow", "Reciprocal"})
# What stands between an argument and its origin without computing a product or a norm.
_PASSING = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Neg", "Min", "Max", "Clip", "Where", "Cast"),
        *("Slice", "Split", "Concat", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Identity"),
    }
)
# Inputs that the standard fixes to float32: Resize's scales (and its region of interest).
_ALWAYS_FLOAT = {("Resize", 1), ("Resize", 2)}


def half_spec(spec: GraphSpec) -> GraphSpec:
    """`spec` with its float32 states in float16."""
    states = tuple(s.model_copy(update={"dtype": "float16"}) if s.dtype == "float32" else s for s in spec.states)
    return spec.model_copy(update={"states": states})


def to_half(model: ir.Model, spec: GraphSpec, modules: Collection[str] = (), wide: Collection[str] = ()) -> list[str]:
    """Convert `model` in place; `spec` is the graph's float32 spec. Returns the names of the nodes kept in float32.

    modules: names of modules whose nodes stay float32. wide: names of tensors that float16 cannot hold.
    """
    graph = model.graph
    kept = {id(node) for node in _kept(graph, modules, set(wide))}
    states = {s.past for s in spec.states if s.dtype == "float32"}
    presents = {s.present for s in spec.states if s.dtype == "float32"}
    for value in graph.inputs:
        if value.name in states:
            value.dtype = ir.DataType.FLOAT16
    caster = _Caster(graph)
    for node in list(graph):
        _convert(node, caster, half=id(node) not in kept)
    for index, value in enumerate(graph.outputs):
        wanted = ir.DataType.FLOAT16 if value.name in presents else ir.DataType.FLOAT
        if value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16) and value.dtype != wanted:
            graph.outputs[index] = _cast_output(graph, value, wanted)
    for name in [n for n, v in graph.initializers.items() if not v.uses()]:
        del graph.initializers[name]
    return [str(node.name) for node in graph if id(node) in kept]


def _kept(graph: ir.Graph, modules: Collection[str], wide: set[str]) -> Iterator[ir.Node]:
    seen: set[int] = set()

    def upstream(node: ir.Node) -> Iterator[ir.Node]:
        waiting = [node]
        while waiting:
            current = waiting.pop()
            if id(current) in seen:
                continue
            seen.add(id(current))
            yield current
            made = [value.producer() for value in current.inputs if value is not None]
            waiting += [m for m in made if m is not None and m.op_type in _PASSING]

    for node in graph:
        module = str(node.name).rpartition("/")[0]
        touched = {v.name for v in (*node.inputs, *node.outputs) if v is not None}
        if node.op_type in _SENSITIVE or touched & wide:
            yield from upstream(node)
        elif any(module == name or module.startswith(f"{name}.") for name in modules) and id(node) not in seen:
            seen.add(id(node))
            yield node


def _convert(node: ir.Node, caster: "_Caster", half: bool) -> None:
    wanted = ir.DataType.FLOAT16 if half else ir.DataType.FLOAT
    for index, value in enumerate(node.inputs):
        if value is None or value.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            continue
        fixed = (node.op_type, index) in _ALWAYS_FLOAT
        replacement = caster.as_type(value, ir.DataType.FLOAT if fixed else wanted)
        if replacement is not value:
            node.replace_input_with(index, replacement)
    if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT.value:
        node.attributes["to"] = ir.AttrInt64("to", wanted.value)
    if node.op_type in ("Constant", "ConstantOfShape") and "value" in node.attributes and half:
        tensor = node.attributes["value"].as_tensor()
        if tensor.dtype == ir.DataType.FLOAT:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(_rounded(tensor.numpy())))
    for output in node.outputs:
        if output.dtype == ir.DataType.FLOAT:
            output.dtype = wanted


def _rounded(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    """Nearest float16; what is beyond its range becomes its largest, as a mask's minus infinity should."""
    limit = float(np.finfo(np.float16).max)
    return np.clip(values, -limit, limit).astype(np.float16)


class _Caster:
    """One Cast per tensor and type, and for weights one copy in place of a Cast."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[tuple[int, ir.DataType], ir.Value] = {}

    def as_type(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if value.dtype == dtype:
            return value
        key = (id(value), dtype)
        if key not in self._made:
            constant = value.name in self._graph.initializers
            self._made[key] = self._weight(value) if constant else self._cast(value, dtype)
        return self._made[key]

    def _weight(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None
        name = f"{value.name}.half"
        tensor = ir.tensor(_rounded(value.const_value.numpy()), name=name)
        made = ir.Value(
            name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(ir.DataType.FLOAT16), const_value=tensor
        )
        self._graph.initializers[name] = made
        return made

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        suffix = "half" if dtype == ir.DataType.FLOAT16 else "float"
        cast = ir.node("Cast", [value], {"to": dtype.value}, name=f"{value.name}.{suffix}/Cast")
        made = cast.outputs[0]
        made.name, made.shape = f"{value.name}.{suffix}", value.shape
        made.type = ir.TensorType(dtype)
        # Behind its source rather than before its first reader, which may stand behind another one.
        source = value.producer()
        if source is None:
            self._graph.insert_before(self._graph[0], cast)
        else:
            self._graph.insert_after(source, cast)
        return made


def _cast_output(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """The graph's output keeps its name; what was computed gets another."""
    name, producer = str(value.name), value.producer()
    assert producer is not None
    value.name = f"{name}.{'half' if value.dtype == ir.DataType.FLOAT16 else 'float'}"
    cast = ir.node("Cast", [value], {"to": dtype.value}, name=f"{name}/Cast")
    made = cast.outputs[0]
    made.name, made.shape, made.type = name, value.shape, ir.TensorType(dtype)
    graph.append(cast)
    return made
