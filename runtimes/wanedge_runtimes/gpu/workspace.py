"""A unit on the device: executables, and the workspace in which their calls run.

one copy in -> sequences of calls, each a CUDA graph -> one copy out, and one wait
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np

from wanedge_runtimes.arguments import OTHER_GRAPH, check_bound_names, check_dims, check_shape, concrete_shape, dims_of
from wanedge_runtimes.cached_calls import CachedCalls
from wanedge_runtimes.dtypes import spec_dtype
from wanedge_runtimes.errors import GraphError, StateError
from wanedge_runtimes.gpu.calls import DeviceCall, Foreign, Launcher, Replays
from wanedge_runtimes.gpu.cuda import ALIGNMENT, Cuda
from wanedge_runtimes.gpu.memory import Block, DeviceEvent, DeviceStream, DeviceTensor, new_tensor
from wanedge_runtimes.gpu.plan import CallPlan, Loaded, plan_call
from wanedge_runtimes.gpu.state import Blocking, DeviceState, Translated
from wanedge_runtimes.gpu.zero_copy import device_array, require_fits
from wanedge_runtimes.runtime import Array, Call, Executable, State
from wanedge_runtimes.spec import DType, GraphSpec, TensorSpec
from wanedge_runtimes.workspace import UNIT


class Device:
    """A GPU as the executables of one runtime share it.

    capture: sequences of calls become CUDA graphs. one_stream: everything runs in one stream, as ONNX Runtime's
    sessions are made for one.
    """

    def __init__(self, cuda: Cuda, *, capture: bool, one_stream: bool = False) -> None:
        self.cuda, self.capture = cuda, capture
        self.shared = DeviceStream(cuda) if one_stream else None

    def new_stream(self) -> DeviceStream:
        """A stream for one session's work."""
        return self.shared or DeviceStream(self.cuda)


class DeviceExecutable(ABC):
    """See `runtime.Executable`. A loaded graph on the device; how it is launched is the subclass's.

    device: what its workspaces belong to. aliases, profiles: see `plan.Loaded`.
    """

    def __init__(self, spec: GraphSpec, device: Device, loaded: Loaded) -> None:
        self.spec = spec
        self.device = device
        self._loaded = loaded
        self._calls: CachedCalls[DeviceState] = CachedCalls()

    @abstractmethod
    def launcher(self, plan: CallPlan, stream: DeviceStream) -> Launcher:
        """Launcher that puts the graph on `stream` at the plan's sizes."""

    def new_workspace(self) -> "DeviceWorkspace":
        return DeviceWorkspace(self.device)

    def new_state(self, stream: DeviceStream | None = None) -> DeviceState:
        """A state; stream: where the calls that are bound to it run, one of its own unless given."""
        with Translated(self.spec.component):
            return DeviceState(self.spec, stream or self.device.new_stream())

    def prepare(
        self, state: State, dims: Mapping[str, int] | None = None, bound: Mapping[str, Any] | None = None
    ) -> DeviceCall:
        """See `runtime.Executable.prepare`. `bound` host arrays are copied from and to around every run.

        A workspace's tensor, and an array of another library on the device (see zero_copy.py), is used where it lies.
        """
        if not isinstance(state, DeviceState) or state.spec != self.spec:
            raise StateError(f"this state belongs to another graph than {self.spec.component}", hint=OTHER_GRAPH)
        sizes = check_dims(self.spec, dims or {})
        check_bound_names(self.spec, bound or {})
        plan = plan_call(self._loaded, self.spec, sizes)
        memory = {
            tensor.name: self._memory(tensor, sizes, bound[tensor.name], state, written=written)
            for written, tensors in ((False, self.spec.inputs), (True, self.spec.outputs))
            for tensor in tensors
            if bound and tensor.name in bound
        }
        with Translated(self.spec.component):
            state.stream.cuda.activate()
            launcher = self.launcher(plan, state.stream)
        return DeviceCall(self.spec.component, plan, state.buffers, memory, launcher, self.device.capture)

    def _memory(
        self, tensor: TensorSpec, sizes: dict[str, int], value: Any, state: DeviceState, *, written: bool
    ) -> "Array | DeviceTensor | Foreign":
        shape = concrete_shape(self.spec, tensor, sizes)
        if isinstance(value, np.ndarray):
            check_shape(self.spec, tensor, shape, value)
            return value
        if isinstance(value, DeviceTensor):
            if (value.dtype, value.shape) != (tensor.dtype, shape) or value.stream is not state.stream:
                raise GraphError(
                    f"{self.spec.component}: {tensor.name!r} is {tensor.dtype} {list(shape)}; "
                    f"the tensor to bind is {value.dtype} {list(value.shape)}"
                    + ("" if value.stream is state.stream else " of another stream"),
                    hint="bind a tensor of the workspace that made the state",
                )
            return value
        state.stream.cuda.activate()
        foreign = device_array(value, state.stream.number)
        require_fits(
            foreign,
            tensor.name,
            tensor.dtype,
            shape,
            device=state.stream.cuda.device,
            written=written,
            aligned=ALIGNMENT,
        )
        return Foreign(foreign.address, tensor.dtype, shape, value)

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, Array]:
        """See `runtime.Executable.run`."""
        dims = dims_of(self.spec, inputs)
        if not isinstance(state, DeviceState) or state.spec != self.spec:
            raise StateError(f"this state belongs to another graph than {self.spec.component}", hint=OTHER_GRAPH)
        return self._calls.run(inputs, state, dims, self.prepare)


