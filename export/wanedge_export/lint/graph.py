"""An ONNX graph for rules: nodes with names, and each tensor's producer, readers, type and constant value."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from wanedge_runtimes.errors import GraphError

STANDARD = ("", "ai.onnx")


class Graph:
    """Read only. folder: where external weights lie; None when everything is inside."""

    def __init__(self, model: ModelProto, folder: Path | None = None) -> None:
        try:
            inferred = onnx.shape_inference.infer_shapes(model)
        except onnx.shape_inference.InferenceError:  # a damaged or foreign node; the rules read what is declared
            inferred = model
        graph = inferred.graph
        self.opset = max((o.version for o in model.opset_import if o.domain in STANDARD), default=0)
        self.nodes = list(_nodes(graph))
        self.inputs = {value.name: value for value in graph.input}
        self.outputs = {value.name for value in graph.output}
        self._folder = folder
        self._constants: dict[str, TensorProto] = {t.name: t for t in graph.initializer}
        self._values: dict[str, ValueInfoProto] = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
        self._producer: dict[str, NodeProto] = {}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            self._producer.update(dict.fromkeys(filter(None, node.output), node))
            for name in dict.fromkeys(filter(None, node.input)):
                self._readers.setdefault(name, []).append(node)
            if node.op_type == "Constant" and (value := attribute(node, "value")) is not None:
                self._constants[node.output[0]] = value

    @classmethod
    def load(cls, path: Path) -> "Graph":
        """Load a file. Raises GraphError when it is no ONNX graph."""
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf's and onnx's errors share no base below Exception
            raise GraphError(f"{path} is not an ONNX graph: {error}", hint="wanedge verify BUNDLE") from error
        return cls(model, path.parent)

    def of_type(self, *op_types: str) -> Iterator[NodeProto]:
        """Yield the nodes of these standard operators, in the graph's order."""
        return (node for node in self.nodes if node.op_type in op_types and node.domain in STANDARD)

    def producer(self, tensor: str) -> NodeProto | None:
        return self._producer.get(tensor)

    def readers(self, tensor: str) -> list[NodeProto]:
        return self._readers.get(tensor, [])

    def is_constant(self, tensor: str) -> bool:
        return tensor in self._constants

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """The value of a constant tensor; None for a computed tensor or an input."""
        constant = self._constants.get(tensor)
        if constant is None:
            return None
        return np.asarray(numpy_helper.to_array(constant, str(self._folder or "")))

    def dtype(self, tensor: str) -> int:
        """TensorProto.DataType; UNDEFINED (0) where shape inference does not know."""
        if tensor in self._constants:
            return self._constants[tensor].data_type
        value = self._values.get(tensor)
        return value.type.tensor_type.elem_type if value is not None else TensorProto.UNDEFINED

    def is_container(self, tensor: str) -> bool:
        """Return True for a sequence, a map or an optional."""
        value = self._values.get(tensor)
        kind = value.type.WhichOneof("value") if value is not None else None
        return kind not in (None, "tensor_type")

    def shape(self, tensor: str) -> tuple[int | str, ...] | None:
        """Sizes, names of dynamic axes, "" for an unknown size; None where shape inference does not know the rank."""
        if tensor in self._constants:
            return tuple(self._constants[tensor].dims)
        value = self._values.get(tensor)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in value.type.tensor_type.shape.dim)

    def rank(self, tensor: str) -> int | None:
        """Number of axes; None where shape inference does not know it."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def tensors(self) -> Iterator[tuple[NodeProto, str]]:
        """Every tensor once, with the first node that has to do with it."""
        seen: set[str] = set()
        for node in self.nodes:
            for name in (*node.input, *node.output):
                if name and name not in seen:
                    seen.add(name)
                    yield node, name


def attribute(node: NodeProto, name: str) -> Any:
    """An attribute's value; None when the node does not have it. Text comes as str."""
    for candidate in node.attribute:
        if candidate.name == name:
            value = onnx.helper.get_attribute_value(candidate)
            return value.decode() if candidate.type == AttributeProto.STRING else value
    return None


def argument(node: NodeProto, index: int) -> str | None:
    """The name of an input by its place; None when it is left out."""
    return (node.input[index] or None) if index < len(node.input) else None


def label(node: NodeProto) -> str:
    """Return a node's name, or its operator and first output."""
    return node.name or f"{node.op_type} -> {next(iter(node.output), '')}"


def _nodes(graph: onnx.GraphProto) -> Iterator[NodeProto]:
    """Every node, those of If, Loop and Scan bodies included."""
    for node in graph.node:
        yield node
        for held in node.attribute:
            for body in (*([held.g] if held.HasField("g") else []), *held.graphs):
                yield from _nodes(body)
