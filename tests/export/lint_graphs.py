"""For every lint rule two small graphs that differ in one thing: the rule must flag the first and not the second.

`tensorrt` is TensorRT-RTX's answer to the flagged graph: "refuses" (parser or builder), "ignores" (the engine lacks the
requested behaviour), or None where the rule concerns another library, speed or accuracy. It must build every graph that
is not flagged.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

F16, F32, BOOL, I64, I8 = (
    TensorProto.FLOAT16,
    TensorProto.FLOAT,
    TensorProto.BOOL,
    TensorProto.INT64,
    TensorProto.INT8,
)
E4M3, E5M2 = TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2

Answer = Literal["refuses", "ignores"]
Tensor = tuple[str, int, list[int]]


@dataclass(frozen=True)
class Pair:
    """target: for which device the rule is asked."""

    rule: str
    bad: ModelProto
    good: ModelProto
    target: str = "rtx-40"
    tensorrt: Answer | None = None


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    constants: Iterable[TensorProto] = (),
    opset: int = 24,
) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(*t) for t in inputs],
        [helper.make_tensor_value_info(*t) for t in outputs],
        list(constants),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)
    if any(node.domain == "com.microsoft" for node in nodes):
        made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


def constant(name: str, values: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def of_type(name: str, dtype: int, shape: Sequence[int], seed: int = 0) -> TensorProto:
    """Random values of a type that numpy may not have."""
    kinds: dict[int, Any] = {E4M3: ml_dtypes.float8_e4m3fn, E5M2: ml_dtypes.float8_e5m2, I8: np.int8}
    values = np.random.default_rng(seed).standard_normal(shape) * (50 if dtype == I8 else 1)
    return helper.make_tensor(name, dtype, shape, np.asarray(values).astype(kinds[dtype]).tobytes(), raw=True)


def zero(name: str, dtype: int, shape: Sequence[int] = ()) -> TensorProto:
    return helper.make_tensor(name, dtype, shape, bytes(int(np.prod(shape, dtype=int))), raw=True)


QUERIES, SLOTS = 3, 64


def attention(
    dtype: int = F16, inputs: Sequence[str] = ("m",), opset: int = 24, mask: Any = None, **attributes: Any
) -> ModelProto:
    """q [1, 4, 3, 16] over k, v [1, 2, 64, 16] with a mask."""
    known: dict[str, Tensor] = {"m": ("m", BOOL, [1, 1, QUERIES, SLOTS]), "n": ("n", I64, [1])}
    given = [("q", dtype, [1, 4, QUERIES, 16]), ("k", dtype, [1, 2, SLOTS, 16]), ("v", dtype, [1, 2, SLOTS, 16])]
    extra = [known[name] for name in inputs if name in known and not (name == "m" and mask is not None)]
    node = helper.make_node("Attention", ["q", "k", "v", *inputs], ["y"], name="attend", **attributes)
    constants = [constant("m", mask)] if mask is not None else []
    return model([node], [*given, *extra], [("y", dtype, [1, 4, QUERIES, 16])], constants, opset)


def attention_with_past() -> ModelProto:
    node = helper.make_node("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "nk", "nv"], name="attend")
    new, past, both = [1, 2, QUERIES, 16], [1, 2, SLOTS, 16], [1, 2, SLOTS + QUERIES, 16]
    inputs = [("q", F16, [1, 4, QUERIES, 16]), ("k", F16, new), ("v", F16, new), ("pk", F16, past), ("pv", F16, past)]
    return model([node], inputs, [("y", F16, [1, 4, QUERIES, 16]), ("nk", F16, both), ("nv", F16, both)])


def cache(dtype: int = F16, mode: str = "linear", *, cast_before: bool = False, cast_after: bool = False) -> ModelProto:
    """p [1, 2, 64, 16] with u [1, 2, 3, 16] written at w."""
    shape = [1, 2, SLOTS, 16]
    first, last = ("p32" if cast_before else "p"), ("n32" if cast_after else "n")
    nodes = [
        *([helper.make_node("Cast", ["p32"], ["p"], to=dtype, name="to_half")] if cast_before else []),
        helper.make_node("TensorScatter", ["p", "u", "w"], ["n"], axis=2, mode=mode, name="write"),
        *([helper.make_node("Cast", ["n"], ["n32"], to=F32, name="to_float")] if cast_after else []),
    ]
    inputs = [(first, F32 if cast_before else dtype, shape), ("u", dtype, [1, 2, QUERIES, 16]), ("w", I64, [1])]
    return model(nodes, inputs, [(last, F32 if cast_after else dtype, shape)])


def product(
    *,
    quantized: int = I8,
    zero_point: int = 0,
    scale: float = 0.02,
    weight_scales: int = 32,
    activation_scales: int = 1,
    behind: Sequence[NodeProto] = (),
    beside: Sequence[TensorProto] = (),
    inputs: Sequence[Tensor] = (),
    made: str = "y",
) -> ModelProto:
    """x [1, 12, 64] times a weight [64, 32], both quantized. behind: nodes from y to the output `made`."""
    point = constant("xz", np.int8(zero_point)) if quantized == I8 else zero("xz", quantized)
    scales = np.full(activation_scales, scale, np.float16) if activation_scales > 1 else np.float16(scale)
    if activation_scales > 1:
        point = zero("xz", quantized, [activation_scales])
    per_channel = weight_scales > 1
    weights = np.full(weight_scales, 0.01, np.float16) if per_channel else np.float16(0.01)
    along: dict[str, Any] = {"axis": 2} if activation_scales > 1 else {}
    across: dict[str, Any] = {"axis": 1} if per_channel else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], name="quantize", **along),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], name="dequantize", **along),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="weight", **across),
        helper.make_node("MatMul", ["xd", "wd"], ["y"], name="product"),
        *behind,
    ]
    constants = [
        constant("xs", scales),
        point,
        of_type("w", quantized, [64, 32]),
        constant("ws", weights),
        zero("wz", quantized, [weight_scales] if per_channel else []),
        *beside,
    ]
    return model(nodes, [("x", F16, [1, 12, 64]), *inputs], [(made, F16, [1, 12, 32])], constants)


def _pair(name: str, scale: str = "ys") -> list[NodeProto]:
    """Quantize and dequantize `name` to `name`d."""
    return [
        helper.make_node("QuantizeLinear", [name, scale, "yz"], [f"{name}q"], name=f"quantize_{name}"),
        helper.make_node("DequantizeLinear", [f"{name}q", scale, "yz"], [f"{name}d"], name=f"dequantize_{name}"),
    ]


_SCALES = (constant("ys", np.float16(0.1)), zero("yz", I8))


def relu_behind(quantize_first: bool) -> ModelProto:
    behind = _pair("y") if quantize_first else []
    return product(
        behind=[*behind, helper.make_node("Relu", ["yd" if quantize_first else "y"], ["z"], name="relu")],
        beside=_SCALES if quantize_first else (),
        made="z",
    )


def residual(quantized: bool) -> ModelProto:
    behind = [*_pair("r"), helper.make_node("Add", ["y", "rd"], ["z"], name="sum")]
    if not quantized:
        behind = [helper.make_node("Add", ["y", "r"], ["z"], name="sum")]
    return product(behind=behind, beside=_SCALES if quantized else (), inputs=[("r", F16, [1, 12, 32])], made="z")


def upsampling(dimensions: int, channels: int = 8, per_tensor: bool = False) -> ModelProto:
    """ConvTranspose in int8 over 1 to 3 dimensions, from 8 channels to `channels`."""
    axis: dict[str, Any] = {} if per_tensor else {"axis": 1}
    nodes = [
        *_pair("x"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="weight", **axis),
        helper.make_node("ConvTranspose", ["xd", "wd"], ["y"], name="up"),
    ]
    constants = [
        *_SCALES,
        of_type("w", I8, [8, channels, *[3] * dimensions]),
        constant("ws", np.float16(0.01) if per_tensor else np.full(channels, 0.01, np.float16)),
        zero("wz", I8, [] if per_tensor else [channels]),
    ]
    outputs = [("y", F16, [1, channels, *[6] * dimensions])]
    return model(nodes, [("x", F16, [1, 8, *[4] * dimensions])], outputs, constants)


def round_trip(dtype: int, zero_point: int) -> ModelProto:
    """x quantized and dequantized."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="dequantize"),
    ]
    point = helper.make_tensor("z", dtype, [], bytes([zero_point]), raw=True)
    return model(nodes, [("x", F16, [2, 3])], [("y", F16, [2, 3])], [constant("s", np.float16(0.1)), point])


