"""The golden trace: every call of a reference's graphs with its inputs, state and results, in one file.

    record_trace(bundle, variant, clips, Path("golden.trace"))
    for number, call in Trace.open(Path("golden.trace")).calls(): ...

Another way to run the same graphs (an engine, other kernels) is compared with it call by call, on any machine, without
running the reference: see replay.py. Recorded are units at every fill level of the caches, all units for components
with little state, and calls that no stream makes, see extra_calls.py.

The file is a zip of .npz members and about.json, which holds their SHA-256. The trace's own digest is about.json's.
"""

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field

from wanedge.atomic import staged_file
from wanedge.bundle import Bundle, Variant
from wanedge.bundle.errors import disk_errors
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.verdicts import graphs_digest
from wanedge_calibration.clips import Clip, clip_units
from wanedge_calibration.errors import CalibrationError
from wanedge_calibration.graph.editing import read_graph
from wanedge_calibration.rollout.moment import fill_level
from wanedge_calibration.validation.extra_calls import BRANCHING_UNITS, branches_on_data, extra_calls, load_uncalled
from wanedge_calibration.validation.golden_call import Comparison, GoldenCall, compare_call
from wanedge_runtimes.runtime import Array, Call, Executable, RuntimeOptions, State
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.strict import Strict
from wanedge_runtimes.wrapped import WrappedCall, WrappedExecutable

SMALL_STATE = 1 << 20  # bytes: components with less are recorded in every unit
POINTS = 5  # units between the windows' ends at which components with more state are recorded
ROUNDING = {"float32": 2.0**-22, "float16": 2.0**-10}  # relative, of the arithmetic that a candidate may use
_LARGEST_CALL = 1 << 30  # bytes of a call's tensors: a hundred times those of the largest preset
MOVES = 2  # twins whose inputs are moved, each by another draw
# Fusions and kernels that give other sums in another order, by ONNX Runtime's names of its graph passes.
OTHER_KERNELS = RuntimeOptions(
    threads=1,
    disabled_optimizers=(
        *RuntimeOptions().disabled_optimizers,
        "QDQSelectorActionTransformer",
        "NchwcTransformer",
        "MatMulAddFusion",
        "LayerNormFusion",
        "SkipLayerNormFusion",
        "GeluFusionL2",
        "AttentionFusion",
        "ConvActivationFusion",
        "MatMulActivationFusion",
        "QuickGeluFusion",
        "BiasGeluFusion",
    ),
)
_VERSION = 2  # of the file
_AGAIN = "record it again: wanedge validate --record-trace BUNDLE --clips CLIPS -o golden.trace"


class CallEntry(Strict):
    """One call of a trace, by its member of the zip."""

    member: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    component: str
    kind: str
    unit: int
    fill: str


class About(Strict):
    """about.json. reference_sha256: `graphs_digest`. graphs: component -> SHA-256 of its ONNX file.

    twins: arithmetic -> component -> "tensor group" -> kind of error -> the largest amplitude of an honest twin.
    """

    wanedge_trace: int = _VERSION
    model: str
    variant: str
    precision: str
    reference_sha256: str
    weights_sha256: str | None
    graphs: dict[str, str]
    specs: dict[str, GraphSpec]
    clips: dict[str, int]
    coverage: dict[str, int]
    branches: dict[str, int]
    calls: tuple[CallEntry, ...]
    twins: dict[str, dict[str, dict[str, dict[str, float]]]]


