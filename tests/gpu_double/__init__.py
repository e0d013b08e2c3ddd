"""A strict double of CUDA, TensorRT and ONNX Runtime's CUDA provider, at the level of the vendors' public modules.

    from tests.gpu_double import installed, make_engine

    with installed(seed=1) as gpu:
        ...                                    # import cuda.core, tensorrt, tensorrt_rtx as a program does
        with gpu.measured() as used: ...
        assert used["syncs"] <= 2

Work is queued and runs only when the host waits, in a random order where nothing orders it. `rules.RULES` is the list
of what is enforced, with sources. What it does not have it refuses with NotImplementedError.
"""

from tests.gpu_double.engines import Options, make_engine
from tests.gpu_double.failures import CudaFailure
from tests.gpu_double.gpu import Gpu, active
from tests.gpu_double.install import finish, install, installed
from tests.gpu_double.rules import RULES, Misuse

__all__ = [
    "RULES",
    "CudaFailure",
    "Gpu",
    "Misuse",
    "Options",
    "active",
    "finish",
    "install",
    "installed",
    "make_engine",
]