class DeviceSequence:
    """See `workspace.CallSequence`."""

    def __init__(self, name: str, calls: Sequence[DeviceCall], stream: DeviceStream) -> None:
        self.elapsed_ns = 0
        self._name, self._calls, self._stream = name, tuple(calls), stream
        self._replays = Replays(stream, all(call.capturable for call in calls))

    def run(self) -> None:
        """Start every call. Raises ExecutionError."""
        start = perf_counter_ns()
        with Translated(self._name):
            self._stream.cuda.activate()
            self._replays.start(self._calls)
        self.elapsed_ns = perf_counter_ns() - start


class DeviceWorkspace:
    """See `workspace.Workspace`: a stream, and what its calls exchange on the device.

    A group's arrays lie in one block, which is sent or received in one copy.
    """

    on_device = True

    def __init__(self, device: Device) -> None:
        with Translated("the GPU"):
            self.stream = device.new_stream()
        self.parallel = device.shared is None
        self._device = device
        self._sent: dict[str, Block] = {}
        self._received: dict[str, Block] = {}

    def new_state(self, executable: Executable) -> State:
        return self._resident(executable).new_state(self.stream)

    def prepare(
        self,
        executable: Executable,
        state: State,
        dims: Mapping[str, int] | None = None,
        bound: Mapping[str, Any] | None = None,
    ) -> Call:
        return self._resident(executable).prepare(state, dims, bound)

    def input(self, array: Array, group: str = UNIT) -> DeviceTensor:
        return self._sent.setdefault(group, Block(self.stream)).add(array, spec_dtype(array.dtype))

    def output(self, array: Array, group: str = UNIT) -> DeviceTensor:
        return self._received.setdefault(group, Block(self.stream)).add(array, spec_dtype(array.dtype))

    def constant(self, array: Array) -> DeviceTensor:
        with Blocking(self.stream, "a constant"):
            tensor = new_tensor(self.stream, spec_dtype(array.dtype), array.shape)
            held = np.ascontiguousarray(array)
            self.stream.cuda.copy(tensor.address, held.ctypes.data, held.nbytes, self.stream.raw)
            self.stream.synchronize()
        return tensor

    def scratch(self, dtype: DType, shape: tuple[int, ...]) -> DeviceTensor:
        with Translated("the GPU"):
            self.stream.cuda.activate()
            return new_tensor(self.stream, dtype, shape)

    def sequence(self, name: str, calls: Sequence[Call]) -> DeviceSequence:
        resident = [call for call in calls if isinstance(call, DeviceCall)]
        if len(resident) < len(calls) or any(call.inputs or call.outputs for call in resident):
            raise GraphError(
                f"{name}: a call of the sequence has memory on the host", hint="bind all of its inputs and outputs"
            )
        return DeviceSequence(name, resident, self.stream)

    def send(self, group: str = UNIT) -> None:
        with Translated("the copy to the GPU"):
            self.stream.cuda.activate()
            self._sent[group].send()

    def receive(self, group: str = UNIT) -> int:
        start = perf_counter_ns()
        with Blocking(self.stream, "the unit"):
            self._received[group].fetch()
        self._received[group].unpack()
        return perf_counter_ns() - start

    def beside(self) -> "DeviceWorkspace":
        other = DeviceWorkspace(self._device)
        self.stream.works_with(other.stream)
        return other

    def copy(self, target: DeviceTensor, source: DeviceTensor) -> None:
        with Translated("a copy on the GPU"):
            self.stream.cuda.activate()
            self.stream.cuda.copy(target.address, source.address, source.nbytes, self.stream.raw)

    def read_slots(self, state: State, name: str, slots: slice, target: DeviceTensor) -> None:
        self._copy_slots(state, name, slots, target, written=False)

    def write_slots(self, state: State, name: str, slots: slice, source: DeviceTensor) -> None:
        self._copy_slots(state, name, slots, source, written=True)

    def mark(self) -> DeviceEvent:
        return DeviceEvent(self.stream)

    def wait(self, mark: DeviceEvent) -> None:
        with Translated("the GPU"):
            self.stream.cuda.activate()
            mark.hold(self.stream)

    def fetch(self, group: str = UNIT) -> None:
        with Translated("the copy from the GPU"):
            self.stream.cuda.activate()
            self._received[group].fetch()

    def unpack(self, group: str = UNIT) -> int:
        start = perf_counter_ns()
        with Blocking(self.stream, "the unit"):
            pass
        self._received[group].unpack()
        return perf_counter_ns() - start

    def _copy_slots(self, state: State, name: str, slots: slice, tensor: DeviceTensor, *, written: bool) -> None:
        assert isinstance(state, DeviceState)
        runs = state.slot_runs(name, slots)
        if sum(size for _, size in runs) != tensor.nbytes:
            raise GraphError(f"{name}: {slots} is not as large as {list(tensor.shape)}", hint="pass [1, Hkv, n, Dh]")
        with Translated("a copy on the GPU"):
            cuda, raw, place = self.stream.cuda, self.stream.raw, tensor.address
            cuda.activate()
            for address, size in runs:
                cuda.copy(*((address, place) if written else (place, address)), size, raw)
                place += size

    def _resident(self, executable: Executable) -> DeviceExecutable:
        if not isinstance(executable, DeviceExecutable) or executable.device is not self._device:
            raise GraphError(
                f"{executable.spec.component} runs elsewhere than this workspace",
                hint="open_workspace takes all the executables that share one",
            )
        return executable
