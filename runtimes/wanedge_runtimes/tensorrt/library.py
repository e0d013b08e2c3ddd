"""The TensorRT module by its name, and what its enumerations are called here."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wanedge_runtimes.errors import MissingExtra, RuntimeUnavailable

if TYPE_CHECKING:  # building processes import this module, and nothing but the standard library beside it
    from wanedge_runtimes.spec import DType

_MODULES = {"tensorrt": ("tensorrt", "tensorrt"), "tensorrt-rtx": ("tensorrt_rtx", "rtx")}

_DTYPES: dict[str, DType] = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def import_library(name: str) -> ModuleType:
    """The module of "tensorrt" or "tensorrt-rtx". Raises MissingExtra, RuntimeUnavailable for another name."""
    if name not in _MODULES:
        raise RuntimeUnavailable(f"there is no TensorRT called {name!r}", hint=f"choose one of: {', '.join(_MODULES)}")
    module, extra = _MODULES[name]
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(f"{name} cannot be imported ({error})", hint=f"pip install 'wanedge[{extra}]'") from error


def dtype_name(dtype: Any) -> DType | None:
    """TensorRT's element type as a spec's; None for one that no graph input or output has here (FP8, INT4, ...)."""
    return _DTYPES.get(enum_name(dtype))


def enum_name(value: Any) -> str:
    """ "KV_CACHE_UPDATE" of LayerType.KV_CACHE_UPDATE, in every version of the bindings."""
    return str(getattr(value, "name", None) or str(value).rpartition(".")[2])
