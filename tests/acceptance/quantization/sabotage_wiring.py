"""More ways to break a quantized graph: what operators read, masks, positions, state, rare values and branches.

The faults are those of exporters, graph optimizers and engine builders; none was chosen by what a check can see.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from wanedge_calibration.graph.editing import value_types
from wanedge_runtimes.runtime import Array

Random = np.random.Generator
Change = Callable[[ModelProto, Random], str | None]

_WEIGHTED = ("MatMul", "Gemm", "Conv", "ConvTranspose")
_TAG = "changed"


def _scaled_input(factor: float) -> Change:
    """A factor in front of a weighted operator, where a fused scale was applied twice or not at all."""

    def change(model: ModelProto, random: Random) -> str | None:
        node = _pick(model, random, _WEIGHTED)
        if node is None:
            return None
        factor_name = _constant(model, "factor", np.array(factor, _dtype(model, node.input[0])))
        return _insert(model, node, 0, "Mul", lambda read: [read, factor_name])

    return change


def _wrong_range(factor: float) -> Change:
    """The scale of a Q and of its DQ alike, as a calibration on other data or a wrong unit gives it."""

    def change(model: ModelProto, random: Random) -> str | None:
        node = _pick(model, random, ("QuantizeLinear",))
        if node is None:
            return None
        scale = next(i for i in model.graph.initializer if i.name == node.input[1])
        values = numpy_helper.to_array(scale)
        scale.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), scale.name))
        return f"{node.name} x {factor}"

    return change


def _late_input(model: ModelProto, random: Random) -> str | None:
    """A convolution hears its input one step late: a wrong padding side."""
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    types = value_types(model)
    convs = [n for n in convs if n.input[0] in types and len(types[n.input[0]][1]) >= 3]
    if not convs:
        return None
    node = convs[random.integers(len(convs))]
    read = node.input[0]
    parts = {
        "first": ("Slice", [read, *_ints(model, [0], [1], [-1])]),
        "rest": ("Slice", [read, *_ints(model, [0], [-1], [-1])]),
    }
    place = list(model.graph.node).index(node)
    names = []
    for number, (suffix, (op, inputs)) in enumerate(parts.items()):
        names.append(f"{_TAG}.{suffix}")
        model.graph.node.insert(place + number, helper.make_node(op, inputs, [names[-1]], name=f"{_TAG}/{suffix}"))
    model.graph.node.insert(
        place + 2, helper.make_node("Concat", names, [f"{_TAG}.late"], name=f"{_TAG}/late", axis=-1)
    )
    node.input[0] = f"{_TAG}.late"
    return str(node.name)


def _through_integers(model: ModelProto, random: Random) -> str | None:
    """A Cast to integers and back in front of an operator: an optimizer that takes a type for another."""
    node = _pick(model, random, _WEIGHTED)
    if node is None:
        return None
    to = TensorProto.FLOAT16 if _dtype(model, node.input[0]) == np.float16 else TensorProto.FLOAT
    place, read = list(model.graph.node).index(node), node.input[0]
    model.graph.node.insert(place, helper.make_node("Cast", [f"{_TAG}.i"], [f"{_TAG}.f"], name=f"{_TAG}/back", to=to))
    model.graph.node.insert(
        place, helper.make_node("Cast", [read], [f"{_TAG}.i"], name=f"{_TAG}/integer", to=TensorProto.INT32)
    )
    node.input[0] = f"{_TAG}.f"
    return str(node.name)


def _neighbour(model: ModelProto, random: Random) -> str | None:
    """An operator reads another tensor of the same type and shape: a wrong edge after a fusion."""
    types, makers = value_types(model), {o: i for i, n in enumerate(model.graph.node) for o in n.output}
    pairs = []
    for index, node in enumerate(model.graph.node):
        if node.op_type in (*_WEIGHTED, "Add", "Attention") and node.input[0] in types:
            for name, kind in types.items():
                earlier = makers.get(name, -1) < index
                if name != node.input[0] and kind == types[node.input[0]] and name in makers and earlier:
                    pairs.append((node, name))
    if not pairs:
        return None
    node, other = pairs[random.integers(len(pairs))]
    what = f"{node.name} reads {other} instead of {node.input[0]}"
    node.input[0] = other
    return what


def _mask_ignored(model: ModelProto, random: Random) -> str | None:
    node = _pick(model, random, ("Attention",))
    if node is None or len(node.input) < 4:
        return None
    node.input[3] = ""
    return str(node.name)


def _mask_shifted(model: ModelProto, random: Random) -> str | None:
    """Every slot is seen as its neighbour: the mask of the unit before."""
    node = _pick(model, random, ("Attention",))
    if node is None or len(node.input) < 4:
        return None
    read, place = node.input[3], list(model.graph.node).index(node)
    parts = {
        f"{_TAG}.last": _ints(model, [-1], [2**31 - 1], [-1]),
        f"{_TAG}.rest": _ints(model, [0], [-1], [-1]),
    }
    for number, (output, limits) in enumerate(parts.items()):
        made = helper.make_node("Slice", [read, *limits], [output], name=f"{output}/Slice")
        model.graph.node.insert(place + number, made)
    joined = helper.make_node("Concat", list(parts), [f"{_TAG}.mask"], name=f"{_TAG}/mask", axis=-1)
    model.graph.node.insert(place + 2, joined)
    node.input[3] = f"{_TAG}.mask"
    return str(node.name)


def _wrong_rotation(model: ModelProto, random: Random) -> str | None:
    """Positions run backwards in one layer: the sign of the sine."""
    node = _pick(model, random, ("RotaryEmbedding",))
    return None if node is None else _insert(model, node, 2, "Neg", lambda read: [read])


def _positions_drift(model: ModelProto, random: Random) -> str | None:
    """Cosines in half the precision of float16, as a table that was stored too small."""
    node = _pick(model, random, ("RotaryEmbedding",))
    if node is None:
        return None
    # Adding and subtracting a large number rounds to its step: 3 * 2^6 leaves 1/128 in float16, 2^17 in float32.
    dtype = _dtype(model, node.input[1])
    big = _constant(model, "big", np.array(3 * 2.0**6 if dtype == np.float16 else 3 * 2.0**15, dtype))
    place, read = list(model.graph.node).index(node), node.input[1]
    model.graph.node.insert(place, helper.make_node("Sub", [f"{_TAG}.up", big], [f"{_TAG}.cos"], name=f"{_TAG}/Sub"))
    model.graph.node.insert(place, helper.make_node("Add", [read, big], [f"{_TAG}.up"], name=f"{_TAG}/Add"))
    node.input[1] = f"{_TAG}.cos"
    return str(node.name)


def _state_kept(model: ModelProto, random: Random) -> str | None:
    """A convolution's tail is not updated."""
    pairs = _tails(model)
    if not pairs:
        return None
    past, present = pairs[random.integers(len(pairs))]
    _rename_output(model, present, f"{_TAG}.unused")
    model.graph.node.append(helper.make_node("Identity", [past], [present], name=f"{_TAG}/Identity"))
    return present


