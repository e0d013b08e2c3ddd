"""The roofline: the least time of a unit, from the graphs' arithmetic and bytes and what this machine reaches."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from time import perf_counter_ns

import onnx
import torch

from tests.benchmarks.meter import Work
from wanedge.config import ModelConfig

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """Cost of one graph run. flops: of matrix products, convolutions and attention; what is left out is a few percent.

    moved: bytes of weights, inputs and outputs, each once. A cache that is written in place counts as an input only,
    a table from which rows are gathered not at all.
    """

    flops: float
    moved: float


@dataclass(frozen=True)
class Rates:
    """Rates that plain float32 matrix products reach here.

    block: FLOP/s of [media slots, width] x [width, ffn] over as many matrices as the backbone has, so that they come
    from where its weights come from. square: FLOP/s at 1024 x 1024 x 1024. stream: bytes/s of the same weights
    through a product with one row, which only reads them.
    """

    block: float
    square: float
    stream: float


def graph_cost(graph: Path, tokens: int) -> Cost:
    """Cost of the graph with `tokens` on its dynamic axis."""
    model = onnx.load(graph)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = tokens
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    shapes |= {t.name: list(t.dims) for t in model.graph.initializer}
    flops = sum(_FLOPS[node.op_type](node, shapes) for node in model.graph.node if node.op_type in _FLOPS)
    written = {node.output[0] for node in model.graph.node if node.op_type == "TensorScatter"}
    whole = {name for node in model.graph.node if node.op_type != "Gather" for name in node.input}
    touched = [t.name for t in model.graph.initializer if t.name in whole] + [v.name for v in model.graph.input]
    touched += [v.name for v in model.graph.output if v.name not in written]
    return Cost(float(flops), float(sum(prod(shapes[name]) for name in touched) * _FLOAT_BYTES))


def roofline_ms(costs: Iterable[Cost], rates: Rates) -> float:
    """Least time of these runs one after the other: each is bound by arithmetic or by memory."""
    return sum(max(cost.flops / rates.block, cost.moved / rates.stream) for cost in costs) * 1e3


def unit_costs(work: Iterable[Work], graph_of: Callable[[str], Path]) -> dict[Work, Cost]:
    """Cost of every distinct graph run. graph_of: the graph file of a component."""
    return {w: graph_cost(graph_of(w.component), w.tokens) for w in dict.fromkeys(work)}


def measured_rates(config: ModelConfig, rows: int, repeats: int = 40) -> Rates:
    """The best of `repeats`: a roofline is what the machine can do when nothing disturbs it. rows: of the block."""
    width, ffn = config.backbone.width, config.backbone.ffn
    matrices = [torch.randn(width, ffn) for _ in range(3 * config.backbone.layers)]
    size = width * ffn * len(matrices)

    def through_all(count: int) -> Callable[[], None]:
        x = torch.randn(count, width)
        out = torch.empty(count, ffn)

        def run() -> None:
            for matrix in matrices:
                torch.mm(x, matrix, out=out)

        return run

    square = torch.randn(1024, 1024)
    with torch.inference_mode():
        return Rates(
            block=2.0 * rows * size / _best_s(through_all(rows), repeats),
            square=2.0 * 1024**3 / _best_s(lambda: torch.mm(square, square), repeats),
            stream=_FLOAT_BYTES * size / _best_s(through_all(1), repeats),
        )


def _best_s(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = perf_counter_ns()
        run()
        times.append(perf_counter_ns() - started)
    return min(times) / 1e9


Shapes = dict[str, list[int]]


def _product(node: onnx.NodeProto, shapes: Shapes) -> int:
    return 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    return 2 * prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])  # weight [out, in / groups, kernel ...]


def _transposed_convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    return 2 * prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])  # weight [in, out / groups, kernel ...]


def _attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    query, key = shapes[node.input[0]], shapes[node.input[1]]  # [1, H, S, Dh], [1, Hkv, C, Dh]
    return 2 * 2 * prod(query) * key[2]


_FLOPS = {
    "MatMul": _product,
    "Gemm": _product,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Attention": _attention,
}
