"""Rules about Attention and the caches it reads."""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from wanedge_export.lint.graph import Graph, argument, attribute
from wanedge_export.lint.rule import MEASURED, TENSORRT, Hit, Rule
from wanedge_runtimes.targets import Library, Target

# Places of Attention's inputs (ONNX Attention-24).
_MASK, _PAST_KEY, _NONPAD = 3, 4, 6

MAX_HEAD_SIZE = 256
MIN_HEAD_SIZE = 16

_MASK_INSTEAD = "use the explicit mask input: operators.attention(query, key, value, mask)"


def _window(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("Attention"):
        sizes = {name: attribute(node, name) for name in ("left_window_size", "right_window_size")}
        if windows := {name: size for name, size in sizes.items() if size is not None and size >= 0}:
            yield Hit(node, f"the window attributes {windows} are ignored silently: every slot stays visible")


def _nonpad(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("Attention"):
        if argument(node, _NONPAD) is not None:
            yield Hit(node, "the input nonpad_kv_seqlen is ignored: slots behind it stay visible")


def _past(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("Attention"):
        if argument(node, _PAST_KEY) is not None or len([o for o in node.output if o]) > 1:
            yield Hit(node, "past and present tensors of Attention itself are refused")


def _softcap(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("Attention"):
        if attribute(node, "softcap"):
            yield Hit(node, f"softcap {attribute(node, 'softcap'):g} is refused")


def _causal_mask(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("Attention"):
        if attribute(node, "is_causal") and argument(node, _MASK) is not None:
            yield Hit(node, "is_causal together with a mask is refused")


def _float32(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("Attention"):
        shape = graph.shape(node.input[0])
        one_token = shape is not None and shape[-2] == 1
        if graph.dtype(node.input[0]) == TensorProto.FLOAT and not one_token and not _is_plain(graph, node):
            yield Hit(node, "there is no kernel for Attention in float32")


def _is_plain(graph: Graph, node: NodeProto) -> bool:
    """Without a mask, [B, S, H * D] with as many key heads as query heads is computed by other kernels.

    Not where values are of another size than keys.
    """
    heads = attribute(node, "q_num_heads"), attribute(node, "kv_num_heads")
    keys, values = graph.shape(node.input[1]), graph.shape(node.input[2])
    same = keys is None or values is None or keys[-1] == values[-1]
    return graph.rank(node.input[0]) == 3 and heads[0] == heads[1] and same and argument(node, _MASK) is None


def _head_size(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("Attention"):
        shape = graph.shape(node.input[0])
        heads = attribute(node, "q_num_heads") or 1
        if shape is None or not isinstance(shape[-1], int) or (len(shape) == 3 and heads == 1):
            continue
        size = shape[-1] // heads if len(shape) == 3 else shape[-1]
        one_token = shape[-2] == 1
        if _is_plain(graph, node) and not one_token:
            continue
        if size > MAX_HEAD_SIZE:
            yield Hit(node, f"a head of {size} numbers is refused, {MAX_HEAD_SIZE} is the most")
        elif size < MIN_HEAD_SIZE and not one_token:
            yield Hit(node, f"a head of {size} numbers is refused for blocks of more than one token")


def _empty_row(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("Attention"):
        name = argument(node, _MASK)
        mask = graph.constant(name) if name is not None else None
        if mask is not None and mask.dtype == np.bool_ and not mask.any(axis=-1).all():
            yield Hit(node, "the mask has a row without a visible slot, which gives NaN")


def _circular(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("TensorScatter"):
        if attribute(node, "mode") == "circular":
            yield Hit(node, "the mode circular is refused")


def _cache_type(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    allowed = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.UNDEFINED)
    for node in graph.of_type("TensorScatter"):
        if (dtype := graph.dtype(node.input[0])) not in allowed:
            yield Hit(node, f"a cache of {TensorProto.DataType.Name(dtype).lower()} is refused")


def _cache_input(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("TensorScatter"):
        if node.input[0] not in graph.inputs:
            producer = graph.producer(node.input[0])
            what = f"comes out of {producer.op_type}" if producer is not None else "is a constant"
            yield Hit(node, f"the cache {node.input[0]!r} {what}: it must be an input of the graph itself")


def _cache_output(graph: Graph, _target: Target, _library: Library) -> Iterator[Hit]:
    for node in graph.of_type("TensorScatter"):
        if node.output[0] not in graph.outputs:
            yield Hit(node, f"the written cache {node.output[0]!r} must be an output of the graph itself")


RULES = (
    Rule("attention-window", "error", TENSORRT, _MASK_INSTEAD, MEASURED, _window, refuses=False),
    Rule("attention-nonpad", "error", TENSORRT, _MASK_INSTEAD, MEASURED, _nonpad, refuses=False),
    Rule(
        "attention-past",
        "error",
        TENSORRT,
        "write the cache with operators.cache_write and give Attention the whole of it",
        MEASURED,
        _past,
    ),
    Rule("attention-softcap", "error", TENSORRT, "train without softcap, or take it out", MEASURED, _softcap),
    Rule("attention-causal-mask", "error", TENSORRT, _MASK_INSTEAD, MEASURED, _causal_mask),
    Rule(
        "attention-fp32",
        "error",
        {"tensorrt-rtx": None},
        "export fp16 graphs: wanedge export PRESET --precision fp16",
        MEASURED,
        _float32,
    ),
    Rule(
        "attention-head-size",
        "error",
        {"tensorrt-rtx": None},
        f"choose heads of {MIN_HEAD_SIZE} to {MAX_HEAD_SIZE} numbers, or write the attention as MatMul and Softmax",
        MEASURED,
        _head_size,
    ),
    Rule(
        "mask-empty-row",
        "error",
        {**TENSORRT, "onnxruntime": None},
        "let every row see at least one slot, its own for instance",
        "measured with ONNX Runtime 1.32",
        _empty_row,
        refuses=False,
    ),
    Rule(
        "cache-circular",
        "error",
        TENSORRT,
        "use mode linear with a capacity that is a multiple of the unit's slots, as wanedge.ring.Ring does",
        MEASURED,
        _circular,
    ),
    Rule("cache-type", "error", TENSORRT, "keep the cache in float16 or bfloat16", MEASURED, _cache_type),
    Rule(
        "cache-input",
        "error",
        TENSORRT,
        "remove the Cast (or other node) in front of it and keep the state in the type in which it is stored",
        MEASURED,
        _cache_input,
    ),
    Rule(
        "cache-output",
        "error",
        TENSORRT,
        "make TensorScatter's output the state's present; cast for other readers behind it",
        MEASURED,
        _cache_output,
    ),
)
