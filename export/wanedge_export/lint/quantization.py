"""Rules about QuantizeLinear and DequantizeLinear: which types, and where they belong.

The placement rules are the vendor's [explicit quantization]; a test compares them with TensorRT-RTX.
"""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from wanedge_export.lint.graph import Graph, argument, attribute
from wanedge_export.lint.rule import MEASURED, TENSORRT, Hit, Rule
from wanedge_runtimes.targets import Library, Precision, Target

_EXPLICIT = (
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html"
)
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
# Operators that move or reshape values without computing: Q/DQ may stand on either side.
_MOVES = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Slice", "Concat", "Split", "Identity", "Gather")

_SYMMETRIC_TYPES = (TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.FLOAT4E2M1)
_NEEDS: dict[int, tuple[Precision, str]] = {
    TensorProto.FLOAT8E4M3FN: ("fp8", "SM 8.9"),
    TensorProto.FLOAT8E5M2: ("fp8", "SM 8.9"),
    TensorProto.FLOAT4E2M1: ("nvfp4", "SM 10.0"),
    TensorProto.BFLOAT16: ("bf16", "SM 8.0"),
}


def _zero_point(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type(_Q, _DQ):
        name = argument(node, 2)
        value = graph.constant(name) if name is not None else None
        if value is not None and np.any(value.astype(np.float32) != 0):
            yield Hit(node, "a zero-point other than 0 is refused")


def _type(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type(_Q, _DQ):
        quantized = node.output[0] if node.op_type == _Q else node.input[0]
        dtype = graph.dtype(quantized)
        # The bias of a quantized product may be int32 behind a DequantizeLinear; TensorRT folds it.
        bias = node.op_type == _DQ and dtype == TensorProto.INT32 and graph.is_constant(quantized)
        # uint8 builds with zero-point 0; another zero-point has a rule of its own.
        allowed = (*_SYMMETRIC_TYPES, TensorProto.UINT8, TensorProto.UNDEFINED)
        if dtype not in allowed and not bias:
            yield Hit(node, f"{TensorProto.DataType.Name(dtype).lower()} is refused as a quantized type")


def _hardware(graph: Graph, target: Target, _library: Library) -> Iterator[Hit]:
    reported: set[Precision] = set()
    for node, tensor in graph.tensors():
        needed = _NEEDS.get(graph.dtype(tensor))
        if needed is not None and needed[0] not in target.precisions and needed[0] not in reported:
            reported.add(needed[0])
            what = f"{tensor!r} is {needed[0]}, which SM {target.sm} ({target.device}) does not compute in"
            yield Hit(node, what, lifted=f"{needed[1]} hardware")


def _scale(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type(_Q, _DQ):
        value = graph.constant(node.input[1])
        if value is not None and not np.all(value.astype(np.float32) > 0):
            yield Hit(node, "a scale that is zero, negative or NaN is refused")


def _activation(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type(_Q):
        scale = graph.constant(node.input[1])
        if scale is not None and scale.size > 1 and not graph.is_constant(node.input[0]):
            yield Hit(node, f"an activation has {scale.size} scales, one per channel, which no int8 product takes")


def _weight(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type(_DQ):
        scale, values = graph.constant(node.input[1]), node.input[0]
        if scale is None or scale.size != 1 or not graph.is_constant(values) or (graph.rank(values) or 0) < 2:
            continue
        products = [reader for reader in graph.readers(node.output[0]) if reader.op_type in _PRODUCTS]
        if any(_channels(graph, product, values) != 1 for product in products):
            yield Hit(node, "a weight has one scale for all channels, which costs accuracy")


def _output(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type(_Q):
        producer = graph.producer(node.input[0])
        if producer is None or producer.op_type not in _PRODUCTS:
            continue
        readers = list(_behind(graph, node.output[0]))
        if readers and not any(reader.op_type in (*_PRODUCTS, "Add") for reader in readers):
            yield Hit(node, f"the output of {producer.op_type} is quantized for readers that do not compute in int8")


def _residual(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("Add"):
        producers = [graph.producer(name) for name in node.input]
        products = [m for m in producers if m is not None and _is_quantized_product(graph, m)]
        others = [
            (m, name)
            for m, name in zip(producers, node.input, strict=True)
            if not graph.is_constant(name) and (m is None or m not in products)
        ]
        if products and any(m is None or m.op_type != _DQ for m, _ in others):
            yield Hit(node, "the residual beside a quantized product is not quantized, so the sum cannot be fused")


def _convtranspose3d(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("ConvTranspose"):
        source = graph.producer(node.input[0])
        int8 = source is not None and source.op_type == _DQ and graph.dtype(source.input[0]) == TensorProto.INT8
        if int8 and graph.rank(node.input[1]) == 5:
            yield Hit(node, "a three-dimensional ConvTranspose in int8 falls back to float16")


def _fp8_moves(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    fp8 = (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2)
    for node in graph.of_type("Slice", "Concat"):
        if any(graph.dtype(name) in fp8 for name in node.input if name):
            yield Hit(node, f"ONNX Runtime has no {node.op_type} of fp8")


def _s8s8(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type(_Q):
        if graph.dtype(node.output[0]) == TensorProto.INT8 and not graph.is_constant(node.input[0]):
            yield Hit(node, "symmetric int8 activations: two of ONNX Runtime's own graph passes clash when it loads")
            return


def _behind(graph: Graph, tensor: str) -> Iterator[NodeProto]:
    """The nodes that compute with a tensor, through DequantizeLinear and moves."""
    for reader in graph.readers(tensor):
        if reader.op_type in (_Q, _DQ, *_MOVES):
            for output in reader.output:
                yield from _behind(graph, output)
        else:
            yield reader


def _channels(graph: Graph, product: NodeProto, weight: str) -> int | str:
    """Output channels of a product's weight: [M, K, ...] of Conv, [K, M / group, ...] of ConvTranspose, [K, M]."""
    shape = graph.shape(weight) or ("",)
    if product.op_type == "Conv" or (product.op_type == "Gemm" and attribute(product, "transB")):
        return shape[0]
    if product.op_type == "ConvTranspose":
        size = shape[1]
        return size * int(attribute(product, "group") or 1) if isinstance(size, int) else size
    return shape[-1]


def _is_quantized_product(graph: Graph, node: NodeProto) -> bool:
    if node.op_type not in _PRODUCTS:
        return False
    source = graph.producer(node.input[0])
    return source is not None and source.op_type == _DQ


RULES = (
    Rule("zero-point", "error", TENSORRT, "quantize symmetrically: zero-point 0", MEASURED, _zero_point),
    Rule(
        "quantized-type",
        "error",
        TENSORRT,
        "quantize to int8, or to fp8 in the format E4M3 (FLOAT8E4M3FN)",
        MEASURED,
        _type,
    ),
    Rule(
        "type-hardware",
        "error",
        TENSORRT,
        "choose a precision that `wanedge targets` lists for the device",
        MEASURED,
        _hardware,
    ),
    Rule("scale", "error", TENSORRT, "calibrate again: every scale is above 0", MEASURED, _scale),
    Rule("activation-per-channel", "warning", TENSORRT, "give activations one scale each", _EXPLICIT, _activation),
    Rule("weight-per-tensor", "warning", TENSORRT, "give weights one scale per output channel", _EXPLICIT, _weight),
    Rule(
        "quantized-output",
        "warning",
        TENSORRT,
        "quantize the inputs of MatMul, Conv and ConvTranspose, not their outputs",
        _EXPLICIT,
        _output,
    ),
    Rule(
        "residual",
        "warning",
        TENSORRT,
        "quantize the residual input of the Add too",
        _EXPLICIT,
        _residual,
    ),
    Rule(
        "convtranspose3d-int8",
        "warning",
        TENSORRT,
        "leave it in float16, or write it as an upsampling and a Conv",
        _EXPLICIT,
        _convtranspose3d,
    ),
    Rule(
        "fp8-slice-concat",
        "error",
        {"onnxruntime": None},
        "dequantize before Slice and Concat, quantize behind them",
        "measured with ONNX Runtime 1.32",
        _fp8_moves,
    ),
    Rule(
        "s8s8",
        "warning",
        {"onnxruntime": None},
        'load with RuntimeOptions(disabled_optimizers=("QDQS8ToU8Transformer",)), or quantize activations to uint8',
        "measured with ONNX Runtime 1.32",
        _s8s8,
    ),
)
