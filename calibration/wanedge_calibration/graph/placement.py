"""Check that Q and DQ stand where a runtime can use them. Every graph that we write passes it."""

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from wanedge_calibration.graph.sites import attribute, weights
from wanedge_calibration.recipe import Form
from wanedge_runtimes.runtime import Array

_WEIGHTED = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1}  # operator -> its weight's input
_TYPES = {"tensorrt": {TensorProto.INT8, TensorProto.FLOAT8E4M3FN}, "cpu": {TensorProto.UINT8}}


def placement_faults(model: ModelProto, form: Form) -> list[str]:
    """Return the faults, one sentence each; empty when there is none.

    tensorrt (NVIDIA's explicit quantization): zero-points are 0; activations have one scale, weights one per output
    channel; each Q is followed by its DQ with the same scale; a DQ feeds a weighted operator and nothing else; both
    of its inputs are quantized or none; caches and their TensorScatter and Attention stay float. cpu: the same with
    unsigned types, whose zero-points may be anything.
    """
    return list(_Checker(model, form).faults())


class _Checker:
    def __init__(self, model: ModelProto, form: Form) -> None:
        self.form, self.nodes = form, list(model.graph.node)
        self.values = weights(model)
        self.types = {i.name: i.data_type for i in model.graph.initializer}
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {o.name for o in model.graph.output}

    def faults(self) -> Iterator[str]:
        for node in self.nodes:
            if node.op_type == "QuantizeLinear":
                yield from self._quantize(node)
            elif node.op_type == "DequantizeLinear":
                yield from self._dequantize(node)
            elif node.op_type in _WEIGHTED:
                yield from self._weighted(node)

    def _quantize(self, node: NodeProto) -> Iterator[str]:
        yield from self._numbers(node)
        followers = self.readers.get(node.output[0], [])
        if len(followers) != 1 or followers[0].op_type != "DequantizeLinear":
            yield f"{node.name}: Q is followed by {[f.op_type for f in followers]} instead of one DQ"
        elif list(followers[0].input[1:]) != list(node.input[1:]):
            yield f"{node.name}: Q and its DQ have different scales or zero-points"
        if node.output[0] in self.outputs:
            yield f"{node.name}: a quantized tensor is an output of the graph"

    def _dequantize(self, node: NodeProto) -> Iterator[str]:
        yield from self._numbers(node)
        for reader in self.readers.get(node.output[0], []):
            if reader.op_type not in _WEIGHTED:
                yield f"{node.name}: DQ feeds {reader.op_type} {reader.name!r}, which runs in float"
        if node.output[0] in self.outputs:
            yield f"{node.name}: a DQ is the graph's output"

    def _numbers(self, node: NodeProto) -> Iterator[str]:
        scale, zero = self.values.get(node.input[1]), self.values.get(node.input[2]) if len(node.input) > 2 else None
        if scale is None or zero is None:
            yield f"{node.name}: scale or zero-point is not a constant"
            return
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            yield f"{node.name}: a scale is not a positive number"
        if self.types[node.input[2]] not in _TYPES[self.form]:
            yield f"{node.name}: type {TensorProto.DataType.Name(self.types[node.input[2]])} in the {self.form} form"
        if self.form == "tensorrt" and np.any(zero.astype(np.float32)):
            yield f"{node.name}: a zero-point is not 0"
        stored = self.values.get(node.input[0])
        if stored is None:
            if scale.ndim:
                yield f"{node.name}: an activation has a scale per channel"
        else:
            yield from self._weight_scale(node, stored, scale)

    def _weight_scale(self, node: NodeProto, stored: Array, scale: Array) -> Iterator[str]:
        axis = attribute(node, "axis", 1)
        if scale.shape != (stored.shape[axis],):
            yield f"{node.name}: scales {scale.shape} for a weight {stored.shape} along axis {axis}"
        for reader in self.readers.get(node.output[0], []):
            transposed = reader.op_type == "Gemm" and attribute(reader, "transB", 0)
            expected = 0 if reader.op_type == "Conv" or transposed else 1
            if axis != expected:
                yield f"{node.name}: the weight of {reader.name!r} has scales along axis {axis}, not {expected}"

    def _weighted(self, node: NodeProto) -> Iterator[str]:
        quantized = [self._is_dequantized(name) for name in node.input[:2]]
        if any(quantized) and not all(quantized):
            yield f"{node.name}: only {'the activation' if quantized[0] else 'the weight'} is quantized"

    def _is_dequantized(self, name: str) -> bool:
        maker = self.makers.get(name)
        return maker is not None and maker.op_type == "DequantizeLinear"
