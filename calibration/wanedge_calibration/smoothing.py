"""Move outlier channels of activations into the weights that read them, through the norm in front.

x' = x / s, W' = s W with s_k = max|x_k|^a / max|W_k|^(1-a) (SmoothQuant, equation 4). The division costs nothing: it is
folded into the weight of the RMS or layer norm that makes x. Only where every reader of x is a site.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from wanedge_calibration.graph.sites import Site

# Below this ratio of the largest channel to the median one there is nothing to smooth.
OUTLIER_RATIO = 8.0

_NORMS = {"RMSNormalization": (1,), "LayerNormalization": (1, 2)}  # inputs that scale with the output


def smooth(
    model: ModelProto, sites: list[Site], channels: Mapping[str, NDArray[np.float32]], strength: float
) -> dict[str, NDArray[np.float32]]:
    """In place; returns tensor -> s [K] for every tensor that was smoothed.

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
