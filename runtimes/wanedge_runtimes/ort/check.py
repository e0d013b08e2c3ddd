"""Does a graph file keep its GraphSpec? Pure comparison of names, element types and shapes."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from wanedge_runtimes.dtypes import ort_type
from wanedge_runtimes.errors import GraphError
from wanedge_runtimes.spec import Dim, DType, GraphSpec

Expected = Mapping[str, tuple[DType, tuple[Dim, ...]]]


class NodeArg(Protocol):
    """An input or output as ONNX Runtime reports it; an axis is a size, a name, or None when unknown."""

    name: str
    type: str
    shape: Sequence[int | str | None]


def check_graph(graph: Path, spec: GraphSpec, inputs: Iterable[NodeArg], outputs: Iterable[NodeArg]) -> None:
    """Raises GraphError that names the tensor and both sides.

    Inputs must agree axis by axis, dynamic axes by name. An output axis whose size ONNX Runtime could not infer
    is accepted: the bound buffer's shape checks it at the first run.
    """
    expected_inputs: Expected = {
        **{t.name: (t.dtype, t.shape) for t in spec.inputs},
        **{s.past: (s.dtype, s.shape) for s in spec.states},
    }
    expected_outputs: Expected = {
        **{t.name: (t.dtype, t.shape) for t in spec.outputs},
        **{s.present: (s.dtype, s.shape) for s in spec.states},
    }
    _check_side(graph, f"{spec.component}: input", expected_inputs, inputs, inferred=False)
    _check_side(graph, f"{spec.component}: output", expected_outputs, outputs, inferred=True)


def _check_side(graph: Path, where: str, expected: Expected, found: Iterable[NodeArg], inferred: bool) -> None:
    in_graph = {arg.name: arg for arg in found}
    for name in sorted(expected.keys() ^ in_graph.keys()):
        has, lacks = ("the spec", graph) if name in expected else (graph, "the spec")
        raise GraphError(f"{where} {name!r} is in {has} but not in {lacks}", hint=_HINT)
    for name, (dtype, shape) in expected.items():
        arg = in_graph[name]
        if ort_type(dtype) != arg.type or not _same_shape(shape, arg.shape, inferred):
            raise GraphError(
                f"{where} {name!r} is {ort_type(dtype)} {_text(shape)} in the spec "
                f"but {arg.type} {_text(arg.shape)} in {graph}",
                hint=_HINT,
            )


def _same_shape(spec: Sequence[Dim], graph: Sequence[int | str | None], inferred: bool) -> bool:
    return len(spec) == len(graph) and all(
        a == b or (inferred and not isinstance(b, int)) for a, b in zip(spec, graph, strict=True)
    )


def _text(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


_HINT = "graph and spec come from one export: take both from the same one, or export again with wanedge export"
