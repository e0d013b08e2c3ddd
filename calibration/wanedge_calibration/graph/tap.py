"""Make a graph show tensors from inside: the same graph with more outputs."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, helper, shape_inference

from wanedge_calibration.errors import CalibrationError
from wanedge_calibration.graph.storage import write_graph
from wanedge_runtimes.spec import Dim, DType, GraphSpec, TensorSpec

_DTYPES: dict[int, DType] = {1: "float32", 2: "uint8", 3: "int8", 7: "int64", 9: "bool", 10: "float16"}


def tap_graph(source: Path, spec: GraphSpec, tensors: Sequence[str], target: Path) -> GraphSpec:
    """Write `source` to `target` with `tensors` as further outputs; returns its spec.

    A tensor that is an input, a state or an output already is left out. Raises CalibrationError when the shape of a
    tensor cannot be told.
    """
    model = onnx.load(str(source))
    known = {t.name for t in (*spec.inputs, *spec.outputs)} | {s.past for s in spec.states}
    known |= {s.present for s in spec.states}
    wanted = [name for name in tensors if name not in known]
    found = value_types(model)
    added: list[TensorSpec] = []
    for name in wanted:
        if name not in found:
            raise CalibrationError(
                f"{spec.component}: the shape of tensor {name!r} cannot be inferred", hint="export the bundle again"
            )
        added.append(TensorSpec(name=name, dtype=found[name][0], shape=found[name][1]))
        model.graph.output.append(helper.make_tensor_value_info(name, _code(found[name][0]), list(found[name][1])))
    write_graph(model, target.parent, target.stem)
    return spec.model_copy(update={"outputs": (*spec.outputs, *added)})


def value_types(model: ModelProto) -> dict[str, tuple[DType, tuple[Dim, ...]]]:
    """dtype and shape of every tensor that has a known element type and rank."""
    inferred = shape_inference.infer_shapes(model, strict_mode=False, data_prop=True).graph
    types: dict[str, tuple[DType, tuple[Dim, ...]]] = {}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        tensor = value.type.tensor_type
        shape = tuple(d.dim_value or d.dim_param for d in tensor.shape.dim)
        if tensor.elem_type in _DTYPES and all(shape):
            types[value.name] = (_DTYPES[tensor.elem_type], shape)
    return types


def _code(dtype: DType) -> int:
    return next(code for code, name in _DTYPES.items() if name == dtype)