def _state_rounded(model: ModelProto, random: Random) -> str | None:
    """A tail is stored with less precision than it has."""
    pairs = _tails(model)
    if not pairs:
        return None
    _, present = pairs[random.integers(len(pairs))]
    to = TensorProto.FLOAT16 if _dtype(model, present) == np.float16 else TensorProto.FLOAT
    low = TensorProto.FLOAT8E4M3FN if to == TensorProto.FLOAT16 else TensorProto.FLOAT16
    _rename_output(model, present, f"{_TAG}.exact")
    for op_input, output, kind in ((f"{_TAG}.exact", f"{_TAG}.low", low), (f"{_TAG}.low", present, to)):
        model.graph.node.append(helper.make_node("Cast", [op_input], [output], name=f"{output}/Cast", to=kind))
    return present


def _extra_slot(model: ModelProto, random: Random) -> str | None:
    """A cache update touches a slot that is not its own: the last one is halved."""
    node = _pick(model, random, ("TensorScatter",))
    if node is None:
        return None
    types = value_types(model)
    if node.output[0] not in types:
        return None
    capacity = types[node.output[0]][1][2]
    if not isinstance(capacity, int):
        return None
    mask = np.ones((1, 1, capacity, 1), _dtype(model, node.output[0]))
    mask[0, 0, -1] = 0.5
    output = str(node.output[0])
    node.output[0] = f"{_TAG}.cache"
    place = list(model.graph.node).index(node)
    factor = _constant(model, "slots", mask)
    model.graph.node.insert(place + 1, helper.make_node("Mul", [f"{_TAG}.cache", factor], [output], name=f"{_TAG}/Mul"))
    return output


def _rare_clip(model: ModelProto, random: Random) -> str | None:
    """Large values are cut off at four times the usual size: they are rare.

    Behind a DQ that cannot give more than that, the same graph comes out, so there is nothing to find.
    """
    constants = {i.name: i for i in model.graph.initializer}
    makers = {o: n for n in model.graph.node for o in n.output}

    def largest(tensor: str) -> float:
        maker = makers.get(tensor)
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[1] not in constants:
            return float("inf")
        scale, zero = (numpy_helper.to_array(constants[name]) for name in maker.input[1:3])
        if zero.dtype.kind not in "iu":
            return float("inf")
        limits = np.iinfo(zero.dtype)
        return max(float(np.abs(scale * (float(end) - zero)).max()) for end in (limits.min, limits.max))

    nodes = [n for n in model.graph.node if n.op_type in _WEIGHTED and n.input[0] not in constants]
    nodes = [n for n in nodes if largest(n.input[0]) > 4.0]
    if not nodes:
        return None
    node = nodes[random.integers(len(nodes))]
    dtype = _dtype(model, node.input[0])
    low, high = (_constant(model, f"limit{i}", np.array(v, dtype)) for i, v in enumerate((-4.0, 4.0)))
    return _insert(model, node, 0, "Clip", lambda read: [read, low, high])


