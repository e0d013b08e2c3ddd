"""Calls that no stream makes, for a golden trace: rare values, masks and rows of tables that a clip seldom reaches.

kind        what is changed in calls of the stream
rows        ids: every row of each table that they look up
probe       the keys and values of one slot stand out, spread over all slots of the ring: a wrong mask shows
loud        inputs and tails are larger than any that a clip has: a limit on rare values shows
quiet       inputs and tails are small, and the caches empty: a branch on the loudness shows
faint       likewise, but smaller than what norms hold against zero
standout    a few channels stand out, also after a norm
alone       a graph that a device runs and the host replaces by arithmetic of its own

Nothing of it knows a component's name. Results that overflow are left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from onnx import ModelProto, TensorProto

from wanedge.bundle import Bundle, Variant
from wanedge.model import DEVICE_COMPONENTS
from wanedge_calibration.graph.editing import read_graph
from wanedge_calibration.graph.trace_back import GraphView
from wanedge_calibration.validation.golden_call import UNUSUAL, GoldenCall
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Array, Executable, RuntimeOptions
from wanedge_runtimes.spec import GraphSpec, StateSpec

Recorded = Mapping[str, Mapping[int, GoldenCall]]
"""Component -> unit -> its last call in that unit."""

STAND_OUT = 8.0  # factor on the keys and values of a probed slot: attention sees little else where it sees it
PROBES = 64  # slots of a ring that are probed, at most
CHANGED = 4  # calls of a component that are changed for each kind
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.UINT8)
ALONE = 16  # calls of a graph that the host does not run
# Independent units that a graph needs which branches on data: a branch that one unit in a hundred takes is then missed
# in a tenth of all clips (0.99^230).
BRANCHING_UNITS = 230
_BRANCHES = {"If", "Loop", "Scan", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "NonZero", "TopK"}
_FACTORS = {"loud": 8.0, "quiet": 2.0**-4, "faint": 2.0**-10}
_CHANNELS, _CHANNEL_FACTOR = 1 / 16, 32.0  # of the last axis, for "standout"


def extra_calls(
    bundle: Bundle, variant: Variant, recorded: Recorded, graphs: Mapping[str, Executable]
) -> Iterator[GoldenCall]:
    """All of them, with their results. graphs: those of the stream and of `load_uncalled`."""
    last = {component: list(calls.values())[-1] for component, calls in recorded.items()}
    yield from _probes(last, graphs)
    yield from _rows(bundle, variant, last, graphs)
    yield from _unusual(recorded, graphs)
    for component in graphs.keys() - recorded.keys():
        yield from _alone(last, graphs[component])


def branches_on_data(model: ModelProto) -> bool:
    """Whether a graph compares, selects or loops by values that are computed from a float input or state."""
    floats = {v.name for v in model.graph.input if v.type.tensor_type.elem_type in _FLOATS}
    for node in model.graph.node:  # in order, as every graph is sorted
        if not floats.isdisjoint(node.input):
            if node.op_type in _BRANCHES:
                return True
            if node.op_type not in ("Shape", "Size"):
                floats |= set(node.output)
    return False


def load_uncalled(bundle: Bundle, variant: Variant, options: RuntimeOptions) -> dict[str, Executable]:
    """Graphs of the variant that a device runs in a unit, and the host does not."""
    runtime = open_runtime("onnxruntime", options)
    return {name: runtime.load(*bundle.graph(name, variant)) for name in DEVICE_COMPONENTS if name in variant.graphs}


def _rows(
    bundle: Bundle, variant: Variant, last: Mapping[str, GoldenCall], graphs: Mapping[str, Executable]
) -> Iterator[GoldenCall]:
    """Calls without state that look up every row of the tables that integer inputs index."""
    for component, call in last.items():
        spec = graphs[component].spec
        if spec.states or any(values.dtype.kind not in "iu" for values in call.inputs.values()):
            continue
        view = GraphView(read_graph(bundle.graph(component, variant)[0]))
        for node in view.nodes:
            table = view.constant(node.input[0]) if node.op_type == "Gather" else None
            if table is None or node.input[1] not in call.inputs:
                continue
            like = call.inputs[node.input[1]]
            for start in range(0, table.shape[0], like.size):
                ids = (start + np.arange(like.size)) % table.shape[0]
                inputs = call.inputs | {node.input[1]: ids.astype(like.dtype).reshape(like.shape)}
                yield replace(call, kind="rows", inputs=inputs, outputs={}, after={}).run(graphs[component])


def _probes(last: Mapping[str, GoldenCall], graphs: Mapping[str, Executable]) -> Iterator[GoldenCall]:
    """Calls with one slot of every cache made to stand out, spread over all slots that the cache has."""
    for component, call in last.items():
        spec = graphs[component].spec
        caches = [s.name for s in spec.states if s.update == "in_place" and len(s.shape) == 4]
        if not caches:
            continue
        random = np.random.default_rng(0)
        capacity = max(call.before[name].shape[2] for name in caches)
        for part in np.array_split(np.arange(capacity), min(capacity, PROBES)):
            slot = int(random.choice(part))
            before = {name: values.copy() for name, values in call.before.items()}
            for name in caches:
                own = slot % before[name].shape[2]
                before[name][:, :, own] *= STAND_OUT
            yield replace(call, kind="probe", before=before, outputs={}, after={}).run(graphs[component])


def _unusual(recorded: Recorded, graphs: Mapping[str, Executable]) -> Iterator[GoldenCall]:
    """Calls of every component with inputs and states that are changed as their kind says."""
    for component, calls in recorded.items():
        units, graph = sorted(calls), graphs[component]
        chosen = {units[round(k)] for k in np.linspace(0, len(units) - 1, CHANGED)}
        for kind in UNUSUAL:
            for unit in sorted(chosen):
                call = _changed(calls[unit], kind, graph.spec, np.random.default_rng([unit + 1, UNUSUAL.index(kind)]))
                if call is None:
                    break
                done = call.run(graph)
                if all(np.isfinite(v).all() for v in (*done.outputs.values(), *done.after.values())):
                    yield done


def _changed(call: GoldenCall, kind: str, spec: GraphSpec, random: np.random.Generator) -> GoldenCall | None:
    """The call with changed inputs and states and no results; None where it has no input that can be changed."""
    angles = _angles(call.inputs)
    inputs = {n: v if n in angles else _changed_values(v, kind, random) for n, v in call.inputs.items()}
    if all(inputs[name] is values for name, values in call.inputs.items()):
        return None
    before = {s.name: _changed_state(call.before[s.name], s, kind, random) for s in spec.states}
    return replace(call, kind=kind, inputs=inputs, before=before, outputs={}, after={})


def _changed_values(values: Array, kind: str, random: np.random.Generator) -> Array:
    """Floats and bytes of media; other integers and masks stay."""
    if values.dtype.kind != "f" and values.dtype != np.uint8:
        return values
    wide = values.astype(np.float64)
    if kind in _FACTORS:
        wide *= _FACTORS[kind]
    elif values.shape and values.shape[-1] > 1:
        stands_out = np.asarray(random.random(values.shape[-1]) < _CHANNELS)
        stands_out[random.integers(values.shape[-1])] = True
        wide[..., stands_out] *= _CHANNEL_FACTOR
    return np.clip(wide, 0, 255).astype(np.uint8) if values.dtype == np.uint8 else wide.astype(values.dtype)


def _changed_state(values: Array, state: StateSpec, kind: str, random: np.random.Generator) -> Array:
    """A tail changes with the inputs. A cache is left as it is, or empty where nothing may be heard."""
    if state.update == "swap":
        return _changed_values(values, kind, random) if kind in _FACTORS else values
    return np.zeros_like(values) if kind in ("quiet", "faint") else values


def _angles(inputs: Mapping[str, Array]) -> set[str]:
    """Inputs that are cosine and sine of something: they lie on the unit circle, and no device gives others."""
    floats = {n: v.astype(np.float64) for n, v in inputs.items() if v.dtype.kind == "f"}
    return {
        name
        for name, a in floats.items()
        for other, b in floats.items()
        if name != other and a.shape == b.shape and np.allclose(a**2 + b**2, 1, atol=0.01)
    }


def _alone(last: Mapping[str, GoldenCall], graph: Executable) -> Iterator[GoldenCall]:
    """Calls of a graph without state with what the stream has under the inputs' names, and random values else."""
    spec = graph.spec
    known: dict[str, Array] = {}
    for call in last.values():
        known |= call.inputs | call.outputs
    for number in range(ALONE):
        random = np.random.default_rng(number)
        inputs: dict[str, Array] = {}
        for tensor in spec.inputs:
            shape, seen = tensor.concrete({}), known.get(tensor.name)
            if number == 0 and seen is not None and (seen.shape, seen.dtype) == (shape, np.dtype(tensor.dtype)):
                inputs[tensor.name] = seen
            elif tensor.dtype == "bool":
                inputs[tensor.name] = random.random(shape) < 0.5
            else:
                inputs[tensor.name] = random.standard_normal(shape).astype(tensor.dtype)
        yield GoldenCall(spec.component, "alone", number, "", inputs, {}).run(graph)
