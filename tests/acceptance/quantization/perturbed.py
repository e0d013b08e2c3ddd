"""The same model with its weights moved a little: what a long free run does to any small difference."""

from pathlib import Path
from typing import Final

import numpy as np
from onnx import numpy_helper

from wanedge.bundle import Bundle, BundleWriter, Variant
from wanedge_calibration.graph.editing import read_graph, write_graph

AMOUNT: Final = 2.0**-9  # of each weight, at most: about what float16 rounds away, four times


def perturbed(bundle: Bundle, variant: Variant, path: Path, seed: int = 0) -> Bundle:
    """A copy of the bundle at `path` in which each weight matrix of `variant` is multiplied by 1 + noise, evenly within
    AMOUNT. A run of it that leaves the original's tells how the model goes on from a difference, whatever made it.
    """
    random = np.random.default_rng(seed)
    folders = {name: Path(files.graph).parent.as_posix() for name, files in variant.graphs.items()}
    with BundleWriter.extend(bundle, path) as writer:
        for component, folder in folders.items():
            model = read_graph(bundle.graph(component, variant)[0])
            for tensor in model.graph.initializer:
                values = numpy_helper.to_array(tensor)
                if values.dtype == np.float32 and values.ndim > 1:
                    noise = random.uniform(-AMOUNT, AMOUNT, values.shape).astype(np.float32)
                    tensor.CopyFrom(numpy_helper.from_array(values * (1 + noise), tensor.name))
            write_graph(model, writer.directory(folder), component)
        return writer.finish(bundle.manifest.contents)
