"""Sites: the operators with weights that quantization may touch, and the tensors that they read."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from wanedge_runtimes.runtime import Array

# Smaller weights save nothing, and biases and norms are no sites anyway.
SMALLEST = 1024  # elements

FIXED_TRANSFORM = ".basis"  # DFT matrices: they carry the signal's whole dynamic range, so 8 bits are never enough


@dataclass(frozen=True)
class Site:
    """One weighted operator.

    node, op: its name and operator. reads: the activation tensor. weight: the initializer. axis: the weight's
    output-channel axis. inner: the weight's axis that meets the activation's channels. size: elements.
    grouped: a depthwise or grouped convolution. bias: an input of the operator itself.
    """

    node: str
    op: str
    reads: str
    weight: str
    axis: int
    inner: int
    size: int
    grouped: bool = False
    bias: bool = False

    @property
    def fixed(self) -> bool:
        return self.weight.endswith(FIXED_TRANSFORM)


def find_sites(model: ModelProto) -> list[Site]:
    """Every site of a graph, in the graph's order."""
    shapes = {i.name: tuple(i.dims) for i in model.graph.initializer}
    return [site for node in model.graph.node for site in _site(node, shapes)]


def _site(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> Iterator[Site]:
    if len(node.input) < 2:
        return
    table = node.op_type == "Gather"
    weight, reads = (node.input[0], node.input[1]) if table else (node.input[1], node.input[0])
    shape = shapes.get(weight)
    if shape is None or reads in shapes or int(np.prod(shape)) < SMALLEST:
        return
    group = attribute(node, "group", 1)
    axes = {
        "MatMul": (1, 0),
        "Gemm": (0, 1) if attribute(node, "transB", 0) else (1, 0),
        "Conv": (0, 1),
        "ConvTranspose": (1, 0),
        "Gather": (0, 1),
    }.get(node.op_type)
    plain = len(shape) == 2 or node.op_type in ("Conv", "ConvTranspose")
    scaled = node.op_type == "Gemm" and (attribute(node, "transA", 0) or _factor(node) != (1.0, 1.0))
    if axes is None or not plain or scaled:
        return
    yield Site(node.name, node.op_type, reads, weight, *axes, int(np.prod(shape)), group > 1, bool(node.input[2:]))


def attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((a.i for a in node.attribute if a.name == name), default)


def weights(model: ModelProto) -> dict[str, Array]:
    """Every initializer by name."""
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


def _factor(node: NodeProto) -> tuple[float, float]:
    factors = {a.name: a.f for a in node.attribute}
    return factors.get("alpha", 1.0), factors.get("beta", 1.0)
