"""The spec's element types on the host and in ONNX Runtime."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wanedge_runtimes.spec import DType

# bfloat16 has no numpy type; it travels as its bit pattern.
_STORAGE: dict[str, np.dtype[Any]] = {"bfloat16": np.dtype(np.uint16)}

_ORT_TYPE: dict[DType, str] = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "bfloat16": "tensor(bfloat16)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
    "int8": "tensor(int8)",
    "uint8": "tensor(uint8)",
    "bool": "tensor(bool)",
}

_SPEC_DTYPE: dict[str, DType] = {np.dtype(name).name: name for name in _ORT_TYPE if name != "bfloat16"}

ONNX_BFLOAT16 = 16  # TensorProto.DataType.BFLOAT16


def storage_dtype(dtype: DType) -> np.dtype[Any]:
    """The numpy dtype that holds `dtype` on the host: itself, or uint16 for bfloat16."""
    return _STORAGE.get(dtype) or np.dtype(dtype)


def spec_dtype(dtype: np.dtype[Any]) -> DType:
    """The spec's name of a numpy dtype. Raises KeyError for one that no graph has."""
    return _SPEC_DTYPE[dtype.name]


def is_finite(x: NDArray[Any]) -> bool:
    """Return whether a float array holds neither NaN nor infinity, in one pass over float32.

    Both survive a sum of squares; so does no finite value of a network, whose square would have to exceed 3e38.
    """
    return finite_check(x)()


def finite_check(x: NDArray[Any]) -> Callable[[], bool]:
    """Return `is_finite` of what this array holds when it is called.

    For memory that is checked every unit. After a graph has run, no line of Python is in the processor's caches, and
    the questions about dtype and layout take seven times as long as the product itself.
    """
    if x.dtype != np.float32 or not x.flags.c_contiguous:
        return lambda: bool(np.isfinite(x).all())
    flat = x.reshape(-1)
    dot = flat.dot

    def check() -> bool:
        with np.errstate(over="ignore", invalid="ignore"):  # the answer says it
            return math.isfinite(dot(flat))

    return check


def ort_type(dtype: DType) -> str:
    """ONNX Runtime's name of `dtype`, e.g. "tensor(float)"."""
    return _ORT_TYPE[dtype]


def stored_value(value: float, dtype: DType) -> Any:
    """`value` as one element of `storage_dtype(dtype)`; bfloat16 rounds to nearest even."""
    if dtype != "bfloat16":
        return np.asarray(value).astype(np.dtype(dtype))[()]
    bits = int(np.float32(value).view(np.uint32))
    return np.uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF)
