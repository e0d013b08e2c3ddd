"""The ONNX Runtime runtime: load a graph once, give every session its own state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wanedge_runtimes.arguments import (
    OTHER_GRAPH,
    check_bound_names,
    check_dims,
    check_memory,
    check_shape,
    concrete_shape,
    dims_of,
)
from wanedge_runtimes.cached_calls import CachedCalls
from wanedge_runtimes.errors import RuntimeUnavailable, StateError
from wanedge_runtimes.ort.host import HostMemory, OrtCall, OrtState, StateBuffers, host_memory
from wanedge_runtimes.ort.session import check_graph, import_onnxruntime, open_session, require_provider
from wanedge_runtimes.promises import check_promises
from wanedge_runtimes.runtime import Array, Executable, RuntimeOptions, State
from wanedge_runtimes.spec import GraphSpec, TensorSpec


class OrtRuntime:
    """ONNX Runtime on the CPU, or on an NVIDIA GPU through its CUDA or TensorRT execution provider.

    Raises MissingExtra when onnxruntime (on a GPU: or cuda-core) is not installed, RuntimeUnavailable when it lacks
    the provider, when there is no GPU, and for CUDA graphs where there are none.
    """

    name = "onnxruntime"

    def __init__(self, options: RuntimeOptions | None = None) -> None:
        self.options = options or RuntimeOptions()
        self._ort = import_onnxruntime(self.options.provider)
        require_provider(self._ort, self.options.provider)
        if self.options.cuda_graphs and self.options.provider != "cuda":
            raise RuntimeUnavailable(
                f"ONNX Runtime's provider {self.options.provider!r} has no CUDA graphs here",
                hint="leave out cuda_graphs, or choose the provider 'cuda'",
            )
        self._device = None if self.options.provider == "cpu" else self._open_device()

    def load(self, graph: Path, spec: GraphSpec) -> Executable:
        """Load and check a graph.

        Raises GraphError (file missing or damaged, or not what the spec says), RuntimeUnavailable (no device).
        """
        check_promises(graph, spec)
        if self._device is None:
            session = open_session(self._ort, graph, spec.component, self.options)
            check_graph(graph, spec, session.get_inputs(), session.get_outputs())
            return OrtExecutable(session, spec)
        from wanedge_runtimes.ort.cuda import OrtCudaExecutable

        self._device.cuda.activate()
        stream = self._device.new_stream()
        session = open_session(self._ort, graph, spec.component, self.options, stream=stream.number)
        check_graph(graph, spec, session.get_inputs(), session.get_outputs())
        return OrtCudaExecutable(self._ort, session, spec, self._device, graphs=bool(self.options.cuda_graphs))

    def _open_device(self) -> Any:
        from wanedge_runtimes.gpu.cuda import open_cuda
        from wanedge_runtimes.gpu.workspace import Device

        return Device(open_cuda(self.options.device), capture=False, one_stream=True)


class OrtExecutable:
    """See `runtime.Executable`. One ONNX Runtime session on the CPU: its weights are shared by every state."""

    def __init__(self, session: Any, spec: GraphSpec) -> None:
        self.spec = spec
        self._session = session
        self._calls: CachedCalls[OrtState] = CachedCalls()

    def new_state(self) -> OrtState:
        return OrtState(self.spec)

    def prepare(
        self,
        state: State,
        dims: Mapping[str, int] | None = None,
        bound: Mapping[str, Array] | None = None,
    ) -> OrtCall:
        """See `runtime.Executable.prepare`."""
        buffers = self._buffers_of(state)
        sizes, arrays = check_dims(self.spec, dims or {}), dict(bound or {})
        check_bound_names(self.spec, arrays)
        return OrtCall(
            self._session,
            self.spec,
            buffers,
            {t.name: self._memory(t, sizes, arrays, written=False) for t in self.spec.inputs},
            {t.name: self._memory(t, sizes, arrays, written=True) for t in self.spec.outputs},
        )

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, Array]:
        """See `runtime.Executable.run`."""
        dims = dims_of(self.spec, inputs)
        self._buffers_of(state)
        assert isinstance(state, OrtState)
        return self._calls.run(inputs, state, dims, self.prepare)

    def _buffers_of(self, state: State) -> StateBuffers:
        if not isinstance(state, OrtState) or state.spec != self.spec:
            raise StateError(f"this state belongs to another graph than {self.spec.component}", hint=OTHER_GRAPH)
        return state.buffers

    def _memory(self, t: TensorSpec, dims: dict[str, int], bound: dict[str, Array], written: bool) -> HostMemory:
        shape = concrete_shape(self.spec, t, dims)
        if t.name not in bound:
            return host_memory(t.dtype, shape)
        check_shape(self.spec, t, shape, bound[t.name])
        check_memory(self.spec, t, bound[t.name], written=written)
        return HostMemory(bound[t.name], t.dtype)
