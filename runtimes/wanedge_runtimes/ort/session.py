"""Open an ONNX Runtime session: the import, the provider, the session's options, the errors; and does the graph keep
its spec?"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from wanedge_runtimes.dtypes import ort_type
from wanedge_runtimes.errors import GraphError, MissingExtra, RuntimeUnavailable
from wanedge_runtimes.ort.providers import missing_libraries, preload
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.spec import Dim, DType, GraphSpec
from wanedge_runtimes.weights import check_weights

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


def open_session(
    ort: ModuleType, graph: Path, component: str, options: RuntimeOptions, stream: int | None = None
) -> Any:
    """An `onnxruntime.InferenceSession` on exactly the asked-for provider. stream: the cudaStream_t that it works in.

    Raises GraphError (missing or damaged file) and RuntimeUnavailable (the provider did not start).
    """
    if not graph.is_file():
        raise GraphError(f"{component}: the graph {graph} does not exist", hint="wanedge verify BUNDLE")
    check_weights(graph)
    try:
        session = ort.InferenceSession(
            str(graph),
            _session_options(ort, options),
            providers=_provider_chain(options, stream),
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


def _provider_chain(options: RuntimeOptions, stream: int | None) -> list[tuple[str, dict[str, str]]]:
    device = {"device_id": str(options.device)}
    if stream is not None:
        device["user_compute_stream"] = str(stream)
    graphs = {"enable_cuda_graph": "1"} if options.cuda_graphs else {}
    own = {"cpu": {}, "cuda": {**device, **graphs}, "tensorrt": device}
    return [(PROVIDERS[name], own[name]) for name in _CHAIN[options.provider]]


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


Expected = Mapping[str, tuple[DType, tuple[Dim, ...]]]


class NodeArg(Protocol):
    """An input or output as ONNX Runtime reports it; an axis is a size, a name, or None when unknown."""

    name: str
    type: str
    shape: Sequence[int | str | None]


def check_graph(graph: Path, spec: GraphSpec, inputs: Iterable[NodeArg], outputs: Iterable[NodeArg]) -> None:
    """Raise GraphError, with the tensor and both sides, unless graph and spec agree.

    Inputs must agree axis by axis, dynamic axes by name. An output axis whose size ONNX Runtime could not infer
    is accepted: the bound buffer's shape checks it at the first run.
    """
    expected_inputs: Expected = {
        **{t.name: (t.dtype, t.shape) for t in spec.inputs},
        **{s.past: (s.dtype, s.shape) for s in spec.states},
    }
    expected_outputs: Expected = {
        **{t.name: (t.dtype, t.shape) for t in spec.outputs},
        **{s.present: (s.dtype, s.shape) for s in spec.states},
    }
    _check_side(graph, f"{spec.component}: input", expected_inputs, inputs, inferred=False)
    _check_side(graph, f"{spec.component}: output", expected_outputs, outputs, inferred=True)


def _check_side(graph: Path, where: str, expected: Expected, actual: Iterable[NodeArg], inferred: bool) -> None:
    in_graph = {arg.name: arg for arg in actual}
    for name in sorted(expected.keys() ^ in_graph.keys()):
        has, lacks = ("the spec", graph) if name in expected else (graph, "the spec")
        raise GraphError(f"{where} {name!r} is in {has} but not in {lacks}", hint=_HINT)
    for name, (dtype, shape) in expected.items():
        arg = in_graph[name]
        if ort_type(dtype) != arg.type or not _same_shape(shape, arg.shape, inferred):
            raise GraphError(
                f"{where} {name!r} is {ort_type(dtype)} {_text(shape)} in the spec "
                f"but {arg.type} {_text(arg.shape)} in {graph}",
                hint=_HINT,
            )


def _same_shape(spec: Sequence[Dim], graph: Sequence[int | str | None], inferred: bool) -> bool:
    return len(spec) == len(graph) and all(
        a == b or (inferred and not isinstance(b, int)) for a, b in zip(spec, graph, strict=True)
    )


def _text(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


_HINT = "graph and spec come from one export: take both from the same one, or export again with wanedge export"