@dataclass(frozen=True)
class Trace:
    """A trace file. sha256: its digest."""

    path: Path
    about: About
    sha256: str

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises CalibrationError: missing, no trace, of another version."""
        try:
            with zipfile.ZipFile(path) as file:
                raw = _read_member(file, "about.json")
            about = About.model_validate_json(raw)
        except Exception as error:  # zipfile raises what it likes over damaged content
            raise CalibrationError(f"{path} is not a trace ({type(error).__name__})", hint=_AGAIN) from error
        if about.wanedge_trace != _VERSION:
            what = f"{path} has version {about.wanedge_trace}, this wanedge reads {_VERSION}"
            raise CalibrationError(what, hint=_AGAIN)
        return cls(path, about, hashlib.sha256(raw).hexdigest())

    def calls(self, components: Collection[str] | None = None) -> Iterator[tuple[int, GoldenCall]]:
        """Every call with its number, or those of some components, verified as they are read.

        Raises CalibrationError: damaged.
        """
        states: dict[str, dict[str, Array]] = {}
        with zipfile.ZipFile(self.path) as file:
            for number, entry in enumerate(self.about.calls):
                if components is not None and entry.component not in components:
                    continue
                try:
                    content = _read_member(file, entry.member)
                except Exception as error:  # as in `open`
                    raise CalibrationError(f"{self.path}: {entry.member} cannot be read", hint=_AGAIN) from error
                if hashlib.sha256(content).hexdigest() != entry.sha256:
                    raise CalibrationError(f"{self.path}: {entry.member} is damaged", hint=_AGAIN)
                try:
                    call = _unpacked(entry, content, states.get(entry.component, {}))
                except Exception as error:  # the digest is the file's own: it keeps accidents out, not intent
                    raise CalibrationError(f"{self.path}: {entry.member} is no call ({error})", hint=_AGAIN) from error
                states[entry.component] = call.after
                yield number, call


def record_trace(
    bundle: Bundle,
    variant: Variant,
    clips: Sequence[Clip],
    path: Path,
    *,
    world: str = "",
    seed: int = 0,
    limit: int | None = None,
) -> Trace:
    """Stream `clips` through a variant on ONNX Runtime's CPU, one thread, and write the trace.

    limit: units of a clip at most. Raises InputError, BundleError.
    """
    options = RuntimeOptions(threads=1)
    model = Model.load(bundle, "onnxruntime", variant.name, options)
    config = model.config
    windows = sorted({config.backbone.windows[name] for name in config.backbone.layout})
    branching = {c for c in model.graphs if branches_on_data(read_graph(bundle.graph(c, variant)[0]))}
    longest, entries, coverage, lengths = windows[-1], list[CallEntry](), dict[str, int](), dict[str, int]()
    states: dict[str, dict[str, Array]] = {}
    graphs = {**model.graphs, **load_uncalled(bundle, variant, options)}
    others = Model.load(bundle, "onnxruntime", variant.name, OTHER_KERNELS).graphs
    twins = _Twins(graphs, {**others, **load_uncalled(bundle, variant, OTHER_KERNELS)})
    with disk_errors(path), staged_file(path) as staged, zipfile.ZipFile(staged, "w") as file:

        def add(call: GoldenCall) -> None:
            content, member = _packed(call, states.get(call.component, {})), f"calls/{len(entries):06d}.npz"
            states[call.component] = call.after
            twins.add(len(entries), call)
            file.writestr(member, content)  # compressed already
            entry = {"component": call.component, "kind": call.kind, "unit": call.unit, "fill": call.fill}
            entries.append(CallEntry(member=member, sha256=hashlib.sha256(content).hexdigest(), **entry))

        for number, clip in enumerate(clips):
            needed = max(longest + 2, BRANCHING_UNITS if branching else 0)
            units = list(clip_units(clip, config, min(limit or needed, needed)))
            lengths[clip.sha256] = len(units)
            selected = _selected(windows, len(units)) if number == 0 else {0, len(units) - 1}
            recorder = _Recorder(model, selected, branching, lambda unit: fill_level(config, max(unit, 0)), add)
            stream = Streamer(recorder.model, world, seed=seed)
            for user in units:
                recorder.unit = user.index
                level = fill_level(config, user.index)
                coverage[level] = coverage.get(level, 0) + 1
                stream.step(user)
            if number == 0:
                for call in extra_calls(bundle, variant, recorder.recorded, graphs):
                    if call.kind != "alone" or twins.decide(call):
                        add(call)
        about = About(
            model=config.name,
            variant=variant.name,
            precision=variant.precision,
            reference_sha256=graphs_digest(bundle, variant),
            weights_sha256=bundle.manifest.weights_sha256,
            graphs={c: bundle.manifest.files[f.graph].sha256 for c, f in variant.graphs.items()},
            specs={name: graph.spec for name, graph in graphs.items()},
            clips=lengths,
            coverage=coverage,
            branches={c: len({e.unit for e in entries if e.component == c and e.unit >= 0}) for c in branching},
            calls=tuple(entries),
            twins=twins.amplitudes(),
        )
        file.writestr("about.json", json.dumps(about.model_dump(mode="json"), sort_keys=True, indent=1))
    return Trace.open(path)


def _selected(windows: Sequence[int], count: int) -> set[int]:
    """The first unit, those on both sides of each window's end, and some between."""
    ends = {unit + step for unit in windows for step in (-1, 0, 1)}
    spread = {round((count - 1) * k / (POINTS - 1)) for k in range(POINTS)}
    return {unit for unit in {0, 1} | ends | spread if 0 <= unit < count}


