"""Open an ONNX Runtime session: the import, the provider, the session's options, the errors."""

from pathlib import Path
from types import ModuleType
from typing import Any

from wanedge_runtimes.errors import GraphError, MissingExtra, RuntimeUnavailable
from wanedge_runtimes.ort.providers import missing_libraries, preload
from wanedge_runtimes.runtime import RuntimeOptions

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_EXTRA = {"cpu": "cpu", "cuda": "gpu", "tensorrt": "gpu"}

# What TensorRT cannot take, CUDA runs; what CUDA cannot take, the CPU runs.
_CHAIN = {"cpu": ("cpu",), "cuda": ("cuda", "cpu"), "tensorrt": ("tensorrt", "cuda", "cpu")}

# Every failure is raised as an exception that carries its text; printing it as well would only be noise.
LOG_FATAL_ONLY = 4

_SPIN = {
    "never": {"session.intra_op.allow_spinning": "0"},
    "run": {"session.force_spinning_stop": "1"},
    "always": {},
}


def import_onnxruntime(provider: str = "cpu") -> ModuleType:
    """The onnxruntime module. Raises MissingExtra."""
    try:
        import onnxruntime
    except ImportError as e:
        raise MissingExtra(
            f"ONNX Runtime cannot be imported ({e})", hint=f"pip install 'wanedge[{_EXTRA.get(provider, 'cpu')}]'"
        ) from e
    return onnxruntime  # type: ignore[no-any-return]


def require_provider(ort: ModuleType, provider: str) -> None:
    """Load the provider's libraries. Raises RuntimeUnavailable unless this build of ONNX Runtime has `provider`."""
    if provider not in PROVIDERS:
        raise RuntimeUnavailable(
            f"there is no execution provider {provider!r}", hint=f"choose one of: {', '.join(PROVIDERS)}"
        )
    available = ort.get_available_providers()
    if PROVIDERS[provider] not in available:
        # The CPU and the GPU package unpack over each other, so the first must go.
        raise RuntimeUnavailable(
            f"ONNX Runtime {ort.__version__} has no {PROVIDERS[provider]} (it has {', '.join(available)})",
            hint=f"pip uninstall -y onnxruntime && pip install 'wanedge[{_EXTRA[provider]}]'",
        )
    preload(ort, PROVIDERS[provider])


def open_session(ort: ModuleType, graph: Path, component: str, options: RuntimeOptions) -> Any:
    """An `onnxruntime.InferenceSession` on exactly the asked-for provider.

    Raises GraphError (missing or damaged file) and RuntimeUnavailable (the provider did not start).
    """
    if not graph.is_file():
        raise GraphError(f"{component}: the graph {graph} does not exist", hint="wanedge verify BUNDLE")
    try:
        session = ort.InferenceSession(
            str(graph),
            _session_options(ort, options),
            providers=_provider_chain(options),
            disabled_optimizers=list(options.disabled_optimizers),
        )
    except Exception as e:  # ONNX Runtime's exceptions share no base below Exception
        raise GraphError(
            f"{component}: ONNX Runtime {ort.__version__} cannot load {graph}: {e}",
            hint="wanedge verify BUNDLE shows whether a file is damaged; wanedge doctor shows the versions",
        ) from e
    # A provider whose libraries are missing is dropped with no more than a log line.
    if PROVIDERS[options.provider] not in session.get_providers():
        missing = missing_libraries(ort, PROVIDERS[options.provider])
        reason = f" ({', '.join(missing)} cannot be loaded)" if missing else ""
        raise RuntimeUnavailable(
            f"{component}: {PROVIDERS[options.provider]} did not start{reason}; "
            f"only {', '.join(session.get_providers())} did",
            hint="wanedge doctor",
        )
    return session


def _provider_chain(options: RuntimeOptions) -> list[tuple[str, dict[str, str]]]:
    device = {"device_id": str(options.device)}
    return [(PROVIDERS[name], {} if name == "cpu" else device) for name in _CHAIN[options.provider]]


def _session_options(ort: ModuleType, options: RuntimeOptions) -> Any:
    """Resident memory must stay flat for months: the arena reaches its steady size once every block size has run."""
    so = ort.SessionOptions()
    so.log_severity_level = LOG_FATAL_ONLY
    so.intra_op_num_threads = options.threads
    so.inter_op_num_threads = 1
    so.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # A pattern is kept for every set of input shapes ever seen, and world texts come in many lengths.
    so.enable_mem_pattern = False
    # Weights outside the arena: it would otherwise round up and keep what loading needed only once.
    so.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    for key, value in _SPIN[options.spin].items():
        so.add_session_config_entry(key, value)
    return so