def concat(dtype: int, before: bool) -> ModelProto:
    """Two copies of a tensor joined, in the quantized type or behind it."""
    constants = [constant("s", np.float16(0.1)), zero("z", dtype)]
    q = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize")
    if before:
        nodes = [
            q,
            helper.make_node("Concat", ["q", "q"], ["c"], axis=0, name="join"),
            helper.make_node("DequantizeLinear", ["c", "s", "z"], ["y"], name="dequantize"),
        ]
    else:
        nodes = [
            q,
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantize"),
            helper.make_node("Concat", ["d", "d"], ["y"], axis=0, name="join"),
        ]
    return model(nodes, [("x", F16, [2, 3])], [("y", F16, [4, 3])], constants)


def one(op_type: str, domain: str = "", opset: int = 24, dtype: int = F16) -> ModelProto:
    node = helper.make_node(op_type, ["x"], ["y"], name="only", domain=domain)
    return model([node], [("x", dtype, [2, 3])], [("y", dtype, [2, 3])], opset=opset)


def dynamic() -> ModelProto:
    nodes = [
        helper.make_node("MatMulInteger", ["x", "w"], ["i"], name="integers"),
        helper.make_node("Cast", ["i"], ["y"], to=F32, name="to_float"),
    ]
    return model(nodes, [("x", I8, [2, 3])], [("y", F32, [2, 4])], [of_type("w", I8, [3, 4])])


