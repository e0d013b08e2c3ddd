"""Run a pipeline: a unit's inputs in, its outputs out. Synchronous, without threads and clocks."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Final, Self

import numpy as np

from wanedge.bundle import Bundle, BundleError
from wanedge.pipeline.config import Pipeline, Port
from wanedge.units import AgentUnit, UnitTiming, UserUnit
from wanedge.variants import choose_variant
from wanedge_runtimes.dtypes import is_finite, storage_dtype
from wanedge_runtimes.errors import ExecutionError, InputError, StateError
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Array, Call, Executable, RuntimeOptions, State

STATE_VERSION = 1
_NO_AUDIO = np.zeros(0, np.float32)
_NO_FRAMES = np.zeros((0, 0, 0, 3), np.uint8)
_NO_STATE: Final = "<idle>"


@dataclass(frozen=True)
class PipelineModel:
    """A pipeline's loaded graphs by component. Holds no state of any stream; safe to share between threads.

    The other fields as in `Model`.
    """

    pipeline: Pipeline
    graphs: Mapping[str, Executable]
    weights: str = "trained"
    variant: str = "fp32"
    runtime: str = "onnxruntime (cpu)"

    @property
    def name(self) -> str:
        return self.pipeline.name

    @classmethod
    def load(
        cls,
        source: str | Path | Bundle,
        runtime: str = "auto",
        variant: str | None = None,
        options: RuntimeOptions | None = None,
    ) -> Self:
        """Verify and load every component. Raises WanEdgeError, as `Model.load`."""
        bundle = source if isinstance(source, Bundle) else Bundle.open(Path(source))
        pipeline = bundle.pipeline
        if pipeline is None:
            raise BundleError(f"{bundle.origin} holds no pipeline", hint="load it with Model.load")
        engine = open_runtime(runtime, options)
        provider = engine.options.provider
        chosen = choose_variant(bundle, variant, engine.name, provider, options or RuntimeOptions())
        with bundle.opening():
            graphs = {name: engine.load(*bundle.graph(name, chosen)) for name in pipeline.components}
        return cls(pipeline, graphs, bundle.manifest.weights, chosen.name, f"{engine.name} ({provider})")


class PipelineStreamer:
    """One stream over a pipeline. `respond` answers a unit whose `inputs` hold one array per input port."""

    overlaps = False
    can_begin = True
    typed_waiting = 0

    def __init__(self, model: PipelineModel) -> None:
        self.model = model
        self.pipeline = model.pipeline
        self._states: dict[str, State] = {}
        self._calls: list[tuple[str, Call]] = []
        self._next = 0
        values = {name: _memory(port) for name, port in self.pipeline.inputs.items()}
        self._inputs = dict(values)
        for step in self.pipeline.steps:
            graph = model.graphs[step.component]
            state = self._states[step.component] = graph.new_state()
            bound = {t.name: values[step.takes[t.name]].reshape(t.concrete({})) for t in graph.spec.inputs}
            call = graph.prepare(state, {}, bound)
            self._calls.append((step.component, call))
            values |= {value: call.outputs[output] for output, value in step.gives.items()}
        self._outputs = {name: values[name].reshape(port.shape) for name, port in self.pipeline.outputs.items()}
        self._audio, self._frames = (next(iter(self.pipeline.ports(t, "outputs")), None) for t in ("audio", "frames"))

    @property
    def next_unit(self) -> int:
        """Index of the unit that `respond` expects."""
        return self._next

    def states(self) -> Iterator[tuple[str, State]]:
        """Components with their states."""
        yield from self._states.items()

    def step(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one unit: copies of the outputs by name. Raises InputError and ExecutionError."""
        return dict(self.respond(UserUnit(self._next, _NO_AUDIO, _NO_FRAMES, inputs=inputs)).outputs)

    def respond(self, user: UserUnit) -> AgentUnit:
        """Answer one unit. Raises InputError and ExecutionError."""
        self._check(user)
        started, graph_ns, stages_ms = perf_counter_ns(), 0, dict[str, float]()
        for name, memory in self._inputs.items():
            memory[...] = user.inputs[name]
        for component, call in self._calls:
            call.run()
            graph_ns += call.elapsed_ns
            stages_ms[component] = call.elapsed_ns / 1e6
        outputs = {name: values.copy() for name, values in self._outputs.items()}
        for name, values in outputs.items():
            if values.dtype.kind == "f" and not is_finite(values):
                raise ExecutionError(
                    f"output {name!r} of {self.pipeline.name} holds NaN or infinity in unit {user.index}",
                    hint="look at the inputs of that unit; reset the session, or restore an earlier state",
                )
        self._next += 1
        unit_ms = self.pipeline.unit_ms
        return AgentUnit(
            index=user.index,
            start_ms=round(user.index * unit_ms),
            end_ms=round((user.index + 1) * unit_ms),
            audio=_NO_AUDIO if self._audio is None else outputs[self._audio].ravel().astype(np.float32, copy=False),
            frames=_NO_FRAMES if self._frames is None else _as_frames(outputs[self._frames]),
            text="",
            tokens=(),
            state=_NO_STATE,
            timing=UnitTiming(
                graph_ms=graph_ns / 1e6,
                latency_ms=(perf_counter_ns() - started) / 1e6,
                components_ms=stages_ms,
            ),
            outputs=outputs,
        )

    def begin(self, user: UserUnit) -> None:
        """A pipeline answers one unit at a time: use `respond`. Raises InputError."""
        raise InputError(f"unit {user.index} cannot be begun: a pipeline answers at once", hint="respond(user)")

    def finish(self) -> AgentUnit:
        """See `begin`."""
        raise InputError("no unit was begun: a pipeline answers at once", hint="respond(user)")

    def commit(self) -> None:
        """Nothing waits until after emission."""

    def interrupt(self) -> None:
        """A pipeline has no agent to interrupt; its stream goes on."""

    def reset(self, world: str = "", seed: int | None = None) -> None:
        """Begin again at unit 0 on the same buffers. Raises InputError for a world text or a seed."""
        if world or seed is not None:
            raise InputError("a pipeline takes no world text and no seed", hint="reset()")
        for state in self._states.values():
            state.reset()
        self._next = 0

    def snapshot(self) -> tuple[dict[str, dict[str, Array]], dict[str, str]]:
        """Everything that the next unit depends on, as of `Streamer`."""
        about = {"version": STATE_VERSION, "pipeline": self.pipeline.name, "next_unit": self._next}
        return {name: state.snapshot() for name, state in self._states.items()}, {"streamer": json.dumps(about)}

    def restore(self, tensors: Mapping[str, Mapping[str, Array]], metadata: Mapping[str, str]) -> None:
        """The opposite of `snapshot`. Raises StateError."""
        hint = "use a file written by Session.save, with the bundle and the wanedge version that saved it"
        try:
            about = json.loads(metadata["streamer"])
            version, name, next_unit = about["version"], about["pipeline"], about["next_unit"]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise StateError(f"the saved state was not written by a pipeline ({error})", hint=hint) from error
        if (version, name) != (STATE_VERSION, self.pipeline.name) or type(next_unit) is not int or next_unit < 0:
            raise StateError(
                f"the saved state is version {version} of {name!r} at unit {next_unit!r}, "
                f"this is version {STATE_VERSION} of {self.pipeline.name!r}",
                hint=hint,
            )
        # A component without state leaves nothing in a file of tensors.
        missing = {name for name, state in self._states.items() if state.spec.states} - tensors.keys()
        if missing or tensors.keys() - self._states.keys():
            raise StateError(
                f"the saved state holds {sorted(tensors)}, this pipeline has {sorted(self._states)}", hint=hint
            )
        for component, state in self._states.items():
            state.restore(tensors.get(component, {}))
        self._next = next_unit

    def _check(self, user: UserUnit) -> None:
        if user.inputs.keys() != self._inputs.keys():
            raise InputError(
                f"unit {user.index} holds the inputs {sorted(user.inputs)}, the pipeline takes {sorted(self._inputs)}",
                hint="pass exactly these, by name",
            )
        for name, port in self.pipeline.inputs.items():
            check_unit(name, port, user.inputs[name])
        if user.index != self._next:
            raise InputError(
                f"unit {user.index} was given, unit {self._next} is next", hint="give every unit once and in order"
            )


def check_unit(name: str, port: Port, values: Array) -> None:
    """Raises InputError unless `values` are one unit of a port."""
    dtype = storage_dtype(port.dtype)
    if not isinstance(values, np.ndarray) or values.dtype != dtype or values.shape != port.shape:
        actual = f"{values.dtype} {list(values.shape)}" if isinstance(values, np.ndarray) else type(values).__name__
        raise InputError(
            f"input {name!r} is {actual}, a unit of it is {dtype} {list(port.shape)}",
            hint="pass an array of that dtype and shape for every unit",
        )
    if values.dtype.kind == "f" and not is_finite(values):
        raise InputError(f"input {name!r} holds NaN or infinity", hint="check the capture device or the decoder")


def _memory(port: Port) -> Array:
    return np.zeros(port.shape, storage_dtype(port.dtype))


def _as_frames(values: Array) -> Array:
    return values.reshape(-1, *values.shape[-3:])
