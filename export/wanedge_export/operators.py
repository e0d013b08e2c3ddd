"""The few operators whose ONNX form matters more than their torch form.

Each has three faces: eager torch, the portable profile (opset 24: TensorScatter, Attention, ...), and the decomposed
profile (opset <= 20: ScatterElements, MatMul, Softmax) for TensorRT versions that lack those operators. The exporter
chooses with `exporting(profile)`; a module just calls the function.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

from wanedge_runtimes.spec import Profile

_profile: ContextVar[Profile | None] = ContextVar("profile", default=None)

# Finite, so that a decomposed softmax stays finite in fp16 as well; exp(-3e4) is exactly 0 in every float format.
MASKED_SCORE = -3.0e4


@contextmanager
def exporting(profile: Profile) -> Iterator[None]:
    """Inside this context the operators trace to `profile`'s ONNX form."""
    token = _profile.set(profile)
    try:
        yield
    finally:
        _profile.reset(token)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch.compile would stop here
def _target() -> Profile | None:
    return _profile.get()


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in Qwen3's half-split form (ONNX RotaryEmbedding-23). x: [1, H, S, Dh]. cos, sin: [1, S, Dh / 2]."""
    if _target() == "portable":
        return torch.onnx.ops.symbolic("RotaryEmbedding", (x, cos, sin), dtype=x.dtype, shape=x.shape, version=23)
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def cache_write(past: Tensor, update: Tensor, write_index: Tensor) -> Tensor:
    """Write new tokens into a cache along its sequence axis (ONNX TensorScatter-24, linear).

    past: [1, Hkv, C, Dh]. update: [1, Hkv, S, Dh]. write_index: int64 [1], write_index + S <= C.
    Returns the present cache [1, Hkv, C, Dh]; in eager inference it is `past` itself, written in place.
    """
    profile = _target()
    if profile == "portable":
        return torch.onnx.ops.symbolic(
            "TensorScatter",
            (past, update, write_index),
            {"axis": 2, "mode": "linear"},
            dtype=past.dtype,
            shape=past.shape,
            version=24,
        )
    slots = write_index + torch.arange(update.shape[2], device=update.device)
    if profile == "decomposed":
        # ScatterElements; index_copy would become ScatterND between two transpositions of the whole cache.
        return past.scatter(2, slots[None, None, :, None].expand_as(update), update)
    if torch.is_grad_enabled():
        return past.index_copy(2, slots, update)
    return past.index_copy_(2, slots, update)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Grouped-query attention with an explicit mask (ONNX Attention-24; scale 1/sqrt(Dh)).

    query: [1, H, S, Dh]. key, value: [1, Hkv, C, Dh]. mask: bool [1, 1, S, C], True where visible; a row without a
    visible slot gives NaN in some runtimes, so there is always one. Returns [1, H, S, Dh].
    """
    profile = _target()
    if profile == "portable":
        return torch.onnx.ops.symbolic(
            "Attention", (query, key, value, mask), dtype=query.dtype, shape=query.shape, version=24
        )
    if profile == "decomposed":
        # The queries of a group lie under each other, so that keys and values are not copied once per query head.
        grouped = query.reshape(1, key.shape[1], -1, query.shape[3])  # [1, Hkv, H / Hkv * S, Dh]
        scores = grouped @ key.transpose(2, 3) * query.shape[3] ** -0.5
        scores = scores.reshape(1, query.shape[1], -1, key.shape[2])  # [1, H, S, C]
        weights = torch.where(mask, scores, MASKED_SCORE).softmax(dim=-1)
        return (weights.reshape(1, key.shape[1], -1, key.shape[2]) @ value).reshape(query.shape)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)


def tied_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [1, S, D] times an embedding table [V, D] -> [1, S, V] (ONNX Gemm with transB, so the table is stored once)."""
    if _target() is None:
        return F.linear(x, weight)
    flat = x.reshape(x.shape[1], x.shape[2])
    shape = (x.shape[1], weight.shape[0])
    out = torch.onnx.ops.symbolic("Gemm", (flat, weight), {"transB": 1}, dtype=x.dtype, shape=shape, version=13)
    return out.reshape(1, x.shape[1], weight.shape[0])
