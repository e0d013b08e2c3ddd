"""One graph bound to one state at one block size: the hot path."""

from collections.abc import Mapping
from time import perf_counter_ns
from typing import Any

from wanedge_runtimes.errors import ExecutionError
from wanedge_runtimes.ort.memory import HostMemory, bind_input, bind_output
from wanedge_runtimes.ort.state import StateBuffers
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.spec import GraphSpec


class OrtCall:
    """See `runtime.Call`. Holds the state's buffers, not the state: so a state can own its calls and still be freed.

    On the CPU everything is bound once and `run` hands ONNX Runtime the binding of the state's parity. On a device
    the inputs are bound again before every run, because binding is when ONNX Runtime copies a host array to it;
    the state stays where it is.
    """

    def __init__(
        self,
        session: Any,
        spec: GraphSpec,
        buffers: StateBuffers,
        inputs: Mapping[str, HostMemory],
        outputs: Mapping[str, HostMemory],
        on_device: bool,
    ) -> None:
        self.inputs: Mapping[str, Array] = {name: memory.array for name, memory in inputs.items()}
        self.outputs: Mapping[str, Array] = {name: memory.array for name, memory in outputs.items()}
        self.elapsed_ns = 0
        self._spec = spec
        self._run = session.run_with_iobinding
        self._buffers = buffers
        self._input_memory = inputs
        self._on_device = on_device
        self._bindings = [session.io_binding() for _ in range(buffers.parities)]
        for parity, binding in enumerate(self._bindings):
            self._bind_inputs(parity)
            for name, memory in outputs.items():
                bind_output(binding, name, memory)
            for state in spec.states:
                bind_output(binding, state.present, buffers.present(state.name, parity))

    def run(self) -> None:
        """Run once and advance the state. Raises ExecutionError."""
        start = perf_counter_ns()
        parity = self._buffers.parity
        try:
            if self._on_device:
                self._bind_inputs(parity)
            self._run(self._bindings[parity])
        except Exception as e:  # ONNX Runtime's exceptions share no base below Exception
            sizes = {name: list(array.shape) for name, array in self.inputs.items()}
            raise ExecutionError(
                f"{self._spec.component} failed while it ran on inputs {sizes}: {e}",
                hint="its state is now undefined: reset it or restore a snapshot before the next run",
            ) from e
        self._buffers.advance()
        self.elapsed_ns = perf_counter_ns() - start

    def _bind_inputs(self, parity: int) -> None:
        binding = self._bindings[parity]
        for name, memory in self._input_memory.items():
            bind_input(binding, name, memory)
        for state in self._spec.states:
            bind_input(binding, state.past, self._buffers.past(state.name, parity))
