"""A module shaped like onnxruntime with its CUDA execution provider, on the simulated device.

Everything that does not name CUDA is the installed package's own. A session with CUDAExecutionProvider computes by the
CPU provider, but its inputs and outputs lie in device memory, its runs are work in a stream, and CUDA graphs behave as
the provider's do: a replay uses the addresses of the capture, whatever is bound.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as real

from tests.gpu_double.copies import copy
from tests.gpu_double.engines import Program, Tensor, elements, real_session
from tests.gpu_double.failures import CudaFailure
from tests.gpu_double.gpu import Gpu, StreamState, Work, active

CUDA = "CUDAExecutionProvider"
SKIP_GRAPH = -1  # gpu_graph_id of a run without capture or replay

_state = real.capi.onnxruntime_pybind11_state
Fail, InvalidArgument = _state.Fail, _state.InvalidArgument

Bound = dict[str, tuple[Tensor, tuple[int, ...], int, str]]  # name -> tensor, shape, address, "cuda" or "cpu"


@contextmanager
def _calls(gpu: Gpu) -> Iterator[None]:
    """ONNX Runtime makes the device current by itself, and raises its own kind of error."""
    stack = gpu.context_stack
    stack.append(gpu)
    try:
        yield
    except CudaFailure as failure:
        raise Fail(f"[ONNXRuntimeError] : 1 : FAIL : CUDA failure {failure.code}: {failure}") from failure
    finally:
        stack.remove(gpu)


def get_available_providers() -> list[str]:
    return [CUDA, "CPUExecutionProvider"]


def preload_dlls(cuda: bool = True, cudnn: bool = True, msvc: bool = True, directory: str | None = None) -> None:
    """Counted, as `used["preload_dlls"]`."""
    del cuda, cudnn, msvc, directory
    active().used["preload_dlls"] += 1


class InferenceSession:
    """The installed package's session unless CUDAExecutionProvider is asked for."""

    def __new__(
        cls,
        path_or_bytes: Any,
        sess_options: Any = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
        **kwargs: Any,
    ) -> Any:
        names = [name if isinstance(name, str) else name[0] for name in providers or ()]
        if CUDA not in names:
            return real_session(path_or_bytes, sess_options, providers, provider_options, **kwargs)
        options = dict(zip(names, provider_options or [{}] * len(names), strict=True))
        options |= {entry[0]: entry[1] for entry in providers or () if not isinstance(entry, str)}
        return CudaSession(path_or_bytes, sess_options, names, options[CUDA], kwargs)


