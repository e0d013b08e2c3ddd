"""Small foreign components, as other people export them, and the files that describe pipelines of them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

HOP, HIDDEN = 64, 16
GATE = {
    "name": "gate",
    "inputs": {"noisy": {"type": "audio", "sample_rate": 8000}},
    "outputs": {"clean": {"type": "audio", "sample_rate": 8000}},
    "steps": [
        {
            "component": "gate",
            "file": "gate.onnx",
            "takes": {"x": "noisy"},
            "gives": {"y": "clean"},
            "states": {"h": "h_out"},
        }
    ],
}


def write_gate(folder: Path, opset: int = 11, seed: int = 0) -> Path:
    """A recurrent gain over blocks of HOP samples: x [1, HOP], h [1, 1, HIDDEN] -> y, h_out. Weights as inputs, too."""
    random = np.random.default_rng(seed)

    def weights(*shape: int) -> Any:
        return (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    constants = {
        "W": weights(1, 3 * HIDDEN, HOP),
        "R": weights(1, 3 * HIDDEN, HIDDEN),
        "out.weight": weights(HIDDEN, HOP),
        "shape": np.array([1, HIDDEN], np.int64),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["x"], ["sequence"], name="unsqueeze", axes=[0]),
        helper.make_node("GRU", ["sequence", "W", "R", "", "", "h"], ["", "h_out"], name="gru", hidden_size=HIDDEN),
        helper.make_node("Reshape", ["h_out", "shape"], ["flat"], name="flat"),
        helper.make_node("MatMul", ["flat", "out.weight"], ["logits"], name="out/MatMul"),
        helper.make_node("Sigmoid", ["logits"], ["gain"], name="gain"),
        helper.make_node("Mul", ["x", "gain"], ["y"], name="apply"),
    ]
    inputs = {"x": [1, HOP], "h": [1, 1, HIDDEN]}
    graph = helper.make_graph(
        nodes,
        "gate",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
            for n, s in {"y": [1, HOP], "h_out": [1, 1, HIDDEN]}.items()
        ],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    onnx.save(model, str(folder / "gate.onnx"))
    return folder / "gate.onnx"


def write_delay(path: Path, batch: str | None = "batch", growth: float = 1.0, domain: str = "") -> Path:
    """y = x * gain + past, present = growth * (past + x): axes without sizes, a scalar input that never changes."""
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["scaled"], name="scale"),
        helper.make_node("Add", ["scaled", "past"], ["y"], name="add"),
        helper.make_node("Add", ["past", "x"], ["sum"], name="sum"),
        helper.make_node("Mul", ["sum", "growth"], ["present"], name="grow", domain=domain),
    ]
    dims = [batch, 4]
    graph = helper.make_graph(
        nodes,
        "delay",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, dims),
            helper.make_tensor_value_info("past", TensorProto.FLOAT, dims),
            helper.make_tensor_value_info("gain", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n in ("y", "present")],
        [numpy_helper.from_array(np.array(growth, np.float32), "growth")],
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def write_pipeline(folder: Path, description: object, name: str = "pipeline.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    return path
