"""Engines of the double: a small container around an ONNX graph, and ONNX Runtime that computes it.

    content = make_engine(path, profiles=[{"S": (1, 12, 128)}], aliases={"present.0.key": "past_key_values.0.key"})

The graph's weights go into the container, so the file can be moved. One ONNX Runtime session serves every engine with
the same content: an engine's weights are loaded once in a process.
"""

import hashlib
import json
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
import onnxruntime

from tests.gpu_double.memory import Bytes

MAGIC = b"wanedge engine double 1\n"
BINDINGS = 64  # per session: an address or shape more, and the least recent one is bound again

Profile = Mapping[str, tuple[int, int, int]]  # dynamic axis -> smallest, best, largest


class Element(NamedTuple):
    """A type of elements. code: TensorProto.DataType. numpy: what ONNX Runtime's binding takes for it."""

    code: int
    trt: str
    ort: str
    nbytes: int
    numpy: Any


elements: dict[int, Element] = {
    e.code: e
    for e in (
        Element(1, "FLOAT", "tensor(float)", 4, np.float32),
        Element(10, "HALF", "tensor(float16)", 2, np.float16),
        Element(16, "BF16", "tensor(bfloat16)", 2, 16),
        Element(7, "INT64", "tensor(int64)", 8, np.int64),
        Element(6, "INT32", "tensor(int32)", 4, np.int32),
        Element(3, "INT8", "tensor(int8)", 1, np.int8),
        Element(2, "UINT8", "tensor(uint8)", 1, np.uint8),
        Element(9, "BOOL", "tensor(bool)", 1, np.bool_),
    )
}


@dataclass(frozen=True)
class Options:
    """Options with which ONNX Runtime computes an engine.

    The defaults are what `RuntimeOptions(threads=1)` runs a graph with, so that a run on the double is equal to the
    same run there, bit for bit.
    """

    threads: int = 1
    disabled_optimizers: tuple[str, ...] = ("QDQS8ToU8Transformer",)


class Tensor(NamedTuple):
    """An input or output. shape: sizes, and names of dynamic axes. element: its code, see `elements`."""

    name: str
    mode: Literal["input", "output"]
    element: int
    shape: tuple[int | str, ...]

    @property
    def dtype(self) -> str:
        return elements[self.element].trt

    def concrete(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """KeyError for an axis without a size."""
        return tuple(axis if isinstance(axis, int) else dims[axis] for axis in self.shape)

    def nbytes(self, shape: Sequence[int]) -> int:
        return int(np.prod(shape, dtype=np.int64)) * elements[self.element].nbytes


class Engine(NamedTuple):
    """Content of a container."""

    library: str
    version: str
    tensors: tuple[Tensor, ...]
    aliases: dict[str, str]
    profiles: tuple[dict[str, tuple[int, int, int]], ...]
    program: "Program"


def make_engine(
    graph: Path | bytes,
    *,
    profiles: Sequence[Profile] = (),
    aliases: Mapping[str, str] | None = None,
    library: str = "tensorrt",
    version: str = "11.4.0.3",
) -> bytes:
    """An engine of the graph. aliases: output -> the input in whose memory it must lie."""
    model = onnx.load_from_string(graph) if isinstance(graph, bytes) else onnx.load(str(graph))
    # Graphs name outputs' axes freely; only what the inputs' sizes decide has a known size.
    tensors = [_tensor(value, "input") for value in model.graph.input]
    dynamic = {axis for t in tensors for axis in t.shape if isinstance(axis, str)}
    tensors += [_tensor(value, "output") for value in model.graph.output]
    for tensor in tensors:
        if loose := [axis for axis in tensor.shape if isinstance(axis, str) and axis not in dynamic]:
            raise ValueError(f"the size of {tensor.name}'s axis {loose} is not known from the inputs")
    for profile in profiles:
        if set(profile) != dynamic:
            raise ValueError(f"a profile gives sizes of {sorted(profile)}, the dynamic axes are {sorted(dynamic)}")
    head = json.dumps(
        {
            "library": library,
            "version": version,
            "tensors": [list(t) for t in tensors],
            "aliases": dict(aliases or {}),
            "profiles": [dict(p) for p in profiles] or [{}],
        }
    ).encode()
    graph_bytes: bytes = model.SerializeToString()
    return MAGIC + struct.pack("<I", len(head)) + head + graph_bytes


def read_engine(content: bytes, options: Options) -> Engine:
    """Read an engine. Raises ValueError for anything that `make_engine` did not write."""
    start = len(MAGIC) + 4
    if not content.startswith(MAGIC) or len(content) < start:
        raise ValueError("not an engine of the double")
    stop = start + struct.unpack("<I", content[len(MAGIC) : start])[0]
    try:
        head = json.loads(content[start:stop])
        program = load_program(content[stop:], options)
    except Exception as error:
        raise ValueError(f"a damaged engine: {error}") from error
    return Engine(
        head["library"],
        head["version"],
        tuple(Tensor(name, mode, element, tuple(shape)) for name, mode, element, shape in head["tensors"]),
        head["aliases"],
        tuple({axis: tuple(sizes) for axis, sizes in p.items()} for p in head["profiles"]),
        program,
    )


class Program:
    """An ONNX Runtime session that runs on memory where it lies."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._bindings: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def run(self, bound: Sequence[tuple[Tensor, tuple[int, ...], Bytes]]) -> None:
        """bound: every input and output with its shape and memory. Raises what ONNX Runtime raises."""
        key = tuple((tensor.name, shape, memory.ctypes.data) for tensor, shape, memory in bound)
        binding = self._bindings.pop(key, None)
        if binding is None:
            binding = self._session.io_binding()
            for tensor, shape, memory in bound:
                bind = binding.bind_input if tensor.mode == "input" else binding.bind_output
                bind(tensor.name, "cpu", 0, elements[tensor.element].numpy, shape, memory.ctypes.data)
        self._bindings[key] = binding
        if len(self._bindings) > BINDINGS:
            self._bindings.popitem(last=False)
        self._session.run_with_iobinding(binding)


_programs: dict[tuple[str, Options], Program] = {}
real_session = onnxruntime.InferenceSession  # `ort` may stand in front of it while the double is installed


def load_program(model: bytes | Path, options: Options) -> Program:
    """The session for this content: made once in a process."""
    content = model if isinstance(model, bytes) else str(model.resolve()).encode()
    key = (hashlib.sha256(content).hexdigest(), options)
    if key not in _programs:
        _programs[key] = Program(
            real_session(
                model if isinstance(model, bytes) else str(model),
                _session_options(options),
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(options.disabled_optimizers),
            )
        )
    return _programs[key]


def _session_options(options: Options) -> Any:
    so = onnxruntime.SessionOptions()
    so.log_severity_level = 4
    so.intra_op_num_threads = options.threads
    so.inter_op_num_threads = 1
    so.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    so.enable_mem_pattern = False
    so.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return so


def _tensor(value: Any, mode: Literal["input", "output"]) -> Tensor:
    kind = value.type.tensor_type
    if kind.elem_type not in elements:
        raise ValueError(f"{value.name} has element type {kind.elem_type}, which the double does not know")
    axes = tuple(axis.dim_param or axis.dim_value for axis in kind.shape.dim)
    return Tensor(value.name, mode, kind.elem_type, axes)
