"""TensorRT's execution contexts: shapes, addresses, and an enqueue that checks all of them first."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.gpu_double import engines
from tests.gpu_double.failures import CudaFailure
from tests.gpu_double.gpu import LEGACY, PER_THREAD, Gpu, StreamState, Work
from tests.gpu_double.memory import ALIGNMENT, FIRST_DEVICE_ADDRESS, Allocation, Region
from tests.gpu_double.rules import Misuse
from tests.gpu_double.shapes import Dims, register
from tests.gpu_double.work import Op


@dataclass(eq=False)
class _ContextState:
    """What queued work and captured graphs share with an execution context. version: of its shapes and profile."""

    workspace: Allocation
    alive: bool = True
    version: int = 0
    dirty: bool = True  # shapes or profile changed since the last run
    last: list[Op] = field(default_factory=list)


class IExecutionContext:
    """One per stream at a time. Shapes and addresses stay from run to run."""

    _engine: Any  # ICudaEngine
    _gpu: Gpu
    _state: _ContextState
    _profile: int
    _shapes: dict[str, tuple[int, ...]]
    _addresses: dict[str, int]

    def __init__(self) -> None:
        raise TypeError("IExecutionContext: No constructor defined!")

    @classmethod
    def make(cls, engine: Any) -> "IExecutionContext":
        self = cls.__new__(cls)
        self._engine, self._gpu = engine, engine._gpu
        memory = np.zeros(1, np.uint8)
        self._state = _ContextState(
            Allocation(0, 1, "device", memory, label="the workspace of an execution context", rule="trt.concurrency")
        )
        self._profile = 0 if engine.num_optimization_profiles == 1 else -1
        self._shapes = {}
        self._addresses = {}
        register(self._gpu, self, "execution context", "an execution context")
        weakref.finalize(self, _close, self._gpu, self._state)
        return self

    @property
    def engine(self) -> Any:
        return self._engine

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    @property
    def all_binding_shapes_specified(self) -> bool:
        return not self.infer_shapes()

    def set_optimization_profile_async(self, profile_index: int, stream_handle: Any) -> bool:
        def act() -> None:
            gpu = self._gpu
            stream = gpu.stream(int(stream_handle))
            if not 0 <= profile_index < self._engine.num_optimization_profiles:
                gpu.misuse("trt.profile", f"the engine has no profile {profile_index}")
            if stream.capture is not None:
                gpu.invalidate(stream.capture)
                gpu.misuse("trt.modified", "the profile is set in a capture")
            if profile_index == self._profile and not self._state.dirty:
                return
            self._profile = profile_index
            self._shapes.clear()  # every input shape must be set again [NvInferRuntime.h, setOptimizationProfileAsync]
            self._modified()
            op = gpu._append(stream, Work("profile", "switch of a profile", None, writes=(self._workspace,)))
            self._state.last = [op]

        return self._guarded("set_profile", act)

    def set_input_shape(self, name: str, shape: Any) -> bool:
        def act() -> None:
            gpu = self._gpu
            tensor = self._tensor(name)
            sizes = tuple(int(size) for size in shape)
            if tensor.mode != "input":
                gpu.misuse("trt.names", f"{name} is an output")
            if self._profile < 0:
                gpu.misuse("trt.profile", "no profile is chosen, and the engine has several")
            low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
            if len(sizes) != len(low) or any(not a <= b <= c for a, b, c in zip(low, sizes, high, strict=True)):
                gpu.misuse("trt.profile", f"{name} {list(sizes)} is outside of {low} .. {high}")
            if self._shapes.get(name) != sizes:
                self._shapes[name] = sizes
                self._modified()

        return self._guarded("set_shape", act)

    def get_tensor_shape(self, name: str) -> Dims:
        """-1 for an axis that is not known yet."""
        tensor = self._tensor(name)
        dims = self._dims()
        return Dims([axis if isinstance(axis, int) else dims.get(axis, -1) for axis in tensor.shape])

    def set_tensor_address(self, name: str, memory: Any) -> bool:
        def act() -> None:
            tensor, address = self._tensor(name), int(memory)
            if address % ALIGNMENT:
                self._gpu.misuse("trt.alignment", f"{tensor.name} at {address:#x}")
            self._addresses[name] = address

        return self._guarded("set_address", act)

    def get_tensor_address(self, name: str) -> int:
        self._tensor(name)
        return self._addresses.get(name, 0)

    def infer_shapes(self) -> list[str]:
        """Names of inputs whose shape is missing."""
        return [
            tensor.name
            for tensor in self._engine._tensors.values()
            if tensor.mode == "input"
            and tensor.name not in self._shapes
            and any(isinstance(axis, str) for axis in tensor.shape)
        ]

    def execute_async_v3(self, stream_handle: Any) -> bool:
        def act() -> None:
            stream = self._gpu.stream(int(stream_handle))
            if stream.handle in (LEGACY, PER_THREAD):
                self._gpu.report("trt.default_stream", "enqueue in the default stream")
            bound = self._bound()
            self._require_aliases(bound)
            self._enqueue(stream, bound)

        return self._guarded("enqueue", act)

    def is_stream_capturable(self, stream: Any) -> bool:
        return int(stream) not in (0, LEGACY) and not self._state.dirty

    # --- checks -----------------------------------------------------------------------------------------------------

    def _bound(self) -> dict[str, tuple[engines.Tensor, tuple[int, ...], Region]]:
        gpu = self._gpu
        if self._profile < 0:
            gpu.misuse("trt.profile", "no profile is chosen, and the engine has several")
        if missing := self.infer_shapes():
            gpu.misuse("trt.shapes", f"no shape is set for {', '.join(missing)}")
        dims, found = self._dims(), dict[str, tuple[engines.Tensor, tuple[int, ...], Region]]()
        for tensor in self._engine._tensors.values():
            address = self._addresses.get(tensor.name, 0)
            if not address:
                gpu.misuse("trt.addresses", f"{tensor.name} has no address")
            shape = tensor.concrete(dims)
            allocation = gpu.memory.find(address)
            size = tensor.nbytes(shape)
            if allocation is None and address < FIRST_DEVICE_ADDRESS:
                gpu.misuse("memory.live", f"{tensor.name} lies in pageable memory of the host")
            if allocation is not None and not allocation.free_issued:
                room = allocation.address + allocation.size - address
                if room < size:
                    gpu.misuse("trt.size", f"{tensor.name} takes {size} bytes, {room} are in {allocation}")
            found[tensor.name] = (tensor, shape, gpu.region(address, size))
        return found

    def _require_aliases(self, bound: dict[str, tuple[engines.Tensor, tuple[int, ...], Region]]) -> None:
        aliases = self._engine._engine.aliases
        for output, source in aliases.items():
            if self._addresses[output] != self._addresses[source]:
                self._gpu.misuse("trt.alias", f"{output} and {source} have different addresses")
        regions = [(name, tensor.mode, region) for name, (tensor, _, region) in bound.items()]
        for name, mode, region in regions:
            if mode == "input":
                continue
            for other, _, place in regions:
                if other not in (name, aliases.get(name)) and region.size and region.overlaps(place):
                    if aliases.get(other) is not None and aliases.get(other) == aliases.get(name):
                        continue
                    self._gpu.misuse("trt.overlap", f"output {name} overlaps {other}")

    def _enqueue(self, stream: StreamState, bound: dict[str, tuple[engines.Tensor, tuple[int, ...], Region]]) -> None:
        gpu, state = self._gpu, self._state
        aliases = self._engine._engine.aliases
        outputs = [(name, region) for name, (tensor, _, region) in bound.items() if tensor.mode == "output"]
        program, parts = self._engine._engine.program, list(bound.values())

        def run() -> None:
            program.run([(tensor, shape, region.bytes()) for tensor, shape, region in parts])

        work = Work(
            "enqueue",
            f"engine with {outputs[0][0]}" if outputs else "engine",
            run,
            tuple(region for tensor, _, region in parts if tensor.mode == "input"),
            (*(region for _, region in outputs), self._workspace),
            tuple(region for name, region in outputs if name not in aliases),
            check=_unchanged(gpu, state, state.version),
        )
        if stream.capture is not None and state.dirty:
            gpu.invalidate(stream.capture)
            gpu.misuse("trt.warm", "a context is captured before it ran with these shapes")
        op = gpu.submit(stream, work)
        if op is not None:
            state.dirty = False
            state.last = [op]

    @property
    def _workspace(self) -> Region:
        return Region(0, 1, self._state.workspace)

    def _dims(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, sizes in self._shapes.items():
            for axis, size in zip(self._engine._tensors[name].shape, sizes, strict=True):
                if isinstance(axis, str) and found.setdefault(axis, size) != size:
                    self._gpu.misuse("trt.shapes", f"axis {axis} has the sizes {found[axis]} and {size}")
        return found

    def _modified(self) -> None:
        self._state.version += 1
        self._state.dirty = True

    def _tensor(self, name: str) -> engines.Tensor:
        found: engines.Tensor | None = self._engine._tensors.get(name)
        if found is None:
            self._gpu.misuse("trt.names", f"the engine has no tensor {name!r}")
        return found

    def _guarded(self, kind: str, act: Callable[[], None]) -> bool:
        """TensorRT reports by its log and a False."""
        try:
            with self._gpu.call(kind):
                act()
        except (CudaFailure, Misuse) as error:
            self._engine._log(f"IExecutionContext: {error}")
            return False
        return True


def _unchanged(gpu: Gpu, state: _ContextState, version: int) -> Callable[[], None]:
    def check() -> None:
        if not state.alive:
            gpu.misuse("graph.addresses", "a graph was captured with an execution context that is gone")
        if state.version != version:
            gpu.misuse("trt.modified", "the shapes or the profile of a captured execution context changed")

    return check


def _close(gpu: Gpu, state: _ContextState) -> None:
    state.alive = False
    if gpu.lost is None and any(not gpu.queue.is_known(op) for op in state.last):
        gpu.report("trt.lifetime", f"an execution context goes while '{state.last[0]}' is queued")
