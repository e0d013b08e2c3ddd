"""Ways to break a quantized bundle that a hurried engineer, or a buggy tool, really finds. Each is seeded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.acceptance.quantization.sabotage_wiring import WIRING
from wanedge.bundle import Bundle, BundleWriter, Variant
from wanedge_calibration.graph.editing import read_graph, write_graph
from wanedge_runtimes.runtime import Array

Random = np.random.Generator
Change = Callable[[ModelProto, Random], str | None]
"""Changes a graph and says how; None when the graph has nothing to change that way."""

COMPONENTS = (
    "audio_encoder",
    "video_encoder",
    "text_head",
    "backbone",
    "flow_in",
    "flow_out",
    "audio_decoder",
    "video_decoder",
)


@dataclass(frozen=True)
class Sabotage:
    """Sabotage: its kind and its place."""

    kind: str
    component: str
    what: str


def sabotage(bundle: Bundle, variant: Variant, seed: int, path: Path) -> tuple[Bundle, Sabotage]:
    """A copy of the bundle at `path` with one thing wrong in `variant`. The seed decides what and where."""
    random = np.random.default_rng(seed)
    while True:
        kind = str(random.choice(list(CHANGES)))
        component = str(random.choice(COMPONENTS))
        model = read_graph(bundle.graph(component, variant)[0])
        what = CHANGES[kind](model, random)
        if what is not None:
            break
    folder = Path(variant.graphs[component].graph).parent.as_posix()
    with BundleWriter.extend(bundle, path) as writer:
        write_graph(model, writer.directory(folder), component)
        return writer.finish(bundle.manifest.contents), Sabotage(kind, component, what)


def _weight_scale(factor: float) -> Change:
    def change(model: ModelProto, random: Random) -> str | None:
        return _edit(model, random, _is_weight_scale(model), lambda values: values * np.float32(factor))

    return change


def _activation_scale(factor: float) -> Change:
    """The scale of a DQ alone, so that what comes out is larger or smaller than what went in."""

    def change(model: ModelProto, random: Random) -> str | None:
        makers = {output: node for node in model.graph.node for output in node.output}
        pairs = [
            n
            for n in model.graph.node
            if n.op_type == "DequantizeLinear"
            and n.input[0] in makers
            and makers[n.input[0]].op_type == "QuantizeLinear"
        ]
        if not pairs:
            return None
        node = pairs[random.integers(len(pairs))]
        values = next(numpy_helper.to_array(i) for i in model.graph.initializer if i.name == node.input[1])
        node.input[1] = _added(model, f"{node.input[1]}.other", (values * np.float32(factor)).astype(values.dtype))
        return f"{node.name} x {factor}"

    return change


def _zero_channel(model: ModelProto, random: Random) -> str | None:
    def change(values: Array) -> Array:
        # Unsigned weights stand for zero at 128.
        values[_channel(values, random)] = 128 if values.dtype == np.uint8 else 0
        return values

    return _edit(model, random, _is_stored, change)


def _swap_channels(model: ModelProto, random: Random) -> str | None:
    def change(values: Array) -> Array:
        values[..., [0, 1]] = values[..., [1, 0]]
        return values

    return _edit(model, random, lambda i: _is_stored(i) and i.dims[-1] > 1 and len(i.dims) == 2, change)


def _four_bits(model: ModelProto, random: Random) -> str | None:
    def change(values: Array) -> Array:
        zero = 128 if values.dtype == np.uint8 else 0
        signed = values.astype(np.float32) - zero
        coarse: Array = (np.rint(signed / 18.0).clip(-7, 7) * 18 + zero).astype(values.dtype)  # 127 / 7 is about 18
        return coarse

    return _edit(model, random, _is_stored, change)


def _swap_caches(model: ModelProto, random: Random) -> str | None:
    node = _one(model, random, "Attention")
    if node is None:
        return None
    node.input[1], node.input[2] = node.input[2], node.input[1]
    return node.name


def _write_off_by_one(model: ModelProto, random: Random) -> str | None:
    node = _one(model, random, "TensorScatter")
    if node is None:
        return None
    one = _added(model, "sabotage.one", np.array([1], np.int64))
    # Backwards, as a forward step would leave the cache at the last unit and fail loudly.
    zero = _added(model, "sabotage.zero", np.array([0], np.int64))
    model.graph.node.insert(
        0, helper.make_node("Max", ["sabotage.less", zero], ["sabotage.index"], name="sabotage/Max")
    )
    model.graph.node.insert(0, helper.make_node("Sub", [node.input[2], one], ["sabotage.less"], name="sabotage/Sub"))
    node.input[2] = "sabotage.index"
    return node.name


def _reset_at_wrap(model: ModelProto, random: Random) -> str | None:
    """Make what attention sees of a cache zero whenever writing starts again at the front."""
    attention = _one(model, random, "Attention")
    scatter = next((n for n in model.graph.node if attention is not None and n.output[0] == attention.input[1]), None)
    if attention is None or scatter is None:
        return None
    first = _added(model, "sabotage.first", np.array([0], np.int64))
    nodes = [
        helper.make_node("Greater", [scatter.input[2], first], ["sabotage.later"], name="sabotage/Greater"),
        helper.make_node("Cast", ["sabotage.later"], ["sabotage.keep"], name="sabotage/Cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [attention.input[1], "sabotage.keep"], ["sabotage.key"], name="sabotage/Mul"),
    ]
    place = list(model.graph.node).index(attention)
    for node in reversed(nodes):
        model.graph.node.insert(place, node)
    attention.input[1] = "sabotage.key"
    return attention.name


def _norm_weight(model: ModelProto, random: Random) -> str | None:
    norms = {n.input[1] for n in model.graph.node if n.op_type in ("RMSNormalization", "LayerNormalization")}
    return _edit(model, random, lambda i: i.name in norms, lambda values: values * np.float32(1.5))


def _bias(model: ModelProto, random: Random) -> str | None:
    biases = {n.input[2] for n in model.graph.node if n.op_type == "Conv" and len(n.input) > 2}
    biases |= {name for n in model.graph.node if n.op_type == "Add" for name in n.input}
    return _edit(model, random, lambda i: i.name in biases and _total(i) > 1, lambda values: values + np.float32(0.05))


CHANGES: dict[str, Change] = {
    "weight scale x1.5": _weight_scale(1.5),
    "weight scale x0.7": _weight_scale(0.7),
    "activation scale x1.5": _activation_scale(1.5),
    "activation scale x0.7": _activation_scale(0.7),
    "zeroed channel": _zero_channel,
    "swapped channels": _swap_channels,
    "layer at 4 bits": _four_bits,
    "swapped K/V caches": _swap_caches,
    "write index off by one": _write_off_by_one,
    "state reset at wrap": _reset_at_wrap,
    "norm weight x1.5": _norm_weight,
    "bias moved": _bias,
    **WIRING,
}


def _is_stored(tensor: TensorProto) -> bool:
    return tensor.data_type in (TensorProto.INT8, TensorProto.UINT8) and _total(tensor) > 1 and len(tensor.dims) > 1


def _is_weight_scale(model: ModelProto) -> Callable[[TensorProto], bool]:
    names = {n.input[1] for n in model.graph.node if n.op_type in ("DequantizeLinear", "Mul")}
    return lambda i: i.name in names and i.name.endswith(".scale") and _total(i) > 1


def _edit(
    model: ModelProto, random: Random, fits: Callable[[TensorProto], bool], change: Callable[[Array], Array]
) -> str | None:
    fitting = [i for i in model.graph.initializer if fits(i)]
    if not fitting:
        return None
    tensor = fitting[random.integers(len(fitting))]
    values = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), tensor.name))
    return str(tensor.name)


def _channel(values: Array, random: Random) -> tuple[int | slice, ...]:
    """One output channel: the first axis of a convolution's weight, the last of a matrix."""
    if values.ndim > 2:
        return (int(random.integers(values.shape[0])),)
    return (slice(None), int(random.integers(values.shape[-1])))


def _one(model: ModelProto, random: Random, op: str) -> NodeProto | None:
    nodes = [n for n in model.graph.node if n.op_type == op]
    return nodes[random.integers(len(nodes))] if nodes else None


def _added(model: ModelProto, name: str, values: Array) -> str:
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def _total(tensor: TensorProto) -> int:
    return int(np.prod(tensor.dims))