class CudaSession:
    """A session on the device. options: of the CUDA provider, as strings."""

    def __init__(
        self, graph: Any, sess_options: Any, names: list[str], options: Mapping[str, Any], kwargs: dict[str, Any]
    ) -> None:
        self._gpu = gpu = active()
        self._names = names
        self._options = {key: str(value) for key, value in options.items()}
        unknown = set(self._options) - _OPTIONS
        if unknown:
            raise InvalidArgument(f"[ONNXRuntimeError] : 2 : unknown provider option: {sorted(unknown)[0]}")
        if self._options.get("device_id", "0") != "0":
            raise Fail(f"[ONNXRuntimeError] : 1 : FAIL : CUDA failure 101: no device {self._options['device_id']}")
        with _calls(gpu), gpu.call("ort_session"):
            gpu.used["allocations"] += 1
            self._session = real_session(graph, sess_options, providers=["CPUExecutionProvider"], **kwargs)
            self._program = Program(self._session)
            given = int(self._options.get("user_compute_stream", "0"))
            self._stream = gpu.stream(given) if given else _own_stream(gpu, self)
        self._graphs: dict[int, tuple[Any, ...]] = {}
        self._shapes: set[tuple[Any, ...]] = set()
        handle = gpu.new_handle()
        gpu.objects[handle] = _Alive()
        weakref.finalize(self, gpu.objects.pop, handle, None)

    def get_providers(self) -> list[str]:
        return list(dict.fromkeys([*self._names, "CPUExecutionProvider"]))

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {name: self._options if name == CUDA else {} for name in self.get_providers()}

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def get_modelmeta(self) -> Any:
        return self._session.get_modelmeta()

    def get_input_memory_infos(self) -> list[Any]:
        return [_CudaMemory() for _ in self.get_inputs()]

    def get_output_memory_infos(self) -> list[Any]:
        return [_CudaMemory() for _ in self.get_outputs()]

    def io_binding(self) -> "IOBinding":
        return IOBinding(self)

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None) -> Any:
        """Arrays in, arrays out: every input goes to the device, every output comes back, and the host waits."""
        gpu = self._gpu
        with _calls(gpu), gpu.call("ort_run"):
            if self._captures(run_options):
                gpu.misuse("ort.graph", "a run without binding with enable_cuda_graph")
            gpu.used["h2d"] += len(input_feed)
            gpu.count("enqueue", launched=True)
            gpu.queue.wait_for(self._stream.last)
            found = self._session.run(output_names, input_feed)
            gpu.used["d2h"] += len(found)
            gpu.used["syncs"] += 1
            return found

    def run_with_iobinding(self, iobinding: "IOBinding", run_options: Any = None) -> None:
        gpu = self._gpu
        with _calls(gpu), gpu.call("ort_run"):
            gpu.raise_lost()
            if self._stream.capture is not None:
                gpu.invalidate(self._stream.capture)
                gpu.misuse(
                    "capture.allocate", "a run of ONNX Runtime in a capture", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
                )
            bound = iobinding.complete()
            if self._captures(run_options):
                self._replay(bound, int(_entry(run_options, "gpu_graph_id", "0")))
                gpu.used["syncs"] += 1  # a replay synchronizes whatever the run options say [onnxruntime 1.32]
                return
            if (shapes := tuple((name, entry[1]) for name, entry in bound.items())) not in self._shapes:
                self._shapes.add(shapes)
                gpu.used["allocations"] += 1  # the arena grows for a new shape
            self._submit(bound)
            self._back(bound)
            if _entry(run_options, "disable_synchronize_execution_providers", "0") != "1":
                gpu.used["syncs"] += 1
                gpu.queue.wait_for(self._stream.last)
                gpu.raise_lost()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _captures(self, run_options: Any) -> bool:
        on = self._options.get("enable_cuda_graph", "0") in ("1", "True")
        return on and _entry(run_options, "gpu_graph_id", "0") != str(SKIP_GRAPH)

    def _replay(self, bound: Bound, graph: int) -> None:
        gpu = self._gpu
        if on_host := [name for name, entry in bound.items() if entry[3] != "cuda"]:
            gpu.misuse("ort.graph", f"{on_host[0]} is bound in host memory")
        key = tuple((name, shape, address) for name, (_, shape, address, _) in bound.items())
        captured = self._graphs.get(graph)
        if captured is None:
            # The first run allocates, the second is captured and then launched: the graph is executed twice.
            gpu.used["allocations"] += 1
            gpu.used["graphs"] += 1
            self._submit(bound)
            self._graphs[graph] = (key, dict(bound))
            captured = self._graphs[graph]
        elif captured[0] != key:
            changed = next(name for (name, *a), (_, *b) in zip(key, captured[0], strict=True) if a != b)
            gpu.report("ort.graph", f"{changed} is bound elsewhere than at the capture of graph {graph}")
        self._submit(captured[1], launched=False)
        gpu.used["launches"] += 1
        gpu.used["graph_launches"] += 1

    def _submit(self, bound: Bound, *, launched: bool = True) -> None:
        gpu = self._gpu
        parts = [(t, shape, gpu.region(address, t.nbytes(shape))) for t, shape, address, _ in bound.values()]
        inputs = tuple(region for tensor, _, region in parts if tensor.mode == "input")
        outputs = tuple(region for tensor, _, region in parts if tensor.mode == "output")
        program = self._program

        def run() -> None:
            program.run([(tensor, shape, region.bytes()) for tensor, shape, region in parts])

        work = Work(
            "enqueue",
            f"session with {next(iter(bound))}",
            run,
            inputs,
            outputs,
            tuple(region for region in outputs if not any(region.overlaps(other) for other in inputs)),
        )
        gpu.count("enqueue", launched=launched)
        gpu._append(self._stream, work)

    def _back(self, bound: Bound) -> None:
        """Outputs bound in host memory are copied behind the run, and the host waits."""
        back = [entry for entry in bound.values() if entry[0].mode == "output" and entry[3] == "cpu"]
        if back:
            self._gpu.used["d2h"] += len(back)
            self._gpu.used["syncs"] += 1
            self._gpu.queue.wait_for(self._stream.last)


