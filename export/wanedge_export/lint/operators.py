"""Rules about which operators and opsets a target's parser knows."""

from collections.abc import Iterator

from wanedge_export.lint.graph import STANDARD, Graph
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
)