class _Recorder:
    """A model whose calls are handed to `add`, with the state before and after.

    recorded: each component's last call in each of the selected units, the latest at the end.
    """

    def __init__(self, model: Model, selected: set[int], always: set[str], fill_of: Any, add: Any) -> None:
        self.unit, self.recorded = -1, dict[str, dict[int, GoldenCall]]()
        self._selected, self._always, self._fill_of, self._add = selected, always, fill_of, add
        graphs = {name: self._watched(graph) for name, graph in model.graphs.items()}
        self.model = replace(model, graphs=graphs)

    def _watched(self, executable: Executable) -> Executable:
        recorder = self

        class Watched(WrappedCall):
            def __init__(self, call: Call, state: State) -> None:
                super().__init__(call)
                self._state = state

            def run(self) -> None:
                spec = executable.spec
                if not recorder.wants(spec):
                    self.call.run()
                    return
                inputs = {t.name: np.array(self.inputs[t.name]) for t in spec.inputs}
                before = self._state.snapshot() if spec.states else {}
                self.call.run()
                call = GoldenCall(
                    spec.component, "stream", recorder.unit, recorder._fill_of(recorder.unit), inputs, before
                )
                call.outputs = {t.name: np.array(self.outputs[t.name]) for t in spec.outputs}
                call.after = self._state.snapshot() if spec.states else {}
                if recorder.unit in recorder._selected:
                    recorder.recorded.setdefault(spec.component, {})[recorder.unit] = call
                recorder._add(call)

        return WrappedExecutable(executable, lambda call, state, _dims: Watched(call, state))

    def wants(self, spec: GraphSpec) -> bool:
        """Whether a call of this component is recorded now."""
        small = spec.state_bytes < SMALL_STATE or spec.component in self._always
        return small or self.unit in self._selected


def _packed(call: GoldenCall, last: Mapping[str, Array]) -> bytes:
    """The call as .npz. States are stored as what differs: `before` from the call before, `after` from `before`."""
    arrays: dict[str, Array] = {f"input.{name}": values for name, values in call.inputs.items()}
    arrays |= {f"output.{name}": values for name, values in call.outputs.items()}
    for part, tensors, bases in (("before", call.before, last), ("after", call.after, call.before)):
        for name, values in tensors.items():
            base = bases.get(name)
            if base is not None:
                bits, changed = _bits(values), np.flatnonzero(_bits(values) != _bits(base))
                if changed.size * 2 < bits.size:  # a cache: most of it stays
                    arrays[f"{part}-places.{name}"], arrays[f"{part}-values.{name}"] = changed, bits[changed]
                    continue
            arrays[f"{part}.{name}"] = values
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def _unpacked(entry: CallEntry, content: bytes, last: Mapping[str, Array]) -> GoldenCall:
    """The opposite of `_packed`."""
    parts: dict[str, dict[str, Array]] = {}
    _require_sizes(content)
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        for key in arrays.files:
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = arrays[key]
    before, after = dict(parts.get("before", {})), dict(parts.get("after", {}))
    for part, tensors, bases in (("before", before, last), ("after", after, before)):
        for name, places in parts.get(f"{part}-places", {}).items():
            whole = np.ascontiguousarray(bases[name]).copy()
            _bits(whole)[places] = parts[f"{part}-values"][name]
            tensors[name] = whole
    inputs, outputs = parts.get("input", {}), parts.get("output", {})
    return GoldenCall(entry.component, entry.kind, entry.unit, entry.fill, inputs, before, outputs, after)


