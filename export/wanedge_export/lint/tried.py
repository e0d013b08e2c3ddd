"""Which kinds of nodes were ever built: a node of any other kind is "not tried", and never clean.

`tried.json` holds the kinds of nodes of all graphs that TensorRT-RTX built in `python -m tests.acceptance.lint`: ONNX's
own conformance tests, the traps of this project and the graphs of its models.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

import onnx
from onnx import NodeProto, TensorProto

from wanedge_export.lint.graph import STANDARD, Graph
from wanedge_runtimes.targets import Library, same_release

TABLE = "tried.json"

# Operators whose int64 inputs are data and neither a shape, an axis nor a number of elements.
_INDEXED = frozenset(
    {"TensorScatter", "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Attention"}
)


def untried(graph: Graph, library: Library) -> tuple[str, ...]:
    """Return the kinds of nodes in `graph` that this release of the library was never seen to build, each once.

    For ONNX Runtime, which implements the whole standard, there are none.
    """
    if library.name == "onnxruntime":
        return ()
    known = _table().get(str(library.name), {})
    kinds = known.get("kinds", ()) if same_release(library.version, known.get("version", "")) else ()
    return tuple(sorted(kinds_of(graph) - set(kinds)))


def kinds_of(graph: Graph) -> set[str]:
    """Return the kinds of all nodes. Constants are none: they build wherever their readers do."""
    return {kind_of(graph, node) for node in graph.nodes if node.op_type != "Constant"}


def kind_of(graph: Graph, node: NodeProto) -> str:
    """Return what distinguishes nodes for a parser, e.g. "Clip(float16 4, float16 0 const) -> float16 [min=x]".

    Types and ranks of inputs and outputs, which inputs are constant, and attributes; sizes are left out.
    """
    inputs = ", ".join(_argument(graph, node, index) for index in range(len(node.input)))
    outputs = ", ".join(_type(graph, name) for name in node.output if name)
    exact = node.op_type == "Attention"  # its kernels depend on the numbers of heads
    attributes = ", ".join(
        sorted(f"{each.name}={_value(onnx.helper.get_attribute_value(each), exact)}" for each in node.attribute)
    )
    operator = node.op_type if node.domain in STANDARD else f"{node.domain}::{node.op_type}"
    return f"{operator}({inputs}) -> {outputs}" + (f" [{attributes}]" if attributes else "")


def _argument(graph: Graph, node: NodeProto, index: int) -> str:
    name = node.input[index]
    if not name:
        return "-"
    rank, dtype = graph.rank(name), graph.dtype(name)
    numbers = dtype == TensorProto.INT64 and rank in (0, 1) and node.op_type not in _INDEXED
    given = bool(index) and name in graph.inputs and numbers
    origin = " const" if graph.is_constant(name) else " given" if given else ""
    return f"{_type(graph, name)} {'?' if rank is None else rank}{origin}"


def _type(graph: Graph, name: str) -> str:
    return str(TensorProto.DataType.Name(graph.dtype(name))).lower()


def _value(value: Any, exact: bool) -> str:
    """Small numbers and texts as they are; of lists only whether they are all 0 or all 1."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, int):
        return str(value) if exact or value in (-1, 0, 1) else "n"
    if isinstance(value, float):
        return "0" if value == 0 else "x"
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return "zeros" if not any(value) else "ones" if all(item == 1 for item in value) else "sizes"
    return "value"


@cache
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = json.loads((resources.files(__package__) / TABLE).read_text("utf-8"))
    return table
