"""Read a foreign ONNX file, give every axis a size and every input a meaning, and write it with its spec."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.inliner import inline_local_functions

from wanedge_export.component import ExportError
from wanedge_export.importing.description import StateDescription, StepDescription
from wanedge_runtimes.dtypes import spec_dtype
from wanedge_runtimes.ort.session import import_onnxruntime
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.spec import DType, GraphSpec, StateSpec, TensorSpec

OLDEST_OPSET = 20  # older graphs are converted: 8-bit floats came with 19, and later ones keep their own
_OLDEST_IR = 9
_MOST_INLINE = 1 << 30  # bytes; a protobuf ends at two gigabytes
_STANDARD = ("", "ai.onnx")
ROUNDS = 8  # steps that a converted graph is run beside the original
_SAME = 1e-5  # of a tensor's largest value: conversion may change which operator adds up a mean


def read_foreign(step: StepDescription, folder: Path) -> tuple[ModelProto, GraphSpec]:
    """The graph of `step.file` as a component, and its spec. Raises ExportError that says what to write where."""
    assert step.file is not None
    path = folder / step.file
    original = _load(step.component, path)
    model = ModelProto()
    model.CopyFrom(original)
    _require_standard(step.component, model)
    _drop_weights_from_inputs(model)
    _bind_constants(step, model)
    _pin(step, model)
    _name_nodes(model)
    converted = _convert(step.component, model)
    model = converted or model
    _name_nodes(model)
    _move_constants(model)
    spec = spec_of(step, model)
    _record_shapes(model, spec)
    _check(step.component, model)
    if converted is not None:
        _compare(step, original, model, spec)
    return model, spec


def write_model(model: ModelProto, path: Path) -> list[Path]:
    """Write a graph, with its weights in a file beside it when it is large; returns the files."""
    if model.ByteSize() < _MOST_INLINE:
        onnx.save(model, str(path))
        return [path]
    weights = path.with_suffix(".weights")
    onnx.save(model, str(path), save_as_external_data=True, location=weights.name, size_threshold=1024)
    return [path, weights]


def spec_of(step: StepDescription, model: ModelProto) -> GraphSpec:
    """The spec of a pinned graph; outputs whose shapes the graph does not say are run once. Raises ExportError."""
    _complete_outputs(step.component, model)
    inputs = {v.name: v for v in model.graph.input}
    outputs = {v.name: v for v in model.graph.output}
    states = []
    for past, what in step.states.items():
        described = what if isinstance(what, StateDescription) else StateDescription(present=what)
        for name, side, kind in ((past, inputs, "input"), (described.present, outputs, "output")):
            if name not in side:
                raise ExportError(
                    f"{step.component}: states names the {kind} {name!r}, which {step.file} does not have",
                    hint=f"its {kind}s are: {', '.join(side)}",
                )
        a, b = (_tensor(step, v) for v in (inputs[past], outputs[described.present]))
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            raise ExportError(
                f"{step.component}: state {past!r} is {a.dtype} {list(a.shape)} going in, and {described.present!r} "
                f"{b.dtype} {list(b.shape)} coming out",
                hint="a state keeps its shape; if the two belong to different states, correct `states`",
            )
        states.append(
            StateSpec(
                name=past,
                past=past,
                present=described.present,
                dtype=a.dtype,
                shape=tuple(int(d) for d in a.shape),
                initial=described.initial,
                update="swap",
            )
        )
    presents = {s.present for s in states}
    for name in (*step.takes, *step.gives):
        side = inputs if name in step.takes else outputs
        if name not in side:
            kind = "takes" if name in step.takes else "gives"
            raise ExportError(
                f"{step.component}: {kind} names {name!r}, which {step.file} does not have",
                hint=f"it has the {'inputs' if kind == 'takes' else 'outputs'}: {', '.join(side)}",
            )
    for name in inputs:
        if name not in step.takes and name not in step.states:
            raise ExportError(
                f"{step.component}: nothing is said about input {name!r} of {step.file}",
                hint=f"put it under takes, or under states as `{name}: ITS_OUTPUT`, or under constants as "
                f"`{name}: VALUE`; outputs are: {', '.join(outputs)}",
            )
    return GraphSpec(
        component=step.component,
        opset=opset_of(model),
        inputs=tuple(_tensor(step, v) for v in model.graph.input if v.name not in step.states),
        outputs=tuple(_tensor(step, v) for v in model.graph.output if v.name not in presents),
        states=tuple(states),
    )


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that a graph imports."""
    return max((o.version for o in model.opset_import if o.domain in _STANDARD), default=1)


def _load(component: str, path: Path) -> ModelProto:
    if not path.is_file():
        raise ExportError(f"{component}: there is no file {path}", hint="`file` is relative to pipeline.yaml")
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf's and onnx's errors share no base
        raise ExportError(
            f"{component}: {path} is no ONNX file: {' '.join(str(error).split())[:200]}",
            hint="export it again with torch.onnx.export, weights and all",
        ) from error


