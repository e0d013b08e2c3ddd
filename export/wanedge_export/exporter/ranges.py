"""Which tensors of a graph come near the end of float16's range? Measured on the float32 graph, in ONNX Runtime."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from wanedge_export.component import Component
from wanedge_export.exporter.reference import Dims, roll_out
from wanedge_runtimes.ort.session import LOG_FATAL_ONLY, import_onnxruntime
from wanedge_runtimes.spec import GraphSpec

# A quarter of float16's largest number: real media may be some times louder than the inputs that were measured.
LIMIT = float(np.finfo(np.float16).max) / 4
STEPS = 4


def wide_tensors(component: Component, model: ir.Model, spec: GraphSpec, dims: Sequence[Dims]) -> dict[str, float]:
    """Names of float32 tensors whose largest magnitude exceeds LIMIT, with that magnitude.

    Runs the graph on the component's sample inputs and states; not finite counts as infinite.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = LOG_FATAL_ONLY
    session = ort.InferenceSession(_with_all_outputs(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    largest: dict[str, float] = {}
    state = component.init_state()
    for step in roll_out(component, dims, STEPS):
        feeds = {name: tensor.numpy() for name, tensor in step.inputs.items()}
        feeds |= {s.past: state[s.name].numpy() for s in spec.states}
        state = step.state
        for name, values in zip(names, session.run(names, feeds), strict=True):
            if values.dtype == np.float32 and values.size:
                top = float(np.abs(values).max())
                largest[name] = max(largest.get(name, 0.0), top if np.isfinite(top) else float("inf"))
    return {name: top for name, top in largest.items() if top > LIMIT}


def _with_all_outputs(model: ir.Model) -> bytes:
    proto = ir.to_proto(model)
    known = {output.name for output in proto.graph.output}
    for value in proto.graph.value_info:
        if value.name not in known and value.type.tensor_type.elem_type == ir.DataType.FLOAT.value:
            proto.graph.output.append(value)
    content: bytes = proto.SerializeToString()
    return content
