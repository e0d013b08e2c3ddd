"""One component, quantized to INT8 from the same steps by wanedge and by ModelOpt, and both files judged alike."""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from tests.acceptance.quantization import modelopt_worker
from tests.acceptance.quantization.feeds import Step, forced, replayed, signal_over_error
from wanedge.bundle import Bundle
from wanedge_calibration.graph.editing import mark_outputs, read_graph, write_graph
from wanedge_calibration.graph.placement import placement_faults
from wanedge_calibration.graph.sites import attribute, find_sites, weights
from wanedge_calibration.quantize import Source, default_recipe, quantized_graph
from wanedge_calibration.recipe import Recipe
from wanedge_calibration.rollout.calibrate import float_variant
from wanedge_calibration.rollout.recording import Calibration, Key, Recording, model_digest
from wanedge_runtimes.errors import ExecutionError, WanEdgeError
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.spec import GraphSpec

WEIGHTED: Final = ("MatMul", "Gemm", "Conv", "ConvTranspose")


@dataclass(frozen=True)
class Request:
    """Request to ModelOpt. method: "entropy", its default, or "max". layers: nodes; its own choice if empty."""

    name: str
    method: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """A quantized file. cpu_s, wall_s: calibration and quantization together, after the imports."""

    graph: Path
    cpu_s: float
    wall_s: float
    about: str


@dataclass(frozen=True)
class Judged:
    """Judgement of a quantized file.

    forced_db, free_db: signal over error of the outputs against fp32 on held-out clips, with the state of fp32 before
        each step, and with its own; None where ONNX Runtime refuses the file, and then `refused` says why.
    layers: weighted operators of which both inputs are 8 bits wide, by operator. of: all with a constant weight.
    other_readers: what else reads a DQ, by operator. faults: `placement_faults` by kind, names left out.
    bytes, folded_bytes: of the files as written, and with constant weights behind a Q stored as 8 bits.
    """

    forced_db: float | None
    free_db: float | None
    refused: str
    layers: dict[str, int]
    of: dict[str, int]
    other_readers: dict[str, int]
    faults: dict[str, int]
    bytes: int
    folded_bytes: int


def by_wanedge(bundle: Bundle, component: str, steps: Sequence[Step], folder: Path) -> Made:
    """Calibrate on the steps, and write the tensorrt form with the default recipe."""
    wall, cpu = perf_counter(), process_time()
    variant = float_variant(bundle)
    recording = recording_of(bundle, component, steps, folder)
    source = Source(bundle, variant, Calibration(model_digest(bundle, variant), recording), "")
    graph, *_ = write_graph(quantized_graph(source, component, _recipe(source, component)), folder, "wanedge")
    spent = process_time() - cpu, perf_counter() - wall
    return Made(graph, *spent, "wanedge, tensorrt form, mse")


def by_modelopt(
    bundle: Bundle, component: str, steps: Sequence[Step], folder: Path, python: Path, request: Request
) -> Made:
    """ModelOpt's ONNX post-training quantization, in `python`'s environment.

    Raises ExecutionError with its own words where it does not take the graph.
    """
    graph, spec = bundle.graph(component, float_variant(bundle))
    write_graph(read_graph(graph), folder, component)  # a copy with its weights beside it: it writes there, too
    samples, output = folder / "samples.npz", folder / f"{request.name}.onnx"
    arrays = {f"{k}/{name}": value for k, step in enumerate(steps) for name, value in step.feeds(spec).items()}
    np.savez(samples, allow_pickle=False, **arrays)
    # -I keeps the script's folder off the path: it has a module `modelopt`, too.
    command = [
        str(python),
        "-I",
        modelopt_worker.__file__,
        str(folder / f"{component}.onnx"),
        str(samples),
        str(output),
    ]
    patterns = [f"{re.escape(name)}$" for name in request.layers]  # it takes names as regular expressions
    done = subprocess.run(
        [*command, request.method, *patterns], capture_output=True, text=True, check=False, cwd=folder
    )
    if done.returncode != 0:
        said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it says nothing")
        raise ExecutionError(
            f"ModelOpt does not take {component}: {said}",
            hint=f"try another --component; it said: {done.stderr[-1000:]}",
        )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    about = f"ModelOpt {answer['version']} with ONNX Runtime {answer['onnxruntime']}, {request.method}"
    return Made(output, answer["cpu_s"], answer["wall_s"], about)


