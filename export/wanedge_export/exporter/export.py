"""Export one component: trace it, write graph and weights to a staging folder, check both, then publish them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from torch import nn

from wanedge_export.component import Component, ExportError, Tensors
from wanedge_export.exporter.checks import check_graph
from wanedge_export.exporter.half import half_spec, to_half, wide_tensors
from wanedge_export.exporter.learned import with_learned_states
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

# Of a component, so that file systems (255 bytes) have room for profile, precision, digest and suffix.
_LONGEST_NAME = 120
_FILE_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{_LONGEST_NAME - 1}}}")

Log = Callable[[str], None]
FloatPrecision = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class ExportedGraph:
    """A graph that passed every check.

    path: the graph. data: the weight files that it points into, beside it, known when their `WeightFile` is closed.
    error: largest difference from torch, relative to the largest value of its tensor.
    float32_nodes: in an fp16 graph, the nodes that compute in float32.
    """

    path: Path
    spec: GraphSpec
    error: float
    float32_nodes: tuple[str, ...] = ()
    weights: WeightFile | None = None

    @property
    def data(self) -> tuple[Path, ...]:
        """Weight files beside the graph; none where all weights are small enough to lie in it."""
        return () if self.weights is None else (self.weights.path,)


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
    calibration: Sequence[Tensors] = (),
    tolerance: float | None = None,
    log: Log = lambda _: None,
) -> ExportedGraph:
    """Write `{component}.onnx` and `{component}.DIGEST.weights`; other profiles and precisions are in the name.

    Args:
        component: an `nn.Module` in eval mode that keeps the component protocol.
        directory: where the files go; created if needed.
        opset: 24 for the portable and 20 for the decomposed profile unless given.
        weights: a file shared with other graphs; graph and weights then appear when it is closed.
        dims: sizes of the dynamic axes to compare with torch at; the first is the one that is traced.
        precision: "fp16" makes weights and states float16; inputs and outputs stay float32 (see half.py).
        float_modules: modules that an fp16 graph keeps in float32.
        calibration: real inputs of consecutive steps. An fp16 graph keeps float32 where they, or the sample inputs,
            come near the end of float16's range.
        tolerance: largest difference from torch, relative to the largest value of a tensor; by default what the other
            order of additions explains (see parity.py). A larger one must have a reason in the model's arithmetic.
        log: called with one line per step.

    Returns the graph with its spec as written. In the decomposed profile every state swaps: only TensorScatter
    promises to write in place. A state whose init_state() is not one number everywhere gets a companion state,
    `wanedge.fresh`, by which the graph begins with the learned values.

    Raises ExportError, which names the component, the tensor and what to change; nothing is written then.
    """
    _check_module(component)
    component = with_learned_states(component)
    spec = _spec_as_written(component, profile, opset)
    _check_names(spec)
    sizes = _sizes(spec, dims)
    plan = _Plan(component, spec, sizes, precision, tuple(float_modules), tuple(calibration), tolerance, log)
    try:
        if weights is not None:
            return _export(plan, directory, weights)
        with WeightFile(directory / f"{_stem(spec, precision)}.weights") as own:
            return _export(plan, directory, own)
    except OSError as error:
        raise ExportError(
            f"{spec.component}: cannot write to {directory}: {error.strerror or error}",
            hint="choose a folder on a disk with space, in which you may write",
        ) from error


class _Plan(NamedTuple):
    """The checked arguments of an export. spec: of the graph in float32."""

    component: Component
    spec: GraphSpec
    sizes: list[Dims]
    precision: FloatPrecision
    float_modules: tuple[str, ...]
    calibration: tuple[Tensors, ...]
    tolerance: float | None
    log: Log


def _export(plan: _Plan, directory: Path, weights: WeightFile) -> ExportedGraph:
    if weights.path.parent.resolve() != directory.resolve():
        raise ExportError(
            f"the graph would be in {directory} and its weights in {weights.path.parent}",
            hint="pass the weight file's own folder: runtimes look for weights beside the graph",
        )
    component, spec, sizes, precision = plan.component, plan.spec, plan.sizes, plan.precision
    kind = spec.profile if precision == "fp32" else f"{spec.profile}, {precision}"
    name = f"{spec.component} ({kind})"
    for _ in roll_out(component, sizes, steps=len(sizes)):
        pass  # the component keeps its own spec at every size, before torch spends time on it

    plan.log(f"{name}: tracing")
    model = trace(component, spec, sizes[0])
    tidy(model, spec)
    float32_nodes: tuple[str, ...] = ()
    if precision == "fp16":
        wide = wide_tensors(component, model, spec, sizes, plan.calibration)
        float32_nodes = tuple(to_half(model, spec, plan.float_modules, wide))
        spec = half_spec(spec)
    # In a bundle the folder says the precision.
    file_name = f"{_stem(spec, precision if weights.by_content else 'fp32')}.onnx"
    with weights.staged_graph(model, file_name) as staged:
        plan.log(f"{name}: checking {staged.stat().st_size / 1024:.0f} KiB of graph")
        check_graph(staged, spec)
        parity = check_parity(component, staged, spec, sizes, precision, plan.tolerance)
        plan.log(f"{name}: {parity}")
    own = weights if has_outside_weights(model) else None
    return ExportedGraph(directory / file_name, spec, parity.error, float32_nodes, own)


def _stem(spec: GraphSpec, precision: FloatPrecision) -> str:
    parts = (
        spec.component,
        "" if spec.profile == "portable" else spec.profile,
        "" if precision == "fp32" else precision,
    )
    return ".".join(part for part in parts if part)


def _check_names(spec: GraphSpec) -> None:
    """A component's name becomes the name of files."""
    if not _FILE_NAME.fullmatch(spec.component):
        raise ExportError(
            f"the component is called {spec.component!r}, which is no name for a file",
            hint=f"use letters, digits, '_', '-' and '.' in GraphSpec.component, at most {_LONGEST_NAME}",
        )


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


def _check_module(component: Component) -> None:
    spec = component.spec()
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