class IOBinding:
    """Places of inputs and outputs of a run. Memory of the host is copied: inputs when they are bound."""

    def __init__(self, session: CudaSession) -> None:
        self._session = session
        self._kept: dict[str, Any] = {}  # copies of inputs that were bound in host memory
        self._inputs: Bound = {}
        self._outputs: Bound = {}

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        entry = self._entry("input", name, device_type, device_id, element_type, shape, buffer_ptr)
        tensor, sizes, address, where = entry
        if where == "cpu":
            gpu = self._session._gpu
            with _calls(gpu), gpu.call("h2d"):
                gpu.used["h2d"] += 1
                gpu.used["syncs"] += 1
                self._kept[name] = copy = gpu.region(address, tensor.nbytes(sizes)).bytes().copy()
            entry = (tensor, sizes, copy.ctypes.data, where)
        self._inputs[name] = entry

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        if buffer_ptr is None:
            raise NotImplementedError("the double has no outputs that ONNX Runtime allocates")
        if element_type is None or shape is None:
            raise ValueError("`element_type` and `shape` are to be provided if pre-allocated memory is provided")
        self._outputs[name] = self._entry("output", name, device_type, device_id, element_type, shape, buffer_ptr)

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        array = np.ascontiguousarray(arr_on_cpu)
        self.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def bind_ortvalue_input(self, name: str, ortvalue: "CudaValue") -> None:
        self.bind_input(name, "cuda", 0, ortvalue.element, ortvalue.shape(), ortvalue.data_ptr())
        self._kept[name] = ortvalue

    def bind_ortvalue_output(self, name: str, ortvalue: "CudaValue") -> None:
        self.bind_output(name, "cuda", 0, ortvalue.element, ortvalue.shape(), ortvalue.data_ptr())
        self._kept[name] = ortvalue

    def synchronize_inputs(self) -> None:
        self._wait()

    def synchronize_outputs(self) -> None:
        self._wait()

    def clear_binding_inputs(self) -> None:
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        self._outputs.clear()

    def complete(self) -> Bound:
        """Everything that is bound, in the graph's order. Raises InvalidArgument where something is missing."""
        session = self._session
        bound: Bound = {}
        for args, side in ((session.get_inputs(), self._inputs), (session.get_outputs(), self._outputs)):
            for arg in args:
                if arg.name not in side:
                    raise InvalidArgument(f"[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : {arg.name} is not bound")
                bound[arg.name] = side[arg.name]
        return bound

    def _wait(self) -> None:
        gpu, stream = self._session._gpu, self._session._stream
        with _calls(gpu):
            gpu.stream_sync(stream)

    def _entry(
        self,
        mode: Any,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: Sequence[int],
        address: int,
    ) -> tuple[Tensor, tuple[int, ...], int, str]:
        session = self._session
        args = {arg.name: arg for arg in (session.get_inputs() if mode == "input" else session.get_outputs())}
        if name not in args:
            raise Fail(f"[ONNXRuntimeError] : 1 : FAIL : no {mode} {name}")
        if device_id != 0 or device_type not in ("cuda", "cpu"):
            raise Fail(f"[ONNXRuntimeError] : 1 : FAIL : no device {device_type} {device_id}")
        element = elements.get(element_type) if isinstance(element_type, int) else None
        element = element or next((e for e in elements.values() if e.numpy is element_type), None)
        sizes = tuple(int(size) for size in shape)
        if element is None or element.ort != args[name].type or not _fits(sizes, args[name].shape):
            raise InvalidArgument(
                f"[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : {name} is {args[name].type} {args[name].shape}, "
                f"bound as {element_type} {list(sizes)}"
            )
        gpu = session._gpu
        found = gpu.memory.find(int(address))
        if (found is not None and found.kind == "device") != (device_type == "cuda"):
            gpu.misuse("ort.binding", f"{name} at {int(address):#x} is not memory of {device_type}")
        tensor = Tensor(name, mode, element.code, sizes)
        with _calls(gpu):
            gpu.region(int(address), tensor.nbytes(sizes))
        return tensor, sizes, int(address), device_type