def _read_member(file: zipfile.ZipFile, name: str) -> bytes:
    """Read a member of a trace. Raises ValueError for one that is longer than any call."""
    if file.getinfo(name).file_size > _LARGEST_CALL:
        raise ValueError(f"{name} is longer than {_LARGEST_CALL} bytes")
    return file.read(name)


def _require_sizes(content: bytes) -> None:
    """Raise ValueError unless every array of an .npz takes the room that its header says, and all of them fit.

    numpy allocates what a header says before it reads on.
    """
    total = 0
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        for info in file.infolist():
            total += info.file_size
            if total > _LARGEST_CALL:
                raise ValueError(f"its arrays are larger than {_LARGEST_CALL} bytes")
            with file.open(info) as member:
                version = np.lib.format.read_magic(member)
                if version != (1, 0):
                    raise ValueError(f"{info.filename} has format {version}")
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
                if math.prod(shape) * dtype.itemsize > info.file_size or dtype.hasobject or dtype.itemsize > 16:
                    raise ValueError(f"{info.filename} says {dtype}{list(shape)} and is {info.file_size} bytes long")


def _bits(values: Array) -> Array:
    """The same memory as unsigned integers, flat: NaN equals itself, and -0 is not 0."""
    return np.ascontiguousarray(values).reshape(-1).view(f"u{values.dtype.itemsize}")


class _Twins:
    """Honest other ways to run the same calls: other kernels, and inputs and states moved by rounding."""

    def __init__(self, graphs: Mapping[str, Executable], other_kernels: Mapping[str, Executable]) -> None:
        self._graphs, self._other = graphs, other_kernels
        self._kernels = Comparison()
        self._moved = {name: [Comparison() for _ in range(MOVES)] for name in ROUNDING}

    def add(self, number: int, call: GoldenCall) -> None:
        executable = self._graphs[call.component]
        spec = executable.spec
        compare_call(self._kernels, number, call, call.run(self._other[call.component]), spec, {})
        for arithmetic, draws in self._moved.items():
            for draw, comparison in enumerate(draws):
                moved = _moved(call, ROUNDING[arithmetic], np.random.default_rng([draw, number]))
                actual = replace(moved.run(executable), inputs=call.inputs, before=call.before)
                compare_call(comparison, number, call, actual, spec, {}, moved=moved.before)

    def decide(self, call: GoldenCall) -> bool:
        """Whether rounding leaves the call's integers as they are: a choice between equals says nothing."""
        moved = _moved(call, max(ROUNDING.values()), np.random.default_rng(0)).run(self._graphs[call.component])
        return all(np.array_equal(v, moved.outputs[n]) for n, v in call.outputs.items() if v.dtype.kind in "iu")

    def amplitudes(self) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
        """The largest of the twins, as `About.twins`."""
        found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
        for arithmetic, draws in self._moved.items():
            of_components: dict[str, dict[str, dict[str, float]]] = {}
            for key in self._kernels.errors:
                component, tensor, group = key
                shown = [c.errors[key].amplitudes() for c in (self._kernels, *draws)]
                largest = {kind: max(a[kind] for a in shown) for kind in shown[0]}
                of_components.setdefault(component, {})[f"{tensor} {group}"] = largest
            found[arithmetic] = of_components
        return found


def _moved(call: GoldenCall, relative: float, random: np.random.Generator) -> GoldenCall:
    """The call with its float inputs and states moved by rounding; what counts (t, cos, sin) moves likewise."""

    def move(values: Array) -> Array:
        if values.dtype.kind != "f":
            return values
        factor = 1 + relative * random.uniform(-1, 1, values.shape)
        moved: Array = (values * factor).astype(values.dtype)
        return moved

    inputs = {name: move(values) for name, values in call.inputs.items()}
    return replace(call, inputs=inputs, before={name: move(values) for name, values in call.before.items()})
