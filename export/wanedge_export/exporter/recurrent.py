"""nn.GRU and nn.LSTM as ONNX's own operators, for components with a dynamic axis.

torch.export unrolls a recurrence over time, which freezes the number of steps. Where that number is an axis of the
spec, the layers are traced as GRU-14 and LSTM-14 instead; over fixed sizes they stay unrolled into products, which a
quantizer can quantize.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Order of the gates in ONNX, by their places in torch's: torch has r, z, n and i, f, g, o; ONNX z, r, h and i, o, f, c.
_GATES = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}
_PARTS = ("w", "r", "b")  # ONNX's inputs W, R and B


@contextmanager
def recurrent_operators(module: nn.Module, enabled: bool) -> Iterator[None]:
    """Inside the block nn.GRU and nn.LSTM trace to ONNX's operators, where these can express them.

    The layers in `module` then have buffers with their weights in ONNX's order.
    """
    layers = [each for each in module.modules() if isinstance(each, nn.GRU | nn.LSTM)]
    if not enabled or not layers:
        yield
        return
    originals = nn.GRU.forward, nn.LSTM.forward

    def gru(self: nn.GRU, x: Tensor, hx: Tensor | None = None) -> Any:
        if not _expressible(self, x):
            return originals[0](self, x, hx)
        return _run(self, "GRU", x, None if hx is None else (hx,))

    def lstm(self: nn.LSTM, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> Any:
        if not _expressible(self, x):
            return originals[1](self, x, hx)
        return _run(self, "LSTM", x, hx)

    added = [(layer, name) for layer in layers for name in _add_buffers(layer)]
    nn.GRU.forward, nn.LSTM.forward = gru, lstm  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.GRU.forward, nn.LSTM.forward = originals  # type: ignore[method-assign]
        for layer, name in added:
            delattr(layer, name)


def _expressible(layer: nn.RNNBase, x: Tensor) -> bool:
    """One direction, batched, without a projection; a component is causal and in eval mode anyway."""
    return isinstance(x, Tensor) and x.dim() == 3 and not layer.bidirectional and layer.proj_size == 0


def _run(layer: nn.RNNBase, kind: str, x: Tensor, hx: tuple[Tensor, ...] | None) -> Any:
    """x: [B, S, I] or [S, B, I]. Returns what the layer returns."""
    sequence = x.transpose(0, 1) if layer.batch_first else x
    count = 2 if kind == "LSTM" else 1
    shape = (layer.num_layers, sequence.shape[1], layer.hidden_size)
    states = hx or tuple(x.new_zeros(shape) for _ in range(count))
    last: list[list[Tensor]] = [[] for _ in range(count)]
    for index in range(layer.num_layers):
        initial = [state[index : index + 1] for state in states]
        sequence, final = _layer(layer, kind, index, sequence, initial)
        for collected, state in zip(last, final, strict=True):
            collected.append(state)
    outputs = sequence.transpose(0, 1) if layer.batch_first else sequence
    finals = tuple(torch.cat(each, dim=0) for each in last)
    return outputs, finals if kind == "LSTM" else finals[0]


def _layer(layer: nn.RNNBase, kind: str, index: int, x: Tensor, initial: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """x: [S, B, I]. initial: [1, B, H] each. Returns [S, B, H] and the last states."""
    weights = [getattr(layer, _buffer(name, index)) for name in _PARTS]
    attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
    if kind == "GRU":
        attributes["linear_before_reset"] = 1  # torch's form: the reset gate scales the product
    steps, batch, hidden = x.shape[0], x.shape[1], layer.hidden_size
    inputs = (x, *weights, None, *initial)
    shapes = [(steps, 1, batch, hidden), *[(1, batch, hidden)] * len(initial)]
    results = torch.onnx.ops.symbolic_multi_out(
        kind, inputs, attributes, dtypes=[x.dtype] * len(shapes), shapes=shapes, version=14
    )
    return results[0][:, 0], list(results[1:])


def _add_buffers(layer: nn.RNNBase) -> list[str]:
    """Register W [1, gates * H, I], R [1, gates * H, H] and B [1, 2 * gates * H] of every layer; return their names."""
    kind, names = type(layer).__name__, []
    for index in range(layer.num_layers):
        weights = [_reordered(getattr(layer, f"weight_{part}_l{index}"), kind) for part in ("ih", "hh")]
        if layer.bias:
            bias = torch.cat([_reordered(getattr(layer, f"bias_{part}_l{index}"), kind) for part in ("ih", "hh")])
        else:
            bias = weights[0].new_zeros(2 * weights[0].shape[0])
        for part, value in zip(_PARTS, (*weights, bias), strict=True):
            layer.register_buffer(_buffer(part, index), value.detach()[None].clone())
            names.append(_buffer(part, index))
    return names


def _buffer(part: str, index: int) -> str:
    return f"onnx_{part}_l{index}"


def _reordered(weight: Tensor, kind: str) -> Tensor:
    """The gates' rows in ONNX's order."""
    rows = weight.shape[0] // len(_GATES[kind])
    return torch.cat([weight[place * rows : (place + 1) * rows] for place in _GATES[kind]])
