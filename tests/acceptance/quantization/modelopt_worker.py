"""Runs in ModelOpt's own environment: quantizes a graph and prints what it took as JSON.

out/modelopt/venv/bin/python -I modelopt_worker.py graph.onnx samples.npz quantized.onnx entropy [LAYER ...]

samples.npz holds `{step}/{input}` for every step and input. Layers are regular expressions of nodes' names; without
them ModelOpt chooses. Nothing of wanedge is imported.
"""

import importlib
import json
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np


class Samples:
    """The reader that ONNX Runtime's calibrators and ModelOpt ask: one step's inputs after another."""

    def __init__(self, path: str) -> None:
        with np.load(path) as arrays:
            steps: dict[int, dict[str, Any]] = {}
            for key in arrays.files:
                step, _, name = key.partition("/")
                steps.setdefault(int(step), {})[name] = arrays[key]
        self._steps = [steps[number] for number in sorted(steps)]
        self.rewind()

    def get_first(self) -> dict[str, Any]:
        return self._steps[0]

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)

    def rewind(self) -> None:
        self._left = iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)


def main() -> None:
    """Print {"version", "onnxruntime", "cpu_s", "wall_s"}."""
    graph, samples, output, method, *layers = sys.argv[1:]
    quantize = importlib.import_module("modelopt.onnx.quantization").quantize
    reader = Samples(samples)
    wall, cpu = time.perf_counter(), time.process_time()
    quantize(
        graph,
        quantize_mode="int8",
        calibration_method=method,
        calibration_data_reader=reader,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",  # what is judged is the Q/DQ, on the CPU
        nodes_to_quantize=layers or None,
        output_path=output,
        log_level="WARNING",
    )
    spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    print(json.dumps({"version": version("nvidia-modelopt"), "onnxruntime": version("onnxruntime"), **spent}))


if __name__ == "__main__":
    main()
