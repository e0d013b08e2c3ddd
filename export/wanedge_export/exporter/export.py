"""Export one component: trace it, write graph and weights to a staging folder, check both, then publish them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir
from torch import nn

from wanedge_export.component import Component, ExportError
from wanedge_export.exporter.checks import check_graph
from wanedge_export.exporter.half import half_spec, to_half, wide_tensors
from wanedge_export.exporter.parity import check_parity
from wanedge_export.exporter.reference import Dims, roll_out
from wanedge_export.exporter.tidy import tidy
from wanedge_export.exporter.tracing import trace
from wanedge_export.exporter.weights import WeightFile, has_outside_weights
from wanedge_runtimes.spec import GraphSpec, Profile

# Default and highest opset of each profile. TensorScatter and Attention exist from 24 on (the latter from 23);
# TensorRT 10.3, for which the decomposed profile exists, parses up to 20.
OPSETS: dict[Profile, int] = {"portable": 24, "decomposed": 20}

# Sizes of the first dynamic axis where the caller names none: several, one, few. A single token takes other paths
# through an operator's shape rules than many do.
_SIZES = (7, 1, 3)

Log = Callable[[str], None]
FloatPrecision = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class ExportedGraph:
    """A graph that passed every check.

    path: the graph. data: the weight files that it points into, beside it. sha256: of the graph file.
    error: largest difference from torch, relative to the largest value of its tensor.
    float32_nodes: in an fp16 graph, the nodes that compute in float32.
    """

    path: Path
    spec: GraphSpec
    data: tuple[Path, ...]
    sha256: str
    error: float
    float32_nodes: tuple[str, ...] = ()


def export_component(
    component: Component,
    directory: Path,
    *,
    profile: Profile = "portable",
    opset: int | None = None,
    weights: WeightFile | None = None,
    dims: Sequence[Dims] | None = None,
    precision: FloatPrecision = "fp32",
    float_modules: Sequence[str] = (),
    log: Log = lambda _: None,
) -> ExportedGraph:
    """Write `{component}.onnx` (portable) or `{component}.decomposed.onnx`, and `{component}.weights`.

    Args:
        component: an `nn.Module` in eval mode that keeps the component protocol.
        directory: where the files go; created if needed.
        opset: 24 for the portable and 20 for the decomposed profile unless given.
        weights: a file shared with other graphs; graph and weights then appear when it is closed.
        dims: sizes of the dynamic axes to compare with torch at; the first is the one that is traced.
        precision: "fp16" makes weights and states float16; inputs and outputs stay float32 (see half.py).
        float_modules: modules that an fp16 graph keeps in float32.
        log: called with one line per step.

    Returns the graph with its spec as written. In the decomposed profile every state swaps: only TensorScatter
    promises to write in place.

    Raises ExportError, which names the component, the tensor and what to change; nothing is written then.
    """
    if weights is None:
        with WeightFile(directory / f"{component.spec().component}.weights") as own:
            return export_component(
                component,
                directory,
                profile=profile,
                opset=opset,
                weights=own,
                dims=dims,
                precision=precision,
                float_modules=float_modules,
                log=log,
            )
    if weights.path.parent.resolve() != directory.resolve():
        raise ExportError(
            f"the graph would be in {directory} and its weights in {weights.path.parent}",
            hint="pass the weight file's own folder: runtimes look for weights beside the graph",
        )
    spec = _spec_as_written(component, profile, opset)
    name = f"{spec.component} ({profile})" if precision == "fp32" else f"{spec.component} ({profile}, {precision})"
    sizes = _sizes(spec, dims)
    _check_module(component, spec)
    for _ in roll_out(component, sizes, steps=len(sizes)):
        pass  # the component keeps its own spec at every size, before torch spends time on it

    log(f"{name}: tracing")
    model = trace(component, spec, sizes[0])
    tidy(model, spec)
    float32_nodes: tuple[str, ...] = ()
    if precision == "fp16":
        spec, float32_nodes = _halved(component, model, spec, sizes, float_modules)
    with weights.staged_graph(model, _file_name(spec)) as staged:
        log(f"{name}: checking {staged.stat().st_size / 1024:.0f} KiB of graph")
        check_graph(staged, spec)
        parity = check_parity(component, staged, spec, sizes, precision)
        log(f"{name}: {parity}")
        digest = hashlib.sha256(staged.read_bytes()).hexdigest()
    data = (weights.path,) if has_outside_weights(model) else ()
    return ExportedGraph(directory / _file_name(spec), spec, data, digest, parity.error, float32_nodes)


def _halved(
    component: Component, model: ir.Model, spec: GraphSpec, sizes: list[Dims], modules: Sequence[str]
) -> tuple[GraphSpec, tuple[str, ...]]:
    wide = wide_tensors(component, model, spec, sizes)
    return half_spec(spec), tuple(to_half(model, spec, modules, wide))


def _file_name(spec: GraphSpec) -> str:
    suffix = "" if spec.profile == "portable" else f".{spec.profile}"
    return f"{spec.component}{suffix}.onnx"


def _spec_as_written(component: Component, profile: Profile, opset: int | None) -> GraphSpec:
    spec = component.spec()
    opset = opset or OPSETS[profile]
    if profile == "decomposed" and opset > OPSETS["decomposed"]:
        raise ExportError(
            f"{spec.component}: the decomposed profile is opset {OPSETS['decomposed']} at most, not {opset}",
            hint="leave opset out, or choose the portable profile",
        )
    states = spec.states
    if profile == "decomposed":
        states = tuple(s.model_copy(update={"update": "swap"}) for s in states)
    return spec.model_copy(update={"profile": profile, "opset": opset, "states": states})


def _sizes(spec: GraphSpec, dims: Sequence[Mapping[str, int]] | None) -> list[Dims]:
    """Sizes of every dynamic axis, one set per graph run; distinct, so that torch cannot take two axes for one."""
    axes = spec.dynamic_dims
    if dims is None:
        dims = [{axis: size + i for i, axis in enumerate(axes)} for size in _SIZES] if axes else [{}]
    for sizes in dims:
        if set(sizes) != set(axes):
            raise ExportError(
                f"{spec.component} has the dynamic axes {list(axes)}, and dims has {dict(sizes)}",
                hint="give each of them one size in every entry of dims",
            )
    if not dims or min(dims[0].values(), default=2) < 2:
        raise ExportError(
            f"{spec.component}: the first entry of dims is {dims[0] if dims else 'missing'}",
            hint="start with sizes of 2 or more: torch freezes an axis that it traces at size 1",
        )
    return [dict(sizes) for sizes in dims]


def _check_module(component: Component, spec: GraphSpec) -> None:
    if not isinstance(component, nn.Module):
        raise ExportError(
            f"{spec.component} is a {type(component).__name__}, not an nn.Module",
            hint="derive it from torch.nn.Module, so that its weights can be found",
        )
    if component.training:
        raise ExportError(
            f"{spec.component} is in training mode, where dropout and batch statistics are random",
            hint="call .eval() on it first",
        )
