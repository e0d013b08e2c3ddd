"""DLPack capsules of plain bytes, as cuda-core makes them: one axis of int8, versioned only where it was asked for.

An unversioned capsule cannot say that it is writable: NumPy makes a read-only array of it, and before 2.1 asks for no
other.
"""

import ctypes
from typing import Any, Final

CPU, CUDA, CUDA_HOST = 1, 2, 3  # DLDeviceType [dlpack.h]
_INT = 0


class _Tensor(ctypes.Structure):
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


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


# What a capsule or a consumer still uses, by the address of its structure.
_alive: dict[int, tuple[Any, ...]] = {}


@_Deleter  # type: ignore[untyped-decorator]
def _delete(address: int) -> None:
    _alive.pop(address, None)


# A library object of our own: prototypes are kept per object, and the product sets others.
_api = ctypes.PyDLL(None)
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_api.PyCapsule_IsValid.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def _collected(capsule: int) -> None:
    """A capsule goes. Whoever consumed it has renamed it, and calls the deleter."""
    for name in _NAMES.values():
        if _api.PyCapsule_IsValid(capsule, name):
            _alive.pop(_api.PyCapsule_GetPointer(capsule, name), None)


_NAMES: Final = {False: b"dltensor", True: b"dltensor_versioned"}


def make_capsule(owner: object, address: int, size: int, device: tuple[int, int], *, versioned: bool) -> object:
    """`owner` lives as long as the consumer's array."""
    shape = (ctypes.c_int64 * 1)(size)
    strides = (ctypes.c_int64 * 1)(1)
    tensor = _Tensor(address, *device, 1, _INT, 8, 1, shape, strides, 0)
    managed: Any = _Versioned(1, 0, None, _delete, 0, tensor) if versioned else _Managed(tensor, None, _delete)
    place = ctypes.addressof(managed)
    _alive[place] = (managed, shape, strides, owner)
    return _api.PyCapsule_New(place, _NAMES[versioned], ctypes.cast(_collected, ctypes.c_void_p))