def _require_standard(component: str, model: ModelProto) -> None:
    if model.functions:
        inlined = inline_local_functions(model)
        model.CopyFrom(inlined)
    for node in _nodes(model.graph):
        if node.domain not in _STANDARD:
            raise ExportError(
                f"{component}: node {node.name!r} is {node.domain}::{node.op_type}, which is no operator of ONNX",
                hint="export the model without optimizing it for a runtime first",
            )
    unused = [o for o in model.opset_import if o.domain not in _STANDARD]
    for each in unused:
        model.opset_import.remove(each)


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                nodes += _nodes(body)
    return nodes


def _drop_weights_from_inputs(model: ModelProto) -> None:
    """Before IR version 4 every weight was listed as an input, too."""
    weights = {i.name for i in model.graph.initializer}
    kept = [v for v in model.graph.input if v.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own: recipes and reports call layers by it."""
    used: set[str] = set()
    for node in model.graph.node:
        base = node.name or f"{node.output[0] or node.output[-1]}/{node.op_type}"
        name, number = base, 1
        while name in used:
            number += 1
            name = f"{base}_{number}"
        node.name = name
        used.add(name)


def _move_constants(model: ModelProto) -> None:
    """Constants of the main graph become initializers, which is where quantization looks for weights."""
    kept = []
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = TensorProto()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _bind_constants(step: StepDescription, model: ModelProto) -> None:
    inputs = {v.name: v for v in model.graph.input}
    for name, value in step.constants.items():
        if name not in inputs:
            raise ExportError(
                f"{step.component}: constants names the input {name!r}, which {step.file} does not have",
                hint=f"its inputs are: {', '.join(inputs)}",
            )
        dtype = helper.tensor_dtype_to_np_dtype(inputs[name].type.tensor_type.elem_type)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        model.graph.input.remove(inputs[name])


def _pin(step: StepDescription, model: ModelProto) -> None:
    """Write sizes in place of named and unknown axes of the inputs, and forget shapes that were inferred before."""
    changed = False
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        asked = step.shapes.get(value.name)
        if asked is not None:
            known = [d.dim_value if d.HasField("dim_value") else None for d in dims]
            if len(asked) != len(dims) or any(k not in (None, a) for k, a in zip(known, asked, strict=False)):
                raise ExportError(
                    f"{step.component}: input {value.name!r} is {_shape_text(value)} in {step.file}, "
                    f"and shapes says {list(asked)}",
                    hint="give the axes that have a size the same size",
                )
        for place, dim in enumerate(dims):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            named = dim.dim_param
            size = asked[place] if asked is not None else step.dims.get(named)
            if size is None:
                how = f"dims: {{{named}: SIZE}}" if named else f"shapes: {{{value.name}: [SIZES]}}"
                raise ExportError(
                    f"{step.component}: axis {place} of input {value.name!r} {_shape_text(value)} has no size",
                    hint=f"add `{how}` to the step; a pipeline runs at one size",
                )
            dim.Clear()
            dim.dim_value = size
            changed = True
    if unknown := sorted(set(step.shapes) - {v.name for v in model.graph.input}):
        raise ExportError(f"{step.component}: shapes names {unknown[0]!r}, which is no input", hint="correct the name")
    if changed:
        del model.graph.value_info[:]
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")


def _shape_text(value: ValueInfoProto) -> str:
    return f"[{', '.join(str(d.dim_value or d.dim_param or '?') for d in value.type.tensor_type.shape.dim)}]"


def _convert(component: str, model: ModelProto) -> ModelProto | None:
    """The graph in a newer opset; None where it is new enough."""
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    before = opset_of(model)
    if before >= OLDEST_OPSET:
        return None
    try:
        converted = onnx.version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own kinds
        raise ExportError(
            f"{component}: opset {before} cannot be converted to {OLDEST_OPSET}: {' '.join(str(error).split())[:300]}",
            hint=f"export the model again with opset_version={OLDEST_OPSET}",
        ) from error
    converted.ir_version = max(converted.ir_version, _OLDEST_IR)
    return converted


def _check(component: str, model: ModelProto) -> None:
    if model.ByteSize() >= _MOST_INLINE:
        return  # the checker takes files only above two gigabytes; ONNX Runtime checks it when it loads
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"{component}: the ONNX checker refuses the graph: {' '.join(str(error).split())[:300]}",
            hint="export the model again; if its axes were pinned, check dims and shapes",
        ) from error


def _complete_outputs(component: str, model: ModelProto) -> None:
    """Give every output its shape: inferred, or seen in a run on zeros."""
    if all(_is_complete(v) for v in model.graph.output):
        return
    try:
        inferred = {v.name: v for v in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output}
    except Exception:  # shape inference is a convenience here: the run below decides
        inferred = {}
    for value in model.graph.output:
        if not _is_complete(value) and value.name in inferred and _is_complete(inferred[value.name]):
            value.CopyFrom(inferred[value.name])
    if all(_is_complete(v) for v in model.graph.output):
        return
    names = [v.name for v in model.graph.output]
    zeros = {v.name: np.zeros(_sizes(v), _numpy(v)) for v in model.graph.input}
    for value, array in zip(model.graph.output, _run(component, model, names, zeros), strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, array.shape))


def _record_shapes(model: ModelProto, spec: GraphSpec) -> None:
    """Write the shape of every inner tensor into the graph, as a run has it: tools that follow cannot infer them all.

    A graph with tensors that no run can hand out, such as sequences, is left as it is.
    """
    named = {v.name for v in model.graph.output}
    inner = [o for node in model.graph.node for o in node.output if o and o not in named]
    watched = ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(ValueInfoProto(name=name) for name in inner)
    inputs = {t.name: np.zeros(t.concrete({}), t.dtype) for t in spec.inputs}
    inputs |= {s.past: np.full(s.shape, s.initial, s.dtype) for s in spec.states}
    try:
        values = _run(spec.component, watched, inner, inputs)
    except ExportError:
        return
    del model.graph.value_info[:]
    for name, value in zip(inner, values, strict=True):
        if isinstance(value, np.ndarray):
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            model.graph.value_info.append(helper.make_tensor_value_info(name, kind, value.shape))


def _is_complete(value: ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    return kind.HasField("shape") and all(d.HasField("dim_value") and d.dim_value > 0 for d in kind.shape.dim)


def _sizes(value: ValueInfoProto) -> tuple[int, ...]:
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)


def _numpy(value: ValueInfoProto) -> np.dtype[np.generic]:
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)


def _tensor(step: StepDescription, value: ValueInfoProto) -> TensorSpec:
    try:
        dtype: DType = spec_dtype(np.dtype(_numpy(value)))
    except KeyError as error:
        kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        raise ExportError(
            f"{step.component}: {value.name!r} is {kind}, which no runtime here exchanges",
            hint="cast it to float32 or int64 inside the model, and export it again",
        ) from error
    return TensorSpec(name=value.name, dtype=dtype, shape=_sizes(value))


def _session(component: str, model: ModelProto) -> object:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
        raise ExportError(
            f"{component}: ONNX Runtime {ort.__version__} cannot load the graph: {' '.join(str(error).split())[:300]}",
            hint="if axes were pinned, check dims and shapes; otherwise export the model again",
        ) from error


def _run(component: str, model: ModelProto, names: list[str], inputs: Mapping[str, Array]) -> list[Array]:
    session = _session(component, model)
    try:
        outputs: list[Array] = session.run(names, dict(inputs))  # type: ignore[attr-defined]
    except Exception as error:
        raise ExportError(
            f"{component}: the graph does not run at these sizes: {' '.join(str(error).split())[:300]}",
            hint="check dims, shapes and constants of the step",
        ) from error
    return outputs


def _compare(step: StepDescription, original: ModelProto, model: ModelProto, spec: GraphSpec) -> None:
    """Run the converted graph beside the original, each on its own state. Raises ExportError where they differ."""
    names = [v.name for v in model.graph.output]
    reference = ModelProto()
    reference.CopyFrom(original)
    ours, theirs = _session(step.component, model), _session(step.component, reference)
    constant = {n: np.asarray(v, _numpy(_named(original, n))) for n, v in step.constants.items()}
    state = [{s.past: np.full(s.shape, s.initial, s.dtype) for s in spec.states} for _ in range(2)]
    random = np.random.default_rng(0)
    for round_number in range(ROUNDS):
        inputs = {t.name: _noise(t, random) for t in spec.inputs}
        results = []
        for session, states, extra in ((ours, state[0], {}), (theirs, state[1], constant)):
            values = session.run(names, {**inputs, **states, **extra})  # type: ignore[attr-defined]
            results.append(dict(zip(names, values, strict=True)))
            states |= {s.past: results[-1][s.present] for s in spec.states}
        for name in names:
            a, b = (result[name].astype(np.float64) for result in results)
            worst = float(np.abs(a - b).max(initial=0)) if np.isfinite(b).all() else 0.0
            if a.shape != b.shape or worst > _SAME * max(float(np.abs(b).max(initial=0)), 1e-3):
                raise ExportError(
                    f"{step.component}: after conversion to opset {OLDEST_OPSET} {name!r} differs by {worst:.2g} "
                    f"in step {round_number}",
                    hint=f"export the model again with opset_version={OLDEST_OPSET}",
                )


def _named(model: ModelProto, name: str) -> ValueInfoProto:
    found: ValueInfoProto = {v.name: v for v in model.graph.input}[name]
    return found


def _noise(tensor: TensorSpec, random: np.random.Generator) -> Array:
    shape = tensor.concrete({})
    if tensor.dtype in ("float32", "float16"):
        return random.standard_normal(shape).astype(tensor.dtype)
    if tensor.dtype == "uint8":
        return random.integers(0, 256, shape, dtype=np.uint8)
    return np.zeros(shape, tensor.dtype)