def _quiet_is_silence(model: ModelProto, random: Random) -> str | None:
    """A branch on data: an input whose largest value is under a threshold counts as nothing."""
    node = _pick(model, random, _WEIGHTED)
    if node is None:
        return None
    dtype, read, place = _dtype(model, node.input[0]), node.input[0], list(model.graph.node).index(node)
    to = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    level = _constant(model, "level", np.array(0.5, dtype))
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Abs", [read], "abs", {}),
        ("ReduceMax", [f"{_TAG}.abs"], "peak", {"keepdims": 0}),
        ("Greater", [f"{_TAG}.peak", level], "loud", {}),
        ("Cast", [f"{_TAG}.loud"], "gate", {"to": to}),
        ("Mul", [read, f"{_TAG}.gate"], "gated", {}),
    ]
    for number, (op, inputs, output, attributes) in enumerate(steps):
        made = helper.make_node(op, inputs, [f"{_TAG}.{output}"], name=f"{_TAG}/{output}", **attributes)
        model.graph.node.insert(place + number, made)
    node.input[0] = f"{_TAG}.gated"
    return str(node.name)


def _nan_inside(model: ModelProto, random: Random) -> str | None:
    """NaN in front of a Q, where quantization turns it into a number."""
    node = _pick(model, random, ("QuantizeLinear",))
    if node is None:
        return None
    nan = _constant(model, "nan", np.array(np.nan, _dtype(model, node.input[0])))
    return _insert(model, node, 0, "Add", lambda read: [read, nan])


def _tensor_negated(model: ModelProto, random: Random) -> str | None:
    """A sign lost in front of an Add: a fusion of Sub and Add."""
    node = _pick(model, random, ("Add",))
    return None if node is None else _insert(model, node, 0, "Neg", lambda read: [read])


WIRING: dict[str, Change] = {
    "input x0.97": _scaled_input(0.97),
    "range x0.5": _wrong_range(0.5),
    "range x4": _wrong_range(4.0),
    "input one step late": _late_input,
    "input through integers": _through_integers,
    "neighbour's tensor": _neighbour,
    "mask ignored": _mask_ignored,
    "mask shifted": _mask_shifted,
    "positions backwards": _wrong_rotation,
    "positions rounded": _positions_drift,
    "state not updated": _state_kept,
    "state rounded": _state_rounded,
    "extra slot written": _extra_slot,
    "rare values clipped": _rare_clip,
    "quiet taken for silence": _quiet_is_silence,
    "NaN before a Q": _nan_inside,
    "sign lost": _tensor_negated,
}


def _pick(model: ModelProto, random: Random, ops: tuple[str, ...]) -> NodeProto | None:
    constants = {i.name for i in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type in ops and n.input[0] not in constants]
    return nodes[random.integers(len(nodes))] if nodes else None


def _insert(model: ModelProto, node: NodeProto, place: int, op: str, inputs: Callable[[str], list[str]]) -> str:
    """Put `op` between input `place` of a node and what it read."""
    output = f"{_TAG}.{op.lower()}"
    made = helper.make_node(op, inputs(node.input[place]), [output], name=f"{_TAG}/{op}")
    model.graph.node.insert(list(model.graph.node).index(node), made)
    node.input[place] = output
    return str(node.name)


def _constant(model: ModelProto, name: str, values: Array) -> str:
    model.graph.initializer.append(numpy_helper.from_array(values, f"{_TAG}.{name}"))
    return f"{_TAG}.{name}"


def _ints(model: ModelProto, starts: list[int], ends: list[int], axes: list[int]) -> list[str]:
    count = len(model.graph.initializer)
    return [
        _constant(model, f"{name}.{count}", np.array(values, np.int64))
        for name, values in (("starts", starts), ("ends", ends), ("axes", axes))
    ]


def _dtype(model: ModelProto, tensor: str) -> np.dtype[np.generic]:
    """float16 where the tensor is known to be; everything else here is float32."""
    known = value_types(model).get(tensor)
    return np.dtype(np.float16 if known is not None and known[0] == "float16" else np.float32)


def _tails(model: ModelProto) -> list[tuple[str, str]]:
    """(past, present) of states that are no caches."""
    inputs, outputs = {v.name for v in model.graph.input}, [v.name for v in model.graph.output]
    pairs = [(o.replace("present_states", "past_states"), o) for o in outputs if o.startswith("present_states")]
    return [(past, present) for past, present in pairs if past in inputs]


def _rename_output(model: ModelProto, name: str, other: str) -> None:
    for node in model.graph.node:
        for tensors in (node.input, node.output):
            for place, tensor in enumerate(tensors):
                if tensor == name:
                    tensors[place] = other
