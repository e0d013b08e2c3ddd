"""Device arrays of other libraries, used in place: by `__cuda_array_interface__` (CuPy, pycuda) or DLPack (torch).

    found = device_array(tensor)                      # address, dtype, shape, device
    require_fits(found, "embeddings", "float32", (1, 12, 64))

Only what these interfaces say is read; nothing here touches CUDA, so all of it runs without a GPU. The array must stay
alive and where it is for as long as the call that it is bound to, and its own work on it must be done before `run`.
"""

import ctypes
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from wanedge_runtimes.errors import InputError
from wanedge_runtimes.spec import DType


class DeviceArray(NamedTuple):
    """address: of the first element. device: index of the GPU, None where the interface does not tell."""

    address: int
    dtype: DType
    shape: tuple[int, ...]
    device: int | None
    writable: bool


class SupportsDlpack(Protocol):
    def __dlpack__(self, *, stream: Any = None) -> Any: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


_ELSEWHERE: Final = "pass a CUDA tensor, a CuPy or a pycuda array; host arrays go through call.inputs"
_CONTIGUOUS: Final = "call .contiguous() on it first"

# DLPack's numbers [dlpack.h]: kinds of memory that a kernel may read at the address itself, and codes of types.
_CUDA, _CUDA_MANAGED = 2, 13
_MEMORY: Final = {1: "host memory", 3: "page-locked host memory"}
_TYPES: Final[dict[tuple[int, int], DType]] = {
    (0, 8): "int8",
    (0, 32): "int32",
    (0, 64): "int64",
    (1, 8): "uint8",
    (2, 16): "float16",
    (2, 32): "float32",
    (4, 16): "bfloat16",
    (6, 8): "bool",
}
_TYPESTRS: Final[dict[str, DType]] = {
    "i1": "int8",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "f2": "float16",
    "f4": "float32",
    "b1": "bool",
}


def device_array(array: Any, stream: int | None = None) -> DeviceArray:
    """Address, dtype, shape and device of an array. stream: that must see the array's content, for DLPack.

    Raises InputError for an array in host memory, one with gaps, or one of a type that no graph has.
    """
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is not None:
        return from_interface(interface)
    if not hasattr(array, "__dlpack_device__"):
        raise InputError(f"a {type(array).__name__} is not in device memory", hint=_ELSEWHERE)
    kind, device = map(int, array.__dlpack_device__())
    if kind not in (_CUDA, _CUDA_MANAGED):
        raise InputError(
            f"a {type(array).__name__} is in {_MEMORY.get(kind, f'memory of kind {kind}')}, not on a CUDA device",
            hint=_ELSEWHERE,
        )
    return from_dlpack(array, stream)._replace(device=device)


def from_interface(interface: Mapping[str, Any]) -> DeviceArray:
    """A `__cuda_array_interface__`, version 0 to 3. Raises InputError."""
    shape = tuple(map(int, interface["shape"]))
    typestr = str(interface["typestr"])
    dtype = _TYPESTRS.get(typestr[1:])
    if dtype is None or typestr[0] == ">":
        raise InputError(f"a device array of type {typestr!r} fits no graph", hint="cast it to the input's dtype first")
    if interface.get("mask") is not None:
        raise InputError("the device array has a mask", hint="fill its gaps and pass the plain array")
    itemsize = int(typestr[2:])
    strides = interface.get("strides")
    if strides is not None and not _contiguous(shape, tuple(int(s) for s in strides), itemsize):
        raise InputError("the device array is not C-contiguous", hint=_CONTIGUOUS)
    address, read_only = interface["data"]
    return DeviceArray(int(address or 0), dtype, shape, None, not read_only)


def from_dlpack(array: SupportsDlpack, stream: int | None = None) -> DeviceArray:
    """Read a DLPack capsule, on any device. The capsule is not consumed: `array` stays the owner.

    Raises InputError for an array with gaps or of a type that no graph has.
    """
    capsule = array.__dlpack__() if stream is None else array.__dlpack__(stream=stream)
    tensor = _ManagedTensor.from_address(_capsule_pointer(capsule, b"dltensor")).tensor
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    kind = (int(tensor.code), int(tensor.bits))
    dtype = _TYPES.get(kind) if tensor.lanes == 1 else None
    if dtype is None:
        raise InputError(
            f"a device array of DLPack type {kind} fits no graph", hint="cast it to the input's dtype first"
        )
    if tensor.strides:
        strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim))
        if not _contiguous(shape, strides, 1):  # DLPack counts in elements
            raise InputError("the device array is not C-contiguous", hint=_CONTIGUOUS)
    address = int(tensor.data or 0) + int(tensor.byte_offset)
    return DeviceArray(address, dtype, shape, int(tensor.device_id), True)


def require_fits(
    array: DeviceArray,
    name: str,
    dtype: DType,
    shape: tuple[int, ...],
    *,
    device: int | None = None,
    written: bool = False,
    aligned: int = 1,
) -> None:
    """Raise InputError unless the array can be the tensor `name`. written: it is an output. aligned: bytes."""
    if (array.dtype, array.shape) != (dtype, shape):
        raise InputError(
            f"'{name}' is {dtype} {list(shape)}, and the device array is {array.dtype} {list(array.shape)}",
            hint="cast and reshape it on the device first",
        )
    if written and not array.writable:
        raise InputError(f"'{name}' is an output, and the device array is read-only", hint="pass a copy of it")
    if None not in (device, array.device) and device != array.device:
        raise InputError(
            f"'{name}' lies on GPU {array.device}, the engine runs on GPU {device}", hint="move it there first"
        )
    if array.address % aligned:
        raise InputError(
            f"'{name}' lies at an address that is no multiple of {aligned} bytes, which TensorRT asks for",
            hint="pass a copy of it: a new allocation is aligned, a part of another array may not be",
        )


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Return whether the strides are those of C order; an axis of one element, or of an empty array, has any."""
    if 0 in shape or not shape:
        return True
    expected = itemsize * np.cumprod((1, *shape[:0:-1]), dtype=np.int64)[::-1]
    return all(n == 1 or s == e for n, s, e in zip(shape, strides, expected.tolist(), strict=True))


class _Tensor(ctypes.Structure):
    """DLTensor [dlpack.h]."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _ManagedTensor(ctypes.Structure):
    """The beginning of DLManagedTensor; what follows is the producer's."""

    _fields_ = (("tensor", _Tensor),)


def _capsule_pointer(capsule: Any, name: bytes) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return int(get(capsule, name))
