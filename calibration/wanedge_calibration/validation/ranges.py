"""Compare the scales of quantized activations with what calibration saw. See `scale_differences`."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from wanedge_calibration.eight_bits import (
    FP8,
    FP8_TOP,
    INT8_TOP,
    KEPT,
    Format,
    Method,
    Range,
    activation_scale,
    calibrate_range,
    represented_db,
)
from wanedge_calibration.graph.trace_back import Quantizer
from wanedge_calibration.quantize import Source
from wanedge_calibration.recipe import Form

_METHODS: tuple[Method, ...] = ("max", "percentile", "entropy", "mse")
# A scale is stored in float16 at least, which keeps 11 bits; the recipe's own arithmetic repeats exactly.
_ROUNDING = 2.0**-10
# Ranges of other tools: between the narrowest and the widest that a calibrator here would choose, and a little more.
_SLACK = 1.1
# Rounding and clipping together must leave this much of what calibration saw, whatever chose the range.
LEAST_RANGE_DB = 15.0


def scale_differences(
    source: Source,
    component: str,
    quantizers: Sequence[Quantizer],
    form: Form,
    expected: Callable[[str], Range] | None,
) -> Iterator[tuple[str, str]]:
    """Scales that calibration does not explain: (node, what is wrong).

    expected: the range of a tensor by the variant's recipe, when the recipe used this calibration; then scale and
    zero-point must be exactly the recipe's. Without it the range must be one that some calibrator would choose.
    Integers must keep LEAST_RANGE_DB of the calibration's histogram in either case.
    """
    for quantizer in quantizers:
        seen = source.recorded(component, quantizer.tensor)
        if seen is None:
            yield quantizer.node, f"quantizes {quantizer.tensor!r}, which calibration did not see"
            continue
        histogram, symmetric = source.calibration.recording.overall(component, seen), form == "tensorrt"
        low, high = covered(quantizer)
        if expected is not None:
            scale, zero = activation_scale(expected(quantizer.tensor), _format(quantizer))
            if abs(float(quantizer.scale) / float(scale) - 1) > _ROUNDING:
                yield quantizer.node, f"has scale {float(quantizer.scale):.6g}, the recipe's is {float(scale):.6g}"
                continue
            if float(quantizer.zero) != float(zero):
                yield quantizer.node, f"has zero-point {float(quantizer.zero):g}, the recipe's is {float(zero):g}"
                continue
        else:
            spans = [_span(calibrate_range(histogram, m, KEPT, symmetric), symmetric) for m in _METHODS]
            if not min(spans) / _SLACK <= high - low <= max(spans) * _SLACK:
                yield (
                    quantizer.node,
                    f"covers {low:.4g} to {high:.4g}; what calibration saw asks for a span of "
                    f"{min(spans):.4g} to {max(spans):.4g}",
                )
                continue
        if _format(quantizer) != "fp8":
            kept = represented_db(histogram, (low, high), symmetric=False)
            if kept < LEAST_RANGE_DB:
                yield (
                    quantizer.node,
                    f"covers {low:.4g} to {high:.4g}, which keeps {kept:.1f} dB of what calibration saw",
                )


def covered(quantizer: Quantizer) -> Range:
    """The range of values that a quantizer represents without clipping."""
    scale, zero = float(quantizer.scale), float(quantizer.zero)
    kind = _format(quantizer)
    if kind == "uint8":
        return -zero * scale, (255 - zero) * scale
    top = FP8_TOP if kind == "fp8" else INT8_TOP
    return -top * scale, top * scale


def _format(quantizer: Quantizer) -> Format:
    if quantizer.zero.dtype == FP8:
        return "fp8"
    return "uint8" if quantizer.zero.dtype == np.uint8 else "int8"


def _span(limits: Range, symmetric: bool) -> float:
    return 2 * max(-limits[0], limits[1]) if symmetric else limits[1] - limits[0]
