"""From pipeline.yaml to a bundle: read every component, fit the steps together, run them, write."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from pydantic import ValidationError

from wanedge.benchmark import synthetic_inputs
from wanedge.bundle import Bundle, BundleWriter, Contents, GraphFiles, Provenance, Variant
from wanedge.pipeline.config import Pipeline, Port, Step, tensor_faults
from wanedge.pipeline.streamer import PipelineModel, PipelineStreamer
from wanedge_export.component import ExportError
from wanedge_export.importing.description import Description, PortDescription, StepDescription
from wanedge_export.importing.foreign import read_foreign, write_model
from wanedge_export.importing.transforms import write_transform
from wanedge_runtimes.errors import InputError, WanEdgeError
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.spec import GraphSpec, TensorSpec

TRIAL_UNITS = 50  # that the whole pipeline runs on noise before it is written
_FOLDER = "graphs/fp32"
Log = Callable[[str], None]
Parts = dict[str, tuple[onnx.ModelProto, GraphSpec]]


def import_pipeline(
    path: Path,
    output: Path,
    *,
    units: int = TRIAL_UNITS,
    overwrite: bool = False,
    command: str = "wanedge import",
    log: Log = lambda _: None,
) -> Bundle:
    """Read pipeline.yaml at `path` and write its bundle; nothing is left at `output` when it raises.

    units: that are run on noise: every output must stay finite, and probabilities between 0 and 1.

    Raises InputError (the file), ExportError (a component), BundleError.
    """
    description = Description.read(path)
    parts: Parts = {}
    for step in description.steps:
        log(f"{step.component}: {step.file or step.torch or step.transform}")
        if step.component in parts:
            raise InputError(f"component {step.component!r} has two steps", hint="give the second one another name")
        parts[step.component] = _part(step, path.parent, log)
    pipeline = _assemble(description, parts, path)
    with BundleWriter(output, overwrite=overwrite) as writer:
        folder = writer.directory(_FOLDER)
        files = {}
        for component, (model, _) in parts.items():
            graph, *data = (f"{_FOLDER}/{f.name}" for f in write_model(model, folder / f"{component}.onnx"))
            files[component] = GraphFiles(graph=graph, data=tuple(data), spec="portable")
        log(f"running {units} units")
        _run(pipeline, parts, folder, units)
        variant = Variant(name="fp32", precision="fp32", runtime="onnxruntime", target="cpu", graphs=files)
        contents = Contents(
            made=Provenance.now(command),
            model=pipeline,
            weights="trained",
            weights_note=description.weights_note or f"from {', '.join(_sources(description))}",
            components={component: {"portable": spec} for component, (_, spec) in parts.items()},
            variants=(variant,),
        )
        return writer.finish(contents)


def _sources(description: Description) -> list[str]:
    return [Path(s.file or str(s.torch)).name for s in description.steps if s.transform is None] or ["transforms"]


def _part(step: StepDescription, folder: Path, log: Log) -> tuple[onnx.ModelProto, GraphSpec]:
    if step.transform is not None:
        return write_transform(step)
    if step.file is not None:
        return read_foreign(step, folder)
    return _export(step, folder, log)


def _export(step: StepDescription, folder: Path, log: Log) -> tuple[onnx.ModelProto, GraphSpec]:
    """Export a torch component and pin its axes. Its own spec says the states."""
    component = _torch_component(step, folder)
    from wanedge_export.exporter import export_component

    sizes = [dict(step.dims)] if step.dims else None
    with TemporaryDirectory(prefix="wanedge-import-") as scratch:
        graph = export_component(component, Path(scratch), dims=sizes, log=log)
        model = onnx.load(str(graph.path))
    spec = graph.spec
    if spec.component != step.component:
        raise InputError(
            f"step {step.component!r} exports a component that calls itself {spec.component!r}",
            hint=f"write component: {spec.component}, or rename it in spec()",
        )
    if missing := [axis for axis in spec.dynamic_dims if axis not in step.dims]:
        raise ExportError(
            f"{step.component}: axis {missing[0]!r} has no size",
            hint=f"add `dims: {{{missing[0]}: SIZE}}` to the step; a pipeline runs at one size",
        )
    _pin_all(model, step.dims)
    return model, spec.model_copy(
        update={side: tuple(_pinned(t, step.dims) for t in getattr(spec, side)) for side in ("inputs", "outputs")}
    )


def _pinned(tensor: TensorSpec, dims: dict[str, int]) -> TensorSpec:
    return tensor.model_copy(update={"shape": tensor.concrete(dims)})


def _pin_all(model: onnx.ModelProto, dims: dict[str, int]) -> None:
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in dims:
                dim.dim_value = dims[dim.dim_param]


def _torch_component(step: StepDescription, folder: Path) -> Any:
    assert step.torch is not None
    file, _, name = step.torch.rpartition(":")
    path = folder / file
    if not file or not path.is_file():
        raise InputError(
            f"{step.component}: torch: {step.torch!r} names no file",
            hint='write "FILE.py:NAME", relative to pipeline.yaml',
        )
    from wanedge_export.component import Component

    module_spec = importlib.util.spec_from_file_location(f"wanedge_import_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses and pickle look a class's module up there
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        module_spec.loader.exec_module(module)
        made = getattr(module, name)
        component = made if isinstance(made, Component) and not isinstance(made, type) else made()
    except WanEdgeError:
        raise
    except Exception as error:
        raise ExportError(
            f"{step.component}: {step.torch} failed: {type(error).__name__}: {error}",
            hint="it must be a component, or a class or function that makes one without arguments",
        ) from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    if not isinstance(component, Component):
        raise ExportError(
            f"{step.component}: {step.torch} gives a {type(component).__name__}, which is no component",
            hint="it needs spec(), init_state(), sample_inputs() and forward(): docs/bring-your-own-component.md",
        )
    return component.eval() if hasattr(component, "eval") else component


def _assemble(description: Description, parts: Parts, path: Path) -> Pipeline:
    specs = {component: spec for component, (_, spec) in parts.items()}
    steps = tuple(
        Step(component=s.component, takes=s.takes, gives=s.gives, fixed=s.transform is not None)
        for s in description.steps
    )
    hint = f"correct takes and gives in {path.name}"
    try:
        inputs = {name: _input(name, port, description, specs) for name, port in description.inputs.items()}
        outputs = {name: _output(name, port, description, specs) for name, port in description.outputs.items()}
        unit_ms = _unit_ms(description, {**inputs, **outputs})
        pipeline = Pipeline(name=description.name, unit_ms=unit_ms, inputs=inputs, outputs=outputs, steps=steps)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {message}", hint=hint) from error
    except ValueError as error:
        raise InputError(f"{path}: {error}", hint=hint) from error
    if fault := next(tensor_faults(pipeline, specs), None):
        raise InputError(f"{path}: {fault}", hint=hint)
    return pipeline


def _input(name: str, port: PortDescription, description: Description, specs: dict[str, GraphSpec]) -> Port:
    for step in description.steps:
        for graph_input, value in step.takes.items():
            if value == name:
                return _port(port, _find(specs[step.component], graph_input, "inputs"))
    raise ValueError(f"no step takes the input {name!r}")


def _output(name: str, port: PortDescription, description: Description, specs: dict[str, GraphSpec]) -> Port:
    for step in description.steps:
        for graph_output, value in step.gives.items():
            if value == name:
                return _port(port, _find(specs[step.component], graph_output, "outputs"))
    raise ValueError(f"no step gives the output {name!r}")


def _find(spec: GraphSpec, name: str, side: str) -> TensorSpec:
    tensors = {t.name: t for t in getattr(spec, side)}
    if name not in tensors:
        raise ValueError(f"{spec.component} has no {side.removesuffix('s')} {name!r}; it has: {', '.join(tensors)}")
    found: TensorSpec = tensors[name]
    return found


def _port(port: PortDescription, tensor: TensorSpec) -> Port:
    return Port(type=port.type, dtype=tensor.dtype, shape=tensor.concrete({}), sample_rate=port.sample_rate)


def _unit_ms(description: Description, ports: dict[str, Port]) -> float:
    if description.unit_ms is not None:
        return description.unit_ms
    for port in ports.values():
        if port.sample_rate is not None:
            return port.size / port.sample_rate * 1e3
    raise ValueError("no audio says how long a unit lasts: add `unit_ms`")


def _run(pipeline: Pipeline, parts: Parts, folder: Path, units: int) -> None:
    """Run the whole pipeline on noise. Raises ExportError for what is not finite or no probability."""
    runtime = open_runtime("onnxruntime", RuntimeOptions(threads=1))
    graphs = {c: runtime.load(folder / f"{c}.onnx", spec) for c, (_, spec) in parts.items()}
    streamer = PipelineStreamer(PipelineModel(pipeline, graphs))
    for index in range(units):
        try:
            outputs = streamer.respond(synthetic_inputs(pipeline, index, 0)).outputs
        except WanEdgeError as error:
            raise ExportError(f"{pipeline.name}: {error.what}", hint=error.hint) from error
        for name in pipeline.ports("probabilities", "outputs"):
            low, high = float(np.min(outputs[name])), float(np.max(outputs[name]))
            if low < 0 or high > 1:
                raise ExportError(
                    f"output {name!r} holds {low:g} to {high:g} in unit {index}, and probabilities are 0 to 1",
                    hint="give it type: tensor, or put the sigmoid or softmax into the model",
                )
    for component, state in streamer.states():
        for tensor, values in state.snapshot().items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ExportError(
                    f"{component}: state {tensor!r} holds NaN or infinity after {units} units of noise",
                    hint="a state that grows without bound cannot stream; look at how it is updated",
                )
