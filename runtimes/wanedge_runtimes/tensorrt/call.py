"""One engine bound to one state at one block size: the hot path, thin over `plan.py` and a CUDA provider.

Never run on a GPU by us so far; the tests drive it with a provider and an engine that only keep book.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.errors import ExecutionError
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.tensorrt.cuda import CudaProvider
from wanedge_runtimes.tensorrt.plan import Buffer, CallPlan, CapturePlan


@dataclass
class DeviceState:
    """Where a session's state lies. parity: which of two swapped buffers is the past."""

    addresses: dict[str, int]
    parity: int = 0


class EngineCall:
    """See `runtime.Call`. `inputs` and `outputs` are pinned host arrays that `run` copies from and to.

    given: addresses of device memory to use for inputs or outputs in place of own memory (zero-copy); these are not
    copied from or to the host.
    """

    def __init__(
        self,
        component: str,
        plan: CallPlan,
        context: Any,
        provider: CudaProvider,
        stream: Any,
        state: DeviceState,
        given: Mapping[str, int] | None = None,
    ) -> None:
        self.elapsed_ns = 0
        self._component, self._plan, self._context = component, plan, context
        self._cuda, self._stream, self._state = provider, stream, state
        self._captures, self._graphs = CapturePlan(), dict[int, Any]()
        self._addresses = dict(state.addresses)
        inputs: dict[str, Array] = {}
        outputs: dict[str, Array] = {}
        self._staged: dict[str, list[tuple[int, Any]]] = {"input": [], "output": []}  # device address, pinned memory
        for buffer in plan.buffers:
            if buffer.role != "state":
                self._place(buffer, given or {}, inputs if buffer.role == "input" else outputs)
        self.inputs: Mapping[str, Array] = inputs
        self.outputs: Mapping[str, Array] = outputs
        if plan.profile is not None:
            context.set_optimization_profile_async(plan.profile, provider.handle(stream))
        for buffer in plan.buffers:
            if buffer.role == "input":
                context.set_input_shape(buffer.name.partition(".")[2], buffer.shape)

    def run(self) -> None:
        """Run once and advance the state. Raises ExecutionError; the state is then undefined."""
        start = perf_counter_ns()
        try:
            self._run(self._state.parity)
        except Exception as error:  # CUDA and TensorRT raise what they like
            self._captures.forget()
            self._graphs.clear()
            raise ExecutionError(
                f"{self._component} failed on the GPU at {dict(self._plan.dims)}: {error}",
                hint="the CUDA context may be lost: open the session again from its last snapshot",
            ) from error
        self._state.parity = (self._state.parity + 1) % self._plan.parities
        self.elapsed_ns = perf_counter_ns() - start

    def _run(self, parity: int) -> None:
        for address, host in self._staged["input"]:
            self._cuda.to_device(address, host, self._stream)
        table = {tensor: self._addresses[buffer] for tensor, buffer in self._plan.bindings[parity]}
        self._enqueue(parity, table)
        for address, host in self._staged["output"]:
            self._cuda.to_host(host, address, self._stream)
        self._cuda.synchronize(self._stream)

    def _enqueue(self, parity: int, table: Mapping[str, int]) -> None:
        what = self._captures.decide(self._plan.dims, parity, table) if self._cuda.can_capture else "warm_up"
        if what == "replay":
            self._cuda.launch(self._graphs[parity], self._stream)
            return
        for tensor, address in table.items():
            self._context.set_tensor_address(tensor, address)
        if what == "warm_up":
            self._execute()
            return
        capture = self._cuda.begin_capture(self._stream)
        self._execute()
        self._graphs[parity] = self._cuda.end_capture(capture)
        self._cuda.launch(self._graphs[parity], self._stream)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._cuda.handle(self._stream)):
            raise RuntimeError("TensorRT did not enqueue the engine; its log says why")

    def _place(self, buffer: Buffer, given: Mapping[str, int], side: dict[str, Array]) -> None:
        name = buffer.name.partition(".")[2]
        if name in given:
            self._addresses[buffer.name] = given[name]
            return
        address, host = self._cuda.allocate(buffer.nbytes), self._cuda.pinned(buffer.nbytes)
        self._addresses[buffer.name] = address
        self._staged[buffer.role].append((address, host))
        side[name] = host.view(storage_dtype(buffer.dtype)).reshape(buffer.shape)
