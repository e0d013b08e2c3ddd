"""Data for Polygraphy: record real runs of every graph and write a data-loader script for each.

polygraphy run kiosk.wanedge/graphs/fp16/backbone.onnx --onnxrt --trt --data-loader-script loaders/fp16/backbone.py

loaders/inputs/backbone.npz     the arrays, recorded once
loaders/fp16/backbone.py        casts them to the types that this variant's graph takes; needs NumPy only
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from wanedge.atomic import staged_file
from wanedge.benchmark import synthetic_user
from wanedge.bundle import Bundle
from wanedge.config import ModelConfig
from wanedge.media.files import read_units
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.units import UserUnit
from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.runtime import Array, Call, Executable, RuntimeOptions, State
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.wrapped import WrappedCall, WrappedExecutable

INPUTS = "inputs"
Feed = dict[str, Array]
"""Graph input -> array, past states included, as a runner without memory wants it."""

PER_SIZE = 2  # recorded runs of one graph at one block size: the last ones, whose history is the longest

_SCRIPT = '''"""Inputs and states of {component} ({variant}), recorded in a stream by wanedge export --polygraphy.

polygraphy run {graph} --onnxrt --data-loader-script {script}
"""

from pathlib import Path

import numpy as np

DTYPES = {dtypes}


def load_data():
    """Yields one dictionary of all graph inputs per recorded run."""
    with np.load(Path(__file__).parent.parent / "{inputs}" / "{component}.npz") as recorded:
        for run in range({runs}):
            yield {{name: recorded[f"{{run}}/{{name}}"].astype(dtype, copy=False) for name, dtype in DTYPES.items()}}
'''


def write_loaders(bundle: Bundle, folder: Path, user: Sequence[UserUnit], world: str = "") -> tuple[Path, ...]:
    """Stream `user` through the bundle's graphs and write a script for every graph of every variant.

    user: at least one unit; the runs of the prefill and of the last unit are recorded.

    Returns the scripts. Raises WanEdgeError where the graphs cannot be loaded or run.
    """
    variants = [variant for variant in bundle.manifest.variants if not variant.engines]
    # Any variant's stream would do; the float32 graphs are the fastest on a CPU.
    source = next((v for v in variants if v.precision == "fp32"), variants[0])
    model = Model.load(bundle, "onnxruntime", source.name, RuntimeOptions())
    runs = record_runs(model, user, world)
    (folder / INPUTS).mkdir(parents=True, exist_ok=True)
    scripts: list[Path] = []
    for component in model.graphs:
        feeds = runs.of(component)
        _write_inputs(folder / INPUTS / f"{component}.npz", feeds)
        for variant in variants:
            if component in variant.graphs:
                path, spec = bundle.graph(component, variant)
                script = folder / variant.name / f"{component}.py"
                scripts.append(script)
                _write_script(script, path.relative_to(bundle.root), variant.name, spec, len(feeds))
    return tuple(scripts)


def _write_inputs(path: Path, feeds: Sequence[Feed]) -> None:
    arrays = {f"{run}/{name}": array for run, feed in enumerate(feeds) for name, array in feed.items()}
    with staged_file(path) as staged, staged.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _write_script(path: Path, graph: Path, variant: str, spec: GraphSpec, runs: int) -> None:
    dtypes = {t.name: storage_dtype(t.dtype).name for t in spec.inputs}
    dtypes |= {s.past: storage_dtype(s.dtype).name for s in spec.states}
    listed = "".join(f"    {name!r}: {dtype!r},\n" for name, dtype in dtypes.items())
    text = _SCRIPT.format(
        component=spec.component,
        variant=variant,
        graph=graph.as_posix(),
        script=path.name,
        dtypes=f"{{\n{listed}}}",
        inputs=INPUTS,
        runs=runs,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with staged_file(path) as staged:
        staged.write_text(text, encoding="utf-8")


@dataclass
class Runs:
    """The recorded runs of every graph, by component and by the sizes of its dynamic axes."""

    by_size: dict[str, dict[tuple[tuple[str, int], ...], deque[Feed]]] = field(default_factory=dict)

    def add(self, component: str, dims: Mapping[str, int], feed: Feed) -> None:
        sizes = self.by_size.setdefault(component, {})
        sizes.setdefault(tuple(sorted(dims.items())), deque(maxlen=PER_SIZE)).append(feed)

    def of(self, component: str) -> list[Feed]:
        """All recorded runs of a graph, grouped by block size."""
        return [feed for feeds in self.by_size.get(component, {}).values() for feed in feeds]


def record_runs(model: Model, user: Sequence[UserUnit], world: str = "", seed: int = 0) -> Runs:
    """Stream `user` and record the runs of the prefill and of the last unit. Raises InputError, ExecutionError."""
    tape = _Tape()
    graphs: dict[str, Executable] = {name: _recorded(graph, tape) for name, graph in model.graphs.items()}
    streamer = Streamer(replace(model, graphs=graphs), world, seed=seed)  # which runs the prefill
    for unit in user:
        tape.on = unit is user[-1]  # a snapshot of every cache before every run would cost more than the stream
        streamer.step(unit)
    return tape.runs


@dataclass
class _Tape:
    on: bool = True
    runs: Runs = field(default_factory=Runs)


def _recorded(executable: Executable, tape: _Tape) -> Executable:
    spec = executable.spec
    return WrappedExecutable(executable, lambda call, state, dims: _Recorded(call, spec, state, dims, tape))


class _Recorded(WrappedCall):
    """Records its inputs before it runs, because the run overwrites a cache in place."""

    def __init__(self, call: Call, spec: GraphSpec, state: State, dims: Mapping[str, int], tape: _Tape) -> None:
        super().__init__(call)
        self._spec, self._state, self._dims, self._tape = spec, state, dims, tape

    def run(self) -> None:
        if self._tape.on:
            self._tape.runs.add(self._spec.component, self._dims, dict(self._feed()))
        self.call.run()

    def _feed(self) -> Iterator[tuple[str, Array]]:
        for tensor in self._spec.inputs:
            yield tensor.name, np.array(self.call.inputs[tensor.name])
        past = self._state.snapshot() if self._spec.states else {}
        for state in self._spec.states:
            yield state.past, past[state.name]


UNITS = 4  # enough for caches that hold something and tails that are not their initial value


def noise_units(config: ModelConfig) -> list[UserUnit]:
    """Return units of noise, always the same."""
    return [synthetic_user(config, index, seed=0) for index in range(UNITS)]


def clip_units(path: Path, config: ModelConfig, units: int = UNITS) -> list[UserUnit]:
    """Return the first units of a media file. Raises MediaFileError, MissingExtra."""
    return list(islice(read_units(path, config), units))
