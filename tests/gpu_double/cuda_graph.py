"""Graph builders and graphs shaped like cuda.core.graph's."""

# Arguments and names are the vendor's.
# ruff: noqa: ARG005

from dataclasses import dataclass

from tests.gpu_double import capture as captures
from tests.gpu_double.cuda_stream import Shared, Stream, Stream_accept, cuda_errors, stream_of
from tests.gpu_double.gpu import Gpu
from tests.gpu_double.handles import CUgraphExec


@dataclass
class GraphCompleteOptions:
    auto_free_on_launch: bool = False
    upload_stream: "Stream | None" = None
    device_launch: bool = False
    use_node_priority: bool = False


class GraphBuilder:
    _gpu: Gpu
    _shared: Shared | None
    _phase: str
    _captured: captures.Captured | None

    def __init__(self) -> None:
        raise NotImplementedError(
            "directly creating a GraphBuilder object can be ambiguous. Please either "
            "call Device.create_graph_builder() or stream.create_graph_builder()"
        )

    @classmethod
    def _init(cls, stream: Stream) -> "GraphBuilder":
        self = cls.__new__(cls)
        self._gpu, self._shared = stream._gpu, stream.shared.take()
        self._phase, self._captured = "not started", None
        return self

    def close(self) -> None:
        shared, self._shared, self._captured = self._shared, None, None
        if shared is None:
            return
        phase, self._phase = self._phase, "ended"
        try:
            if phase == "capturing":
                with cuda_errors():
                    captures.end_capture(self._gpu, shared.state)
        finally:
            shared.drop()

    def __del__(self) -> None:
        shared = getattr(self, "_shared", None)
        if shared is not None:
            if self._phase == "capturing" and shared.state.capture is not None:
                captures.abandon(self._gpu, shared.state.capture)
            shared.drop()

    @property
    def is_closed(self) -> bool:
        return self._shared is None

    @property
    def stream(self) -> Stream:
        if self._shared is None:
            raise RuntimeError("GraphBuilder has been closed")
        return stream_of(self._gpu, self._shared)

    is_join_required = property(lambda self: False)

    def begin_building(self, mode: str | None = "relaxed") -> "GraphBuilder":
        if self._phase == "capturing":
            raise RuntimeError("Graph builder is already building.")
        if self._phase == "ended":
            raise RuntimeError("Cannot resume building after building has ended.")
        if mode not in ("global", "thread_local", "relaxed"):
            raise ValueError(f"Unsupported build mode: {mode}")
        stream = self.stream
        with cuda_errors():
            captures.begin_capture(stream._gpu, stream.state, mode)  # type: ignore[arg-type]
        self._phase = "capturing"
        return self

    @property
    def is_building(self) -> bool:
        status = captures.capture_status(self.stream.state)
        if status == "invalidated":
            raise RuntimeError(
                "Build process encountered an error and has been invalidated. Build process must now be ended."
            )
        return status == "active"

    def end_building(self) -> "GraphBuilder":
        if not self.is_building:
            raise RuntimeError("Graph builder is not building.")
        stream = self.stream
        with cuda_errors():
            self._captured = captures.end_capture(stream._gpu, stream.state)
        self._phase = "ended"
        return self

    def complete(self, options: GraphCompleteOptions | None = None) -> "Graph":
        if self._phase != "ended" or self._captured is None:
            raise RuntimeError("Graph has not finished building.")
        if options is not None and (options.device_launch or options.auto_free_on_launch):
            raise NotImplementedError("the double has no launch from the device and no allocation in graphs")
        return Graph._init(self._gpu, self._captured)

    def __cuda_stream__(self) -> tuple[int, int]:
        return self.stream.__cuda_stream__()


class Graph:
    _executable: captures.Executable | None
    _gpu: Gpu

    def __init__(self) -> None:
        raise RuntimeError("directly constructing a Graph instance is not supported")

    @classmethod
    def _init(cls, gpu: Gpu, captured: captures.Captured) -> "Graph":
        self = cls.__new__(cls)
        self._gpu = gpu
        with cuda_errors():
            self._executable = captures.Executable(gpu, captured)
        return self

    def close(self) -> None:
        executable, self._executable = self._executable, None
        if executable is not None:
            with cuda_errors():
                executable.destroy()

    def __del__(self) -> None:
        if getattr(self, "_executable", None) is not None:
            self.close()

    @property
    def is_closed(self) -> bool:
        return self._executable is None

    @property
    def handle(self) -> CUgraphExec:
        return CUgraphExec(0 if self._executable is None else self._executable.handle)

    def upload(self, stream: Stream) -> None:
        with cuda_errors():
            self._open().upload(Stream_accept(stream).state)

    def launch(self, stream: Stream) -> None:
        with cuda_errors():
            self._open().launch(Stream_accept(stream).state)

    def _open(self) -> captures.Executable:
        if self._executable is None:
            raise RuntimeError("Graph has been closed")
        return self._executable
