"""Follow the tensors of a quantized graph back to those of the graph that it was written from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from wanedge_calibration.eight_bits import broadcast
from wanedge_calibration.graph.sites import attribute
from wanedge_runtimes.runtime import Array

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_QDQ = ("QuantizeLinear", "DequantizeLinear")
_STORAGE = ("Cast", "Mul", "DequantizeLinear", "Constant")  # what widens a stored weight


@dataclass(frozen=True)
class Quantizer:
    """One Q of an activation. tensor: what it reads, followed back. dtype: of the quantized tensor."""

    node: str
    tensor: str
    scale: Array
    zero: Array


class GraphView:
    """A graph with its producers, readers and constants; with `original`, its nodes that were added to that graph.

    A node belongs to the original when it computes a tensor that the original computes by a node.
    """

    def __init__(self, model: ModelProto, original: ModelProto | None = None) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.original = model if original is None else original
        known = {output for node in self.original.graph.node for output in node.output}
        self.producers = {output: node for node in self.nodes for output in node.output}
        self.added = [node for node in self.nodes if not set(node.output) & known]
        self._added_outputs = {output for node in self.added for output in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self._initializers = {i.name: i for i in model.graph.initializer}
        self._constants: dict[str, Array | None] = {}

    def constant(self, name: str) -> Array | None:
        """The value of a tensor that does not depend on the inputs; None for any other. "" is an empty array."""
        if name not in self._constants:
            self._constants[name] = self._folded(name)
        return self._constants[name]

    def origin(self, name: str) -> str:
        """The tensor from which Q and DQ pairs and casts between floats that were added lead here."""
        while name in self._added_outputs:
            node = self.producers[name]
            if node.op_type == "DequantizeLinear":
                inner = self.producers.get(node.input[0])
                if inner is None or inner.op_type != "QuantizeLinear" or not self._same_numbers(inner, node):
                    return name
                name = inner.input[0]
            elif node.op_type == "Cast" and attribute(node, "to", 0) in _FLOATS:
                name = node.input[0]
            else:
                return name
        return name

    def quantizers(self) -> list[Quantizer]:
        """Every added Q, in the graph's order; one whose scale is no constant is left to `misplaced`."""
        quantizers = []
        for node in self.added:
            if node.op_type != "QuantizeLinear":
                continue
            scale = self.constant(node.input[1])
            zero = self.constant(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
            if scale is not None and zero is not None:
                quantizers.append(Quantizer(node.name, self.origin(node.input[0]), scale, zero))
        return quantizers

    def misplaced(self) -> Iterator[tuple[str, str]]:
        """Added nodes that neither store a weight nor quantize an activation: (node, what is wrong with it)."""
        for node in self.added:
            name = node.name or node.output[0]
            if node.domain not in ("", "ai.onnx"):
                yield name, f"is {node.domain}.{node.op_type}, which the reference does not have"
            elif all(self.constant(output) is not None for output in node.output):
                continue  # storage: it ends in a constant, whose values are compared where it is read
            elif node.op_type in _QDQ and (extra := self.attributes(node).keys() - {"axis"}):
                yield name, f"has the attribute {min(extra)}"
            elif node.op_type == "QuantizeLinear":
                if any(self.constant(read) is None for read in node.input[1:]):
                    yield name, "has a scale or zero-point that is computed"
            elif node.op_type == "DequantizeLinear":
                maker = self.producers.get(node.input[0])
                if maker is None or maker.op_type != "QuantizeLinear":
                    yield name, "dequantizes what no Q wrote"
                elif not self._same_numbers(maker, node):
                    yield name, f"has another scale or zero-point than {maker.name}"
            elif node.op_type != "Cast" or attribute(node, "to", 0) not in _FLOATS:
                yield name, f"is a {node.op_type} that the reference does not have"
        names = [output for node in self.nodes for output in node.output if output]
        for output in sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []:
            yield output, "is computed twice"

    def interface_differences(self) -> Iterator[tuple[str, object, object]]:
        """(what, original's, ours) for inputs, outputs, operator sets and functions that are not the original's."""
        ours, original = self.model, self.original
        constants = set(self._initializers)
        original_constants = {i.name for i in original.graph.initializer}
        pairs: tuple[tuple[str, object, object], ...] = (
            (
                "an input",
                {_value(v) for v in original.graph.input if v.name not in original_constants},
                {_value(v) for v in ours.graph.input if v.name not in constants},
            ),
            ("the outputs", [_value(v) for v in original.graph.output], [_value(v) for v in ours.graph.output]),
            ("the operator set", _opsets(original), _opsets(ours)),
            (
                "a function",
                [f.SerializeToString(deterministic=True) for f in original.functions],
                [f.SerializeToString(deterministic=True) for f in ours.functions],
            ),
        )
        for what, expected, actual in pairs:
            if expected != actual:
                yield what, expected, actual

    def attributes(self, node: NodeProto) -> dict[str, bytes]:
        """A node's attributes by name, subgraphs included."""
        return {a.name: a.SerializeToString(deterministic=True) for a in node.attribute}

    def _same_numbers(self, first: NodeProto, second: NodeProto) -> bool:
        """Return whether a Q and a DQ have the same scale and zero-point, by value."""
        for a, b in zip(first.input[1:], second.input[1:], strict=False):
            x, y = self.constant(a), self.constant(b)
            if x is None or y is None or not np.array_equal(x, y):
                return False
        return len(first.input) == len(second.input) and attribute(first, "axis", 1) == attribute(second, "axis", 1)

    def _folded(self, name: str) -> Array | None:
        if not name:
            return np.zeros(0, np.float32)  # an optional input that is left out
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        node = self.producers.get(name)
        if node is None or node.op_type not in _STORAGE or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Constant":
            return _constant_value(node)
        inputs = [self.constant(read) for read in node.input]
        values = [v for v in inputs if v is not None]
        if len(values) < len(inputs):
            return None
        if node.op_type == "Cast":
            return values[0].astype(helper.tensor_dtype_to_np_dtype(attribute(node, "to", TensorProto.FLOAT)))
        if node.op_type == "Mul":
            product: Array = values[0] * values[1]
            return product
        axis, rank = attribute(node, "axis", 1), values[0].ndim
        scale, *zero = (broadcast(v, rank, axis) if v.ndim else v for v in values[1:])
        wide = values[0].astype(np.float32)
        dequantized: Array = (wide - zero[0].astype(np.float32) if zero else wide) * scale.astype(np.float32)
        return dequantized


def _constant_value(node: NodeProto) -> Array | None:
    for a in node.attribute:
        value: Any = helper.get_attribute_value(a)
        return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
    return None


def _value(value: ValueInfoProto) -> tuple[str, int, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tuple(d.dim_value or d.dim_param for d in tensor.shape.dim)


def _opsets(model: ModelProto) -> set[tuple[str, int]]:
    return {(o.domain, o.version) for o in model.opset_import}
