"""ONNX Runtime's CUDA and TensorRT providers over device memory that is ours: nothing is copied around a run.

Each session runs in the one stream of its runtime and leaves synchronizing to us. Inputs that a session wants on the
host (a node that only the CPU has) are bound from the page-locked memory they were sent from, where there is one.
"""

from itertools import count
from typing import Any

from wanedge_runtimes.gpu.calls import Place, Table
from wanedge_runtimes.gpu.memory import DeviceStream
from wanedge_runtimes.gpu.plan import CallPlan, Loaded
from wanedge_runtimes.gpu.workspace import Device, DeviceExecutable
from wanedge_runtimes.ort.host import element_type
from wanedge_runtimes.spec import GraphSpec

NO_SYNC = "disable_synchronize_execution_providers"  # [onnxruntime_run_options_config_keys.h]
GRAPH_ID = "gpu_graph_id"  # of the CUDA graph that this run captures or replays; one for each set of addresses


class OrtCudaExecutable(DeviceExecutable):
    """See `runtime.Executable`. One ONNX Runtime session on the GPU: its weights are shared by every state.

    graphs: the session captures CUDA graphs itself. It keeps each until it is closed.
    """

    def __init__(self, ort: Any, session: Any, spec: GraphSpec, device: Device, *, graphs: bool) -> None:
        in_place = {s.present: s.past for s in spec.states if s.update == "in_place"}
        super().__init__(spec, device, Loaded(in_place, ()))
        self._ort, self._session = ort, session
        self._graph_ids = count(1) if graphs else None
        inputs = zip(session.get_inputs(), session.get_input_memory_infos(), strict=True)
        self._on_host = {arg.name for arg, memory in inputs if memory.name == "Cpu"}

    def launcher(self, plan: CallPlan, stream: DeviceStream) -> "OrtLauncher":
        ids = [next(self._graph_ids) for _ in range(plan.parities)] if self._graph_ids else []
        return OrtLauncher(self._ort, self._session, self.spec, plan, stream, self._on_host, ids)


class OrtLauncher:
    """See `calls.Launcher`: a binding and run options for each parity."""

    # ONNX Runtime's runs cannot be relied on to be capturable by others: some releases refuse it.
    capturable = False

    def __init__(
        self,
        ort: Any,
        session: Any,
        spec: GraphSpec,
        plan: CallPlan,
        stream: DeviceStream,
        on_host: set[str],
        graph_ids: list[int],
    ) -> None:
        self._session, self._stream = session, stream
        self._inputs = {t.name for t in spec.inputs} | {s.past for s in spec.states}
        self._on_host = on_host
        self._options = [_run_options(ort, graph_ids[parity : parity + 1]) for parity in range(plan.parities)]
        self._plain = ort.RunOptions()
        self._bindings: dict[int, Any] = {}
        held = [self._bindings, session]
        stream.free_with(self, held.clear, "a binding")

    def enqueue(self, table: Table, parity: int) -> None:
        # Binding is when ONNX Runtime copies a device tensor to a node on the CPU, so that is done before each run,
        # behind what writes it.
        copied = any(name in self._on_host and place.mirror is None for name, place in table.items())
        if copied:
            self._stream.synchronize()
        if copied or parity not in self._bindings:
            self._bindings[parity] = self._bind(table)
        self._session.run_with_iobinding(self._bindings[parity], self._plain if copied else self._options[parity])

    def _bind(self, table: Table) -> Any:
        binding = self._session.io_binding()
        for name, place in table.items():
            if name not in self._inputs:
                binding.bind_output(name, *self._on_device(place))
            elif name in self._on_host and place.mirror is not None:
                binding.bind_input(name, "cpu", 0, element_type(place.dtype), place.shape, place.mirror)
            else:
                binding.bind_input(name, *self._on_device(place))
        return binding

    def _on_device(self, place: Place) -> tuple[Any, ...]:
        return "cuda", self._stream.cuda.device, element_type(place.dtype), place.shape, place.address


def _run_options(ort: Any, graph_id: list[int]) -> Any:
    options = ort.RunOptions()
    options.add_run_config_entry(NO_SYNC, "1")
    for number in graph_id:
        options.add_run_config_entry(GRAPH_ID, str(number))
    return options
