"""Eight-bit numbers: ranges from histograms, scales and stored weights, and smoothing of outlier channels.

All four calibrators give (low, high) with low <= 0 <= high, because zero must be exact (padding, masked slots).
Smoothing: x' = x / s, W' = s W with s_k = max|x_k|^a / max|W_k|^(1-a) (SmoothQuant, equation 4). The division costs
nothing: it is folded into the weight of the norm that computes x, where every reader of x is a site.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from wanedge_calibration.errors import CalibrationError
from wanedge_calibration.graph.sites import Site
from wanedge_calibration.rollout.recording import Histogram
from wanedge_runtimes.runtime import Array

Range = tuple[float, float]
Method = Literal["max", "percentile", "entropy", "mse"]
Float64 = NDArray[np.float64]

LEVELS = 256  # of an 8-bit tensor
KEPT = 99.999  # percent of the values that the percentile calibrator represents
_CLIPS = np.linspace(0.3, 1.0, 57)  # candidate ranges as a part of the largest value
_ENTROPY_LEVELS = 128  # magnitudes of a symmetric 8-bit tensor


def calibrate_range(histogram: Histogram, method: Method, kept: float = KEPT, symmetric: bool = True) -> Range:
    """The range to quantize a tensor with. Raises CalibrationError for a tensor that saw nothing.

    kept: percent, for "percentile". symmetric: whether the format has no zero-point, which "mse" must know.
    """
    if not histogram.total:
        raise CalibrationError("a tensor saw no values", hint="calibrate with clips that reach every component")
    whole = (min(histogram.low, 0.0), max(histogram.high, 0.0))
    methods: dict[Method, Callable[[], float]] = {
        "max": lambda: max(-whole[0], whole[1]),
        "percentile": lambda: _percentile(histogram, kept),
        "entropy": lambda: _entropy(histogram),
        "mse": lambda: _mse(histogram, whole, symmetric),
    }
    limit = methods[method]()
    return max(whole[0], -limit), min(whole[1], limit)


def represented_db(histogram: Histogram, limits: Range, symmetric: bool = True) -> float:
    """Signal over the error of rounding to 8-bit integers within `limits` and clipping beyond, dB."""
    values, weight = _values(histogram)
    error = _square_error(values, weight, *_whole(limits, symmetric), symmetric)
    return float(10 * np.log10(max(float(np.sum(weight * values**2)), 1e-30) / max(error, 1e-30)))


def magnitudes(histogram: Histogram) -> tuple[Float64, Float64]:
    """Counts of |x| and the bins' centres, from zero upwards."""
    half = histogram.counts.size // 2
    counts = (histogram.counts[half:] + histogram.counts[:half][::-1]).astype(np.float64)
    centres: Float64 = (np.arange(half, dtype=np.float64) + 0.5) * (histogram.span / half)
    return counts, centres


def _largest(histogram: Histogram) -> float:
    return max(-histogram.low, histogram.high, 0.0)


def _percentile(histogram: Histogram, kept: float) -> float:
    counts, centres = magnitudes(histogram)
    place = int(np.searchsorted(np.cumsum(counts), counts.sum() * kept / 100))
    step = centres[0] * 2
    return min(float(centres[min(place, centres.size - 1)] + step / 2), _largest(histogram))


def _mse(histogram: Histogram, whole: Range, symmetric: bool) -> float:
    """The limit with the least mean square error of rounding and clipping together."""
    values, weight = _values(histogram)
    largest = _largest(histogram)
    best, least = largest, np.inf
    for part in _CLIPS[::-1]:
        limit = largest * part
        clipped = _whole((max(whole[0], -limit), min(whole[1], limit)), symmetric)
        error = _square_error(values, weight, *clipped, symmetric)
        if error < least:
            best, least = limit, error
    return float(best)


def _values(histogram: Histogram) -> tuple[Float64, Float64]:
    """The middles of the bins that hold anything, and their counts."""
    used = histogram.counts > 0
    return ((histogram.edges[:-1] + histogram.edges[1:]) / 2)[used], histogram.counts[used].astype(np.float64)


def _whole(limits: Range, symmetric: bool) -> Range:
    """Range that a format without zero-point covers when it must cover `limits`."""
    limit = max(-limits[0], limits[1])
    return (-limit, limit) if symmetric else limits


