"""The shared libraries behind ONNX Runtime's execution providers: load them, and name what is missing.

ONNX Runtime lists every provider that it was built with. Whether one can start is decided later, by the dynamic
loader: CUDA's libraries lie in Python packages where the loader does not look, and without them the session runs on the
CPU with no more than a banner.
"""

import ctypes
import logging
import struct
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType

_LOG = logging.getLogger("wanedge.runtime")

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_FILES = {
    CUDA: "libonnxruntime_providers_cuda.so",
    TENSORRT: "libonnxruntime_providers_tensorrt.so",
    "NvTensorRTRTXExecutionProvider": "libonnxruntime_providers_nv_tensorrt_rtx.so",
    "ROCMExecutionProvider": "libonnxruntime_providers_rocm.so",
    "MIGraphXExecutionProvider": "libonnxruntime_providers_migraphx.so",
    "OpenVINOExecutionProvider": "libonnxruntime_providers_openvino.so",
    "DnnlExecutionProvider": "libonnxruntime_providers_dnnl.so",
}
# Opened by name while a graph runs, so that the loader does not miss them before.
_LATER = {CUDA: ("libcudnn.so.9",)}

# ELF [https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html]
_ELF_64_LITTLE = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 1, 5, 10


def preload(ort: ModuleType, provider: str) -> None:
    """Load what `provider` links against from the Python packages that hold it.

    CUDA and cuDNN by ONNX Runtime's own function, TensorRT 10 by its package. What is not there stays unloaded;
    `missing_libraries` names it. Call it before a session is made.
    """
    if provider not in (CUDA, TENSORRT) or not hasattr(ort, "preload_dlls"):
        return
    with redirect_stdout(StringIO()) as printed:  # it prints its failures, also into a command's JSON
        ort.preload_dlls()
    for line in filter(None, printed.getvalue().splitlines()):
        _LOG.debug("%s", line)
    if provider == TENSORRT:
        try:
            import_module("tensorrt_libs")  # loads libnvinfer for the whole process
        except Exception as e:  # absent, or a library of it does not load; any exception may come from there
            _LOG.debug("tensorrt_libs: %s", e)


def missing_libraries(ort: ModuleType, provider: str) -> tuple[str, ...]:
    """Return the files that `provider` needs and the dynamic loader does not find, in the loader's order.

    Empty where the provider can start, and where nothing can be said: the CPU, another operating system than Linux.
    Libraries that load stay in this process's memory.
    """
    library = Path(ort.__file__ or "").parent / "capi" / _FILES.get(provider, "-")
    if not library.is_file():
        return ()
    preload(ort, provider)
    needed = (*needed_libraries(library), *_LATER.get(provider, ()))
    return tuple(name for name in needed if not name.startswith(("ld-linux", "libonnxruntime")) and not _loads(name))


def needed_libraries(library: Path) -> tuple[str, ...]:
    """Return the names in a shared library's DT_NEEDED entries; empty for a file that is no 64-bit ELF."""
    with library.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or not header.startswith(_ELF_64_LITTLE):
            return ()
        (offset,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
        segments = [struct.unpack_from("<IIQQQQ", table, i * size) for i in range(count)]
        loads = [(address, start, length) for kind, _, start, address, _, length in segments if kind == _PT_LOAD]
        dynamic = next(((start, length) for kind, _, start, _, _, length in segments if kind == _PT_DYNAMIC), None)
        if dynamic is None:
            return ()
        file.seek(dynamic[0])
        content = file.read(dynamic[1])
        entries = list(struct.iter_unpack("<QQ", content[: len(content) // 16 * 16]))
        values = dict(entries)
        if _DT_STRTAB not in values or _DT_STRSZ not in values:
            return ()
        address = values[_DT_STRTAB]
        starts = [start + address - first for first, start, length in loads if first <= address < first + length]
        if not starts:
            return ()
        file.seek(starts[0])
        strings = file.read(values[_DT_STRSZ])
    return tuple(strings[at : strings.index(b"\0", at)].decode() for tag, at in entries if tag == _DT_NEEDED)


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
