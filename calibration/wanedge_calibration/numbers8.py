"""Eight-bit numbers: integers and E4M3 floats, their scales, and weights per output channel."""

from typing import Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from wanedge_calibration.calibrators import Range
from wanedge_runtimes.runtime import Array

Format = Literal["int8", "uint8", "fp8"]

INT8_TOP = 127.0  # symmetric: -128 is left out, as TensorRT does
UINT8_ZERO = 128
FP8_TOP = 448.0  # the largest finite E4M3
FP8 = np.dtype(ml_dtypes.float8_e4m3fn)
# Scales below this would be denormal in fp16, which engines use.
SMALLEST_SCALE = 2.0**-24


def activation_scale(limits: Range, form: Format) -> tuple[NDArray[np.float32], Array]:
    """Scale and zero-point, both scalars, that represent `limits`. Symmetric formats have the zero-point 0."""
    low, high = limits
    if form == "uint8":
        scale = np.float32(max((high - low) / 255.0, SMALLEST_SCALE))
        return np.array(scale), np.array(int(np.clip(np.rint(-low / scale), 0, 255)), np.uint8)
    top = INT8_TOP if form == "int8" else FP8_TOP
    scale = np.float32(max(max(-low, high) / top, SMALLEST_SCALE))
    return np.array(scale), np.zeros((), np.int8 if form == "int8" else FP8)


def quantize_weight(weight: Array, axis: int, form: Format) -> tuple[Array, Array, Array]:
    """Quantized weight, scales and zero-points per channel of `axis`.

    The scales are of the weight's own float type, and what is stored was divided by the scales as they are stored.
    uint8 holds the symmetric integers moved up by 128, for kernels that want unsigned numbers.
    """
    others = tuple(a for a in range(weight.ndim) if a != axis)
    top = FP8_TOP if form == "fp8" else INT8_TOP
    largest = np.abs(weight).max(axis=others).astype(np.float32)
    scale = np.maximum(largest / np.float32(top), SMALLEST_SCALE).astype(weight.dtype)
    scaled = weight.astype(np.float32) / broadcast(scale.astype(np.float32), weight.ndim, axis)
    if form == "fp8":
        return np.clip(scaled, -FP8_TOP, FP8_TOP).astype(FP8), scale, np.zeros(scale.shape, FP8)
    rounded = np.clip(np.rint(scaled), -INT8_TOP, INT8_TOP)
    if form == "int8":
        return rounded.astype(np.int8), scale, np.zeros(scale.shape, np.int8)
    return (rounded + UINT8_ZERO).astype(np.uint8), scale, np.full(scale.shape, UINT8_ZERO, np.uint8)


def broadcast(scale: Array, rank: int, axis: int) -> Array:
    """A per-channel vector in the shape that multiplies a weight of `rank`."""
    shape = [1] * rank
    shape[axis] = -1
    return scale.reshape(shape)