def recording_of(bundle: Bundle, component: str, steps: Sequence[Step], folder: Path) -> Recording:
    """Recording that `wanedge calibrate` would make of a component, had it seen just these steps."""
    path, spec = bundle.graph(component, float_variant(bundle))
    axes = {s.reads: 1 if s.op.startswith("Conv") else -1 for s in find_sites(read_graph(path)) if s.op != "Gather"}
    tapped = folder / "tapped.onnx"
    wider, recording = mark_outputs(path, spec, list(axes), tapped), Recording()
    seen = forced(tapped, wider, steps)
    for step, outputs in zip(steps, seen, strict=True):
        for tensor, axis in axes.items():
            values = outputs[tensor] if tensor in outputs else step.inputs[tensor]
            recording.add(Key(component, tensor, "run", "any"), values, axis)
    return recording


def judge(made: Made, spec: GraphSpec, held_out: Sequence[Sequence[Step]], folder: Path) -> Judged:
    """Compare one quantized file with the float graph."""
    written = list(_files(made.graph))
    model = read_graph(made.graph)
    fold(model)
    layers, others = dequantized(model)
    faults = Counter(_kind(fault) for fault in placement_faults(model, "tensorrt"))
    of = Counter(site.op for site in find_sites(read_graph(folder / f"{spec.component}.onnx")) if site.op != "Gather")
    folded = write_graph(model, folder, f"{made.graph.stem}-folded")
    forced_db = free_db = None
    refused = ""
    try:
        forced_db, free_db = _accuracy(made.graph, spec, held_out)
    except WanEdgeError as error:
        refused = error.what
    return Judged(
        forced_db,
        free_db,
        refused,
        dict(Counter(node.op_type for node in layers)),
        dict(of),
        dict(others),
        dict(faults),
        sum(path.stat().st_size for path in written),
        sum(path.stat().st_size for path in folded),
    )


def fold(model: ModelProto) -> int:
    """Store each constant behind a Q as what the Q makes of it, as an engine's builder does; returns how many."""
    values, kept, folded = weights(model), [], []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and all(name in values for name in node.input):
            value, scale, zero = (values[name] for name in node.input)
            stored = _rounded(value, scale, zero, attribute(node, "axis", 1))
            folded.append(numpy_helper.from_array(stored, node.output[0]))
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input} | {o.name for o in model.graph.output}
    constants = [i for i in model.graph.initializer if i.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend([*constants, *folded])
    return len(folded)


def dequantized(model: ModelProto) -> tuple[list[NodeProto], Counter[str]]:
    """Weighted nodes of which both inputs come from a DQ; and all other readers of a DQ, by operator."""
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    layers: list[NodeProto] = []
    others: Counter[str] = Counter()
    for node in model.graph.node:
        narrow = [makers.get(name) == "DequantizeLinear" for name in node.input]
        if node.op_type in WEIGHTED and all(narrow[:2]):
            layers.append(node)
        elif any(narrow):
            others[node.op_type] += 1
    return layers, others


def _rounded(values: Array, scale: Array, zero: Array, axis: int) -> Array:
    shape = [1] * values.ndim
    if scale.ndim:
        shape[axis] = -1
    limits = np.iinfo(zero.dtype)
    exact = np.rint(values / scale.reshape(shape)) + zero.astype(np.float32).reshape(shape)
    return exact.clip(limits.min, limits.max).astype(zero.dtype)


def _kind(fault: str) -> str:
    return re.sub(r" '[^']*'", "", fault.partition(": ")[2])


def _recipe(source: Source, component: str) -> Recipe:
    recipe = default_recipe(source, "int8", "tensorrt")
    return recipe.model_copy(update={"components": {component: recipe.components[component]}})


def _accuracy(graph: Path, spec: GraphSpec, held_out: Sequence[Sequence[Step]]) -> tuple[float, float]:
    wanted = [step.outputs for steps in held_out for step in steps]
    teacher = [outputs for steps in held_out for outputs in forced(graph, spec, steps)]
    free = [run.outputs for steps in held_out for run in replayed(graph, spec, [step.inputs for step in steps])]
    return signal_over_error(wanted, teacher), signal_over_error(wanted, free)


def _files(graph: Path) -> Iterator[Path]:
    """A graph and the file of weights beside it, whichever name its writer gave that."""
    yield graph
    yield from (p for p in (graph.with_suffix(".weights"), graph.with_name(f"{graph.name}_data")) if p.is_file())