class CudaValue:
    """OrtValue on the device: memory of its own, copied to and from while the host waits."""

    def __init__(self, shape: Sequence[int], element: Any) -> None:
        self._gpu, self._shape, self.element = active(), tuple(shape), element
        self._stream = self._gpu.stream(0)
        self._dtype = np.dtype(np.uint16 if element == 16 else element)
        self._size = int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize
        with _calls(self._gpu):
            self._address = self._gpu.malloc(self._size).address

    def shape(self) -> list[int]:
        return list(self._shape)

    def data_ptr(self) -> int:
        return self._address

    def device_name(self) -> str:
        return "cuda"

    def numpy(self) -> Any:
        found = np.empty(self._shape, self._dtype)
        with _calls(self._gpu):
            copy(self._gpu, found.ctypes.data, self._address, self._size, self._stream)
        return found

    def update_inplace(self, np_arr: Any) -> None:
        values = np.ascontiguousarray(np_arr)
        if values.shape != self._shape or values.dtype != self._dtype:
            raise Fail(f"an OrtValue {self._dtype} {list(self._shape)} cannot take {values.dtype} {list(values.shape)}")
        with _calls(self._gpu):
            copy(self._gpu, self._address, values.ctypes.data, self._size, self._stream)
            self._gpu.stream_sync(self._stream)

    def __del__(self) -> None:
        if hasattr(self, "_address"):
            with _calls(self._gpu):
                self._gpu.free(self._address)


class OrtValue:
    """The installed package's OrtValue, or one on the device."""

    @staticmethod
    def ortvalue_from_shape_and_type(
        shape: Sequence[int], element_type: Any, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1
    ) -> Any:
        if device_type != "cuda":
            return real.OrtValue.ortvalue_from_shape_and_type(shape, element_type, device_type, device_id, vendor_id)
        return CudaValue(shape, element_type)

    @staticmethod
    def ortvalue_from_numpy(numpy_obj: Any, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1) -> Any:
        if device_type != "cuda":
            return real.OrtValue.ortvalue_from_numpy(numpy_obj, device_type, device_id, vendor_id)
        value = CudaValue(numpy_obj.shape, numpy_obj.dtype.type)
        value.update_inplace(numpy_obj)
        return value


class _CudaMemory:
    name = "Cuda"
    device_id = 0


class _Alive:
    kind = "ONNX Runtime session"

    def __str__(self) -> str:
        return self.kind


# Options of the CUDA provider that the installed package knows [onnxruntime, cuda_provider_options.h].
_OPTIONS = frozenset(
    {
        "device_id",
        "user_compute_stream",
        "enable_cuda_graph",
        "gpu_mem_limit",
        "arena_extend_strategy",
        "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace",
        "cudnn_conv1d_pad_to_nc1d",
        "do_copy_in_default_stream",
        "has_user_compute_stream",
        "tunable_op_enable",
        "tunable_op_tuning_enable",
        "enable_skip_layer_norm_strict_mode",
        "prefer_nhwc",
        "use_tf32",
        "use_ep_level_unified_stream",
        "fuse_conv_bias",
        "sdpa_kernel",
    }
)


def _own_stream(gpu: Gpu, owner: object) -> StreamState:
    stream = gpu.stream_create()
    weakref.finalize(owner, gpu.stream_destroy, stream)
    return stream


def _entry(run_options: Any, key: str, default: str) -> str:
    if run_options is None:
        return default
    try:
        return str(run_options.get_run_config_entry(key))
    except RuntimeError:  # the entry was not added
        return default


def _fits(sizes: tuple[int, ...], shape: Sequence[Any]) -> bool:
    return len(sizes) == len(shape) and all(a == b or not isinstance(b, int) for a, b in zip(sizes, shape, strict=True))


def make_module() -> ModuleType:
    """The installed onnxruntime with what names CUDA replaced."""
    module = ModuleType("onnxruntime")
    module.__dict__.update({name: value for name, value in vars(real).items() if not name.startswith("__")})
    module.__version__, module.__path__ = real.__version__, real.__path__  # type: ignore[attr-defined]
    for thing in (InferenceSession, IOBinding, OrtValue, get_available_providers, preload_dlls):
        setattr(module, thing.__name__, thing)
    return module
