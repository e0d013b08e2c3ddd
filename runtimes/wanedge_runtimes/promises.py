"""Prove what a spec promises about a graph's file: its opset, and that nothing reads a state in place half written.

Floor 1 has no onnx package, so the few fields that matter are read from the file itself [onnx.proto; protobuf's wire
format: a key is field number << 3 | type, type 0 a varint, 1 eight bytes, 2 a length and so many bytes, 5 four bytes].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wanedge_runtimes.errors import GraphError
from wanedge_runtimes.spec import GraphSpec

# Operators that may write their result over their first input: they read an element no later than they write it.
_IN_PLACE = frozenset(
    {"TensorScatter", "ScatterElements", "ScatterND", "Add", "Sub", "Mul", "Div", "Identity", "Where"}
)
_STANDARD = ("", "ai.onnx")
_HINT = 'set update="swap" in the spec, or let one TensorScatter write the state and read only what it returns'


@dataclass(frozen=True)
class _Node:
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def check_promises(graph: Path, spec: GraphSpec) -> None:
    """Raises GraphError when the file's opset is not the spec's, or a state in place would be read half written.

    A file that is no ONNX graph is left to the runtime, which says what is wrong with it.
    """
    try:
        opsets, nodes = _read(memoryview(graph.read_bytes()))
    except (OSError, IndexError, UnicodeDecodeError, ValueError):
        return
    opset = max((version for domain, version in opsets if domain in _STANDARD), default=spec.opset)
    if opset != spec.opset:
        raise GraphError(
            f"{spec.component}: {graph.name} is opset {opset}, its spec says {spec.opset}",
            hint="graph and spec come from one export: take both from the same one, or export again",
        )
    for state in spec.states:
        if state.update != "in_place":
            continue
        readers = [node for node in nodes if state.past in node.inputs]
        if [n.inputs.count(state.past) for n in readers] != [1] or not _writes(nodes, state.past, state.present):
            raise GraphError(
                f"{spec.component}: state {state.name!r} is in place, but {state.past!r} is read by "
                f"{[n.op for n in readers]} and not by one operator that only writes {state.present!r}",
                hint=_HINT,
            )


def _writes(nodes: list[_Node], past: str, present: str) -> bool:
    """Return whether operators that may write over their input, and nothing else, lead from `past` to `present`."""
    reached = {past}
    for node in nodes:  # in the order in which they run
        if node.op in _IN_PLACE and not reached.isdisjoint(node.inputs):
            reached.update(node.outputs[:1])
    return present in reached


def _read(model: memoryview) -> tuple[list[tuple[str, int]], list[_Node]]:
    """(domain, version) of every opset import, and every node, those of inner graphs included."""
    opsets: list[tuple[str, int]] = []
    nodes: list[_Node] = []
    for field, value in _fields(model):
        if field == 8 and isinstance(value, memoryview):  # ModelProto.opset_import
            entry = dict(_fields(value))
            domain, version = entry.get(1, memoryview(b"")), entry.get(2, 0)
            if isinstance(domain, memoryview) and isinstance(version, int):
                opsets.append((_text(domain), version))
        elif field == 7 and isinstance(value, memoryview):  # ModelProto.graph
            nodes += _nodes(value)
    return opsets, nodes


def _nodes(graph: memoryview) -> Iterator[_Node]:
    for field, value in _fields(graph):
        if field != 1 or not isinstance(value, memoryview):  # GraphProto.node
            continue
        inputs: list[str] = []
        outputs: list[str] = []
        op = ""
        for part, content in _fields(value):
            if not isinstance(content, memoryview):
                continue
            if part == 1:
                inputs.append(_text(content))
            elif part == 2:
                outputs.append(_text(content))
            elif part == 4:
                op = _text(content)
            elif part == 5:  # NodeProto.attribute; 6 and 11 are its graphs
                for name, inner in _fields(content):
                    if name in (6, 11) and isinstance(inner, memoryview):
                        yield from _nodes(inner)
        yield _Node(op, tuple(inputs), tuple(outputs))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + size > len(message):
            raise ValueError("the message ends early")
        if kind == 2:
            yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def _text(content: memoryview) -> str:
    return bytes(content).decode("utf-8")