def single(
    op_type: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    constants: Iterable[TensorProto] = (),
    opset: int = 22,
    **attributes: Any,
) -> ModelProto:
    """One node; constants are its last inputs. opset 22 has every operator that is asked for here."""
    held = list(constants)
    names = [name for name, _, _ in inputs] + [each.name for each in held]
    node = helper.make_node(op_type, names, [name for name, _, _ in outputs], name="only", **attributes)
    return model([node], inputs, outputs, held, opset)


def nonzero() -> ModelProto:
    return single("NonZero", [("x", F32, [2, 3])], [("y", I64, [2, 6])])


def head(size: int) -> ModelProto:
    """Attention with heads of `size` numbers."""
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], name="attend")
    q, kv = [1, 4, QUERIES, size], [1, 2, SLOTS, size]
    return model([node], [("q", F16, q), ("k", F16, kv), ("v", F16, kv)], [("y", F16, q)])


def top_k(count: int) -> ModelProto:
    outputs = [("v", F16, [1, count]), ("i", I64, [1, count])]
    return single("TopK", [("x", F16, [1, 5000])], outputs, [constant("k", np.array([count]))])


def resize(**attributes: Any) -> ModelProto:
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], name="only", mode="linear", **attributes)
    scales = constant("s", np.array([1, 1, 2, 2], np.float32))
    return model([node], [("x", F32, [1, 2, 4, 4])], [("y", F32, [1, 2, 8, 8])], [scales], 22)


def identity_of_a_sequence() -> ModelProto:
    value = helper.make_tensor_sequence_value_info("x", F32, [2, 3])
    result = helper.make_tensor_sequence_value_info("y", F32, [2, 3])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"], name="only")], "small", [value], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=11)


def scatter(reduction: str) -> ModelProto:
    inputs, output = [("x", F32, [4, 3]), ("u", F32, [1, 3])], ("y", F32, [4, 3])
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], name="only", reduction=reduction)
    return model([node], inputs, [output], [constant("i", np.array([[2]]))], 22)


def norm(outputs: int) -> ModelProto:
    given = [("y", F32, [2, 8]), ("m", F32, [2, 1])][:outputs]
    return single("LayerNormalization", [("x", F32, [2, 8])], given, [constant("w", np.ones(8, np.float32))])


