"""Two small streaming graphs with known arithmetic: a KV cache in place, and a convolution tail that swaps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from wanedge_runtimes.runtime import Executable, State
from wanedge_runtimes.spec import GraphSpec, StateSpec, TensorSpec

D = 8  # width of a token
CAPACITY = 32  # cache slots
CHANNELS, FRAMES, KERNEL = 3, 5, 3

RNG = np.random.default_rng(7)
VALUE_WEIGHT = RNG.standard_normal((D, D)).astype(np.float32)
CONV_WEIGHT = RNG.standard_normal((CHANNELS, CHANNELS, KERNEL)).astype(np.float32)

CACHE_SPEC = GraphSpec(
    component="cache",
    opset=24,
    inputs=(
        TensorSpec(name="x", dtype="float32", shape=(1, "S", D)),
        TensorSpec(name="mask", dtype="bool", shape=(1, 1, "S", CAPACITY)),
        TensorSpec(name="write_index", dtype="int64", shape=(1,)),
    ),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(1, "S", D)),),
    states=tuple(
        StateSpec(
            name=kind,
            past=f"past_key_values.0.{kind}",
            present=f"present.0.{kind}",
            dtype="float32",
            shape=(1, 1, CAPACITY, D),
            update="in_place",
        )
        for kind in ("key", "value")
    ),
)

TAIL_SPEC = GraphSpec(
    component="tail",
    opset=24,
    inputs=(TensorSpec(name="x", dtype="float32", shape=(1, CHANNELS, FRAMES)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(1, CHANNELS, FRAMES)),),
    states=(
        StateSpec(
            name="tail",
            past="past_states.tail",
            present="present_states.tail",
            dtype="float32",
            shape=(1, CHANNELS, KERNEL - 1),
            initial=0.5,
            update="swap",
        ),
    ),
)

BFLOAT16_SPEC = GraphSpec(
    component="sum",
    opset=24,
    inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 3)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(1, 3)),),
    states=(
        StateSpec(
            name="total",
            past="past_states.total",
            present="present_states.total",
            dtype="bfloat16",
            shape=(1, 3),
            initial=1.5,
            update="swap",
        ),
    ),
)

_ONNX = {"float32": T.FLOAT, "bool": T.BOOL, "int64": T.INT64, "bfloat16": T.BFLOAT16}


@dataclass(frozen=True)
class Case:
    """A graph on disk and its spec."""

    path: Path
    spec: GraphSpec


def write_cache(folder: Path) -> Case:
    """q = k = x, v = x W; keys and values scattered into the caches, then attention over them."""
    nodes = [
        h.make_node("Unsqueeze", ["x", "one"], ["q"]),
        h.make_node("MatMul", ["q", "weight"], ["v"]),
        h.make_node("TensorScatter", ["past_key_values.0.key", "q", "write_index"], ["present.0.key"], axis=2),
        h.make_node("TensorScatter", ["past_key_values.0.value", "v", "write_index"], ["present.0.value"], axis=2),
        h.make_node("Attention", ["q", "present.0.key", "present.0.value", "mask"], ["attended"]),
        h.make_node("Squeeze", ["attended", "one"], ["y"]),
    ]
    return _write(folder, CACHE_SPEC, nodes, {"one": np.array([1]), "weight": VALUE_WEIGHT})


def write_tail(folder: Path) -> Case:
    """A causal convolution over the last two frames and the new ones."""
    nodes = [
        h.make_node("Concat", ["past_states.tail", "x"], ["frames"], axis=2),
        h.make_node("Conv", ["frames", "weight"], ["y"]),
        h.make_node("Slice", ["frames", "start", "end", "axis"], ["present_states.tail"]),
    ]
    constants = {
        "weight": CONV_WEIGHT,
        "start": np.array([FRAMES]),
        "end": np.array([FRAMES + KERNEL - 1]),
        "axis": np.array([2]),
    }
    return _write(folder, TAIL_SPEC, nodes, constants)


def write_bfloat16(folder: Path) -> Case:
    """A running sum kept in bfloat16."""
    nodes = [
        h.make_node("Cast", ["past_states.total"], ["total"], to=T.FLOAT),
        h.make_node("Add", ["total", "x"], ["y"]),
        h.make_node("Cast", ["y"], ["present_states.total"], to=T.BFLOAT16),
    ]
    return _write(folder, BFLOAT16_SPEC, nodes, {})


def causal_mask(start: int, size: int) -> np.ndarray:
    """Queries at slots start.. see every slot up to themselves, [1, 1, size, CAPACITY]."""
    return (np.arange(CAPACITY)[None] <= start + np.arange(size)[:, None])[None, None]


def attend(x: np.ndarray, start: int) -> np.ndarray:
    """What the cache graph answers for the tokens from `start` on, given all tokens x [n, D]; float64."""
    x = x.astype(np.float64)
    scores = x[start:] @ x.T / np.sqrt(D)
    visible = np.arange(len(x))[None] <= np.arange(start, len(x))[:, None]
    weights = np.where(visible, np.exp(scores - scores.max(1, keepdims=True)), 0)
    answers: np.ndarray = weights / weights.sum(1, keepdims=True) @ (x @ VALUE_WEIGHT.astype(np.float64))
    return answers


def _write(folder: Path, spec: GraphSpec, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Case:
    inputs = [(t.name, t) for t in spec.inputs] + [(s.past, s) for s in spec.states]
    outputs = [(t.name, t) for t in spec.outputs] + [(s.present, s) for s in spec.states]
    graph = h.make_graph(
        nodes,
        spec.component,
        [h.make_tensor_value_info(name, _ONNX[t.dtype], t.shape) for name, t in inputs],
        [h.make_tensor_value_info(name, _ONNX[t.dtype], t.shape) for name, t in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", spec.opset)], ir_version=11)
    onnx.checker.check_model(model)
    path = folder / f"{spec.component}.onnx"
    onnx.save(model, path)
    return Case(path, spec)


def feed(executable: Executable, state: State, x: np.ndarray, start: int) -> np.ndarray:
    """Run the tokens x [n, D] at cache slots start.. and return their answers [n, D]."""
    inputs = {"x": x[None], "mask": causal_mask(start, len(x)), "write_index": np.array([start])}
    answers: np.ndarray = executable.run(inputs, state)["y"][0]
    return answers


def tokens(seed: int, n: int = CAPACITY) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def frames(seed: int, n: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).standard_normal((n, 1, CHANNELS, FRAMES)).astype(np.float32))