def _square_error(values: Float64, weight: Float64, low: float, high: float, symmetric: bool) -> float:
    step = max(high - low, 1e-30) / (LEVELS - 2 if symmetric else LEVELS - 1)
    # A value rounds to anywhere within a step, step^2 / 12 on average; one below half a step to zero, which in tensors
    # with heavy tails most do.
    rounded = np.where(np.abs(values) < step / 2, values**2, step**2 / 12)
    over = np.clip(values - high, 0, None) + np.clip(low - values, 0, None)
    return float(np.sum(weight * np.where(over > 0, over**2, rounded)))


def _entropy(histogram: Histogram) -> float:
    """The limit whose clipped and coarsened distribution loses least (Kullback-Leibler) of the original's."""
    counts, centres = magnitudes(histogram)
    step = centres[0] * 2
    top = min(int(np.ceil(_largest(histogram) / step)), counts.size)
    if top <= _ENTROPY_LEVELS:
        return _largest(histogram)
    best, least = top, np.inf
    for stop in range(_ENTROPY_LEVELS, top + 1, 4):
        reference = counts[:stop].copy()
        reference[-1] += counts[stop:].sum()
        loss = _divergence(reference, _coarsened(counts[:stop]))
        if loss < least:
            best, least = stop, loss
    return float(min(best * step, _largest(histogram)))


def _coarsened(counts: Float64) -> Float64:
    """Counts spread evenly over the occupied bins of each of the quantized levels."""
    level = np.arange(counts.size) * _ENTROPY_LEVELS // counts.size
    sums = np.bincount(level, counts, _ENTROPY_LEVELS)
    occupied = np.bincount(level, counts > 0, _ENTROPY_LEVELS)
    share = np.divide(sums, occupied, out=np.zeros_like(sums), where=occupied > 0)
    return np.where(counts > 0, share[level], 0.0)


def _divergence(p: Float64, q: Float64) -> float:
    p, q = p / p.sum(), q / max(q.sum(), 1e-30)
    both = p > 0
    return float(np.sum(p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))))


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


# Below this ratio of the largest channel to the median one there is nothing to smooth.
OUTLIER_RATIO = 8.0

_NORMS = {"RMSNormalization": (1,), "LayerNormalization": (1, 2)}  # inputs that scale with the output


def smooth(
    model: ModelProto, sites: list[Site], channels: Mapping[str, NDArray[np.float32]], strength: float
) -> dict[str, NDArray[np.float32]]:
    """Smooth in place; return tensor -> s [K] for every tensor that was smoothed.

    channels: per tensor the largest magnitude of each channel, from the calibration.
    """
    initializers = {i.name: i for i in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    done: dict[str, NDArray[np.float32]] = {}
    for tensor in dict.fromkeys(site.reads for site in sites):
        norm, readers = makers.get(tensor), [s for s in sites if s.reads == tensor]
        all_readers = [n for n in model.graph.node if tensor in n.input]
        largest = channels.get(tensor)
        if norm is None or norm.op_type not in _NORMS or largest is None or len(all_readers) != len(readers):
            continue
        if any(site.op != "MatMul" for site in readers) or not _has_outliers(largest):
            continue
        matrices = [numpy_helper.to_array(initializers[s.weight]) for s in readers]
        of_weights = np.max([np.abs(m).max(axis=1) for m in matrices], axis=0)
        s = np.maximum(largest, 1e-5) ** strength / np.maximum(of_weights, 1e-5) ** (1 - strength)
        s = (s / np.exp(np.log(s).mean())).astype(np.float32)
        for site, matrix in zip(readers, matrices, strict=True):
            initializers[site.weight].CopyFrom(numpy_helper.from_array(matrix * s[:, None], site.weight))
        for place in _NORMS[norm.op_type]:
            if len(norm.input) > place and norm.input[place]:
                _divide(model, norm.input, place, s)
        done[tensor] = s
    return done


def _has_outliers(largest: NDArray[np.float32]) -> bool:
    return bool(largest.max() > OUTLIER_RATIO * max(float(np.median(largest)), 1e-12))


def _divide(model: ModelProto, inputs: object, place: int, s: NDArray[np.float32]) -> None:
    """Divide a norm's parameter, in a copy of its own: equal norms share one initializer."""
    name = inputs[place]  # type: ignore[index]
    values = next(numpy_helper.to_array(i) for i in model.graph.initializer if i.name == name)
    own = f"{name}.smoothed.{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array((values / s).astype(np.float32), own))
    inputs[place] = own  # type: ignore[index]