def pool(dilation: int) -> ModelProto:
    size = 8 - 2 * dilation
    shape: dict[str, Any] = {"kernel_shape": [3, 3], "dilations": [dilation, dilation]}
    return single("MaxPool", [("x", F32, [1, 2, 8, 8])], [("y", F32, [1, 2, size, size])], **shape)


def _mask(empty_row: bool) -> Any:
    mask = np.zeros((1, 1, QUERIES, SLOTS), np.bool_)
    mask[0, 0, : QUERIES - empty_row, 0] = True
    return mask


PAIRS = (
    Pair("operator-version", attention(), one("Relu", opset=20), "jetson-agx-orin"),
    Pair("opset", one("Relu", opset=24), one("Relu", opset=20), "jetson-agx-thor"),
    Pair("custom-operator", one("QAttention", "com.microsoft"), one("Relu"), tensorrt="refuses"),
    Pair("dynamic-quantization", dynamic(), product(), tensorrt="refuses"),
    Pair("attention-window", attention(opset=27, left_window_size=2), attention(opset=27), tensorrt="ignores"),
    Pair("attention-nonpad", attention(inputs=("m", "", "", "n")), attention(), tensorrt="ignores"),
    Pair("attention-past", attention_with_past(), attention(), tensorrt="refuses"),
    Pair("attention-softcap", attention(softcap=10.0), attention(softcap=0.0), tensorrt="refuses"),
    Pair("attention-causal-mask", attention(is_causal=1), attention(inputs=(), is_causal=1), tensorrt="refuses"),
    Pair("attention-fp32", attention(F32), attention(F16), tensorrt="refuses"),
    Pair("attention-head-size", head(512), head(256), tensorrt="refuses"),
    Pair(
        "operator-refused",
        single("NonZero", [("x", F32, [2, 3])], [("y", I64, [2, 6])]),
        one("Relu"),
        tensorrt="refuses",
    ),
    Pair("type-refused", one("Abs", dtype=TensorProto.INT16), one("Abs", dtype=TensorProto.INT32), tensorrt="refuses"),
    Pair("sequence", identity_of_a_sequence(), one("Identity", opset=22), tensorrt="refuses"),
    Pair("resize", resize(antialias=1), resize(), tensorrt="refuses"),
    Pair("top-k", top_k(3841), top_k(3840), tensorrt="refuses"),
    Pair("pool-dilation", pool(2), pool(1), tensorrt="refuses"),
    Pair("further-output", norm(2), norm(1), tensorrt="refuses"),
    Pair("scatter-reduction", scatter("add"), scatter("none"), tensorrt="refuses"),
    Pair("mask-empty-row", attention(mask=_mask(True)), attention(mask=_mask(False))),
    Pair("cache-circular", cache(mode="circular"), cache(), tensorrt="refuses"),
    Pair("cache-type", cache(I8), cache(F32), tensorrt="refuses"),
    Pair("cache-input", cache(cast_before=True), cache(), tensorrt="refuses"),
    Pair("cache-output", cache(cast_after=True), cache(), tensorrt="refuses"),
    Pair("zero-point", product(zero_point=3), product(), tensorrt="refuses"),
    Pair("quantized-type", product(quantized=E5M2), product(quantized=E4M3), tensorrt="refuses"),
    Pair("type-hardware", product(quantized=E4M3), product(), "rtx-30", tensorrt="refuses"),
    Pair("scale", product(scale=-0.02), product(), tensorrt="refuses"),
    Pair("activation-per-channel", product(activation_scales=64), product()),
    Pair("weight-per-tensor", product(weight_scales=1), product()),
    Pair("quantized-output", relu_behind(True), relu_behind(False)),
    Pair("residual", residual(False), residual(True)),
    Pair("convtranspose3d-int8", upsampling(3), upsampling(2)),
    Pair("fp8-slice-concat", concat(E4M3, before=True), concat(E4M3, before=False), "cpu"),
    Pair("s8s8", product(), product(quantized=E4M3), "cpu"),
)
