"""Rules about operators, types and opsets that a target's parser does not take."""

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from wanedge_export.lint.graph import STANDARD, Graph, argument, attribute
from wanedge_export.lint.rule import MEASURED, TENSORRT, Hit, Rule
from wanedge_runtimes.targets import Library, Target, release

# First TensorRT whose parser takes the operator [vendor's release notes].
FIRST_TENSORRT = {
    "Attention": "10.14",
    "TensorScatter": "10.15",
    "RotaryEmbedding": "10.15",
    "RMSNormalization": "10.15",
}
# The highest opset of the decomposed profile, which TensorRT before 10.15 gets.
OLD_OPSET = 20

# Standard operators that no graph of ONNX's conformance tests could be built with: the parser does not list them, or
# lists them and misses the plugin.
REFUSED = frozenset(
    {
        *("AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"),
        *("CausalConvWithState", "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "CumProd", "DFT"),
        *("DeformConv", "Det", "ImageDecoder", "LinearAttention", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix"),
        *("Multinomial", "NegativeLogLikelihoodLoss", "NonMaxSuppression", "NonZero", "Optional"),
        *("OptionalGetElement", "OptionalHasElement", "RegexFullMatch", "RoiAlign", "SequenceAt", "SequenceConstruct"),
        *("SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap"),
        *("SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU"),
        *("TfIdfVectorizer", "Unique"),
    }
)
# Element types that the parser cannot convert. float64 and uint8 are taken, if not by every operator.
_REFUSED_TYPES = frozenset(
    {
        *(TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128),
        *(TensorProto.INT16, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
        *(TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ, TensorProto.FLOAT8E4M3FNUZ),
        *(TensorProto.UINT4, TensorProto.UINT2, TensorProto.INT2),
    }
)
MAX_TOP_K = 3840
_COORDINATES = ("align_corners", "tf_half_pixel_for_nn", "pytorch_half_pixel", "half_pixel", "asymmetric")
_POOLS = ("MaxPool", "AveragePool", "LpPool")
# Operators of which only the first output is built.
_ONE_OUTPUT = ("LayerNormalization", "MaxPool")

_DYNAMIC = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv")
_DECOMPOSE = "export the decomposed profile: wanedge export PRESET --profile decomposed"


def _missing(graph: Graph, _target: Target, library: Library) -> Iterator[Hit]:
    for node in graph.of_type(*FIRST_TENSORRT):
        first = FIRST_TENSORRT[node.op_type]
        if release(library.version) < release(first):
            yield Hit(node, f"{library} has no {node.op_type}", lifted=f"{library.name} {first}")


def _opset(graph: Graph, _target: Target, library: Library) -> Iterator[Hit]:
    if graph.opset > OLD_OPSET:
        yield Hit(None, f"{library} parses opset {OLD_OPSET} at most, the graph is opset {graph.opset}")


def _custom(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.nodes:
        if node.domain not in STANDARD:
            yield Hit(node, f"{node.domain}::{node.op_type} is no standard operator")


def _dynamic(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type(*_DYNAMIC):
        yield Hit(node, f"{node.op_type} is refused")


def _refused(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type(*REFUSED):
        yield Hit(node, f"{node.op_type} is refused")


def _types(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    reported: set[int] = set()
    for node, tensor in graph.tensors():
        dtype = graph.dtype(tensor)
        quantized = node.op_type in ("QuantizeLinear", "DequantizeLinear")  # their types have a rule of their own
        if dtype in _REFUSED_TYPES and dtype not in reported and not quantized:
            reported.add(dtype)
            yield Hit(node, f"{tensor!r} is {TensorProto.DataType.Name(dtype).lower()}, which is refused")


def _sequences(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node, tensor in graph.tensors():
        if graph.is_container(tensor):
            yield Hit(node, f"{tensor!r} is a sequence or an optional, which is refused")
            return


def _resize(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("Resize"):
        if attribute(node, "antialias"):
            yield Hit(node, "Resize with antialias is refused")
        elif (policy := attribute(node, "keep_aspect_ratio_policy") or "stretch") != "stretch":
            yield Hit(node, f"Resize with keep_aspect_ratio_policy {policy!r} is refused")
        elif (mode := attribute(node, "coordinate_transformation_mode") or "half_pixel") not in _COORDINATES:
            yield Hit(node, f"Resize with coordinate_transformation_mode {mode!r} is refused")


def _top_k(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("TopK"):
        name = argument(node, 1)
        count = graph.constant(name) if name is not None else attribute(node, "k")
        if count is not None and (largest := int(max(np.asarray(count).reshape(-1)))) > MAX_TOP_K:
            yield Hit(node, f"the {largest} largest are refused, {MAX_TOP_K} is the most")


def _pool_dilations(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type(*_POOLS):
        if any(step != 1 for step in attribute(node, "dilations") or ()):
            yield Hit(node, f"{node.op_type} with dilations is refused")


def _further_outputs(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type(*_ONE_OUTPUT):
        if sum(bool(name) for name in node.output) > 1:
            yield Hit(node, f"only the first output of {node.op_type} is built")


def _reduction(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("ScatterND", "ScatterElements"):
        if (reduction := attribute(node, "reduction") or "none") != "none":
            yield Hit(node, f"{node.op_type} with reduction {reduction!r} is refused")


RULES = (
    Rule(
        "operator-version",
        "error",
        {"tensorrt": "10.15"},
        _DECOMPOSE,
        "https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes.html",
        _missing,
    ),
    Rule(
        "opset",
        "error",
        {"tensorrt": "10.15"},
        _DECOMPOSE,
        "https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes.html",
        _opset,
    ),
    Rule(
        "custom-operator",
        "error",
        TENSORRT,
        "write it in standard operators; of ONNX Runtime's tools, quantize only chosen operators and fuse nothing",
        MEASURED,
        _custom,
    ),
    Rule(
        "dynamic-quantization",
        "error",
        TENSORRT,
        "quantize with QuantizeLinear and DequantizeLinear around chosen operators: wanedge quantize",
        MEASURED,
        _dynamic,
    ),
    Rule(
        "operator-refused",
        "error",
        {"tensorrt-rtx": None},
        "write it in other operators, or leave it out of the graph and compute it on the host",
        MEASURED,
        _refused,
    ),
    Rule(
        "type-refused",
        "error",
        {"tensorrt-rtx": None},
        "keep tensors in float16, bfloat16, float32, int32, int64, int8, uint8 or bool",
        MEASURED,
        _types,
    ),
    Rule(
        "sequence",
        "error",
        {"tensorrt-rtx": None},
        "pass tensors of fixed number and shape in place of a sequence",
        MEASURED,
        _sequences,
    ),
    Rule(
        "resize",
        "error",
        {"tensorrt-rtx": None},
        "use half_pixel, asymmetric or align_corners without antialias, and the policy stretch",
        MEASURED,
        _resize,
    ),
    Rule("top-k", "error", {"tensorrt-rtx": None}, "take fewer, or sort on the host", MEASURED, _top_k),
    Rule("pool-dilation", "error", {"tensorrt-rtx": None}, "pool without dilations", MEASURED, _pool_dilations),
    Rule(
        "further-output",
        "error",
        {"tensorrt-rtx": None},
        "compute the other outputs by operators of their own",
        MEASURED,
        _further_outputs,
    ),
    Rule(
        "scatter-reduction",
        "error",
        {"tensorrt-rtx": None},
        "gather, add and scatter without a reduction",
        MEASURED,
        _reduction,
    ),
)
