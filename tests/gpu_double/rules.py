"""The rules that the double enforces, each with its source: docs/engines.md lists this table.

    RULES["memory.freed"].text, RULES["memory.freed"].source

A device leaves most of these undefined; the double reports every one of them. Vendor text is paraphrased.
"""

from typing import NamedTuple


class Rule(NamedTuple):
    """text: what a caller must do. source: who demands it."""

    text: str
    source: str


class Misuse(AssertionError):
    """A rule was broken. `Gpu.misuses` keeps every one, so that no `except Exception` can hide it.

    rule: the key in RULES. where: the calls that led to it.
    """

    def __init__(self, rule: str, detail: str, where: str = "") -> None:
        super().__init__(f"[{rule}] {detail} ({RULES[rule].text}; {RULES[rule].source})")
        self.rule = rule
        self.detail = detail
        self.where = where


_GUIDE = "CUDA C++ Programming Guide"
_DRIVER = "CUDA Driver API"
_RUNTIME = "CUDA Runtime API"
_SYNC = "CUDA Driver API, 'API synchronization behavior'"
_TRT = "TensorRT documentation"
_HEADER = "NvInferRuntime.h"
_OURS = "the double: stricter than a device"

RULES: dict[str, Rule] = {
    # contexts and handles
    "context.current": Rule(
        "a CUDA context is current in the calling thread",
        f"{_DRIVER}, cuCtxSetCurrent: a context is current per thread; without one: CUDA_ERROR_INVALID_CONTEXT. "
        f"{_TRT}, 'Runtime': the thread must be associated with the engine's device before enqueue",
    ),
    "handle.closed": Rule("a destroyed stream, event or graph is not used again", f"{_DRIVER}, cuStreamDestroy"),
    # memory
    "memory.live": Rule(
        "an address lies in a live allocation, with all bytes of the access inside it",
        f"{_DRIVER}, cuMemcpyAsync and CUDA_ERROR_ILLEGAL_ADDRESS",
    ),
    "memory.freed": Rule(
        "memory is not used after it was freed, and stays until the work that uses it is done",
        f"{_DRIVER}, cuMemFree, cuMemFreeHost, cuMemFreeAsync: access after the free is undefined",
    ),
    "memory.quarantine": Rule("freed page-locked memory is not written", f"{_DRIVER}, cuMemFreeHost"),
    "memory.source": Rule(
        "the host does not write to page-locked memory while a copy from it is queued",
        f"{_SYNC}: an asynchronous copy from page-locked memory may be done after the call returned",
    ),
    "memory.overlap": Rule("source and destination of a copy do not overlap", f"{_RUNTIME}, cudaMemcpyAsync"),
    "memory.direction": Rule("a copy's kind matches its two pointers", f"{_RUNTIME}, cudaMemcpyAsync"),
    "memory.poison": Rule(
        "results are not read before the work that makes them is done",
        f"{_SYNC}: asynchronous copies may return before they are done. {_OURS} (unfinished outputs hold 0xFF)",
    ),
    "memory.pageable": Rule(
        "pageable memory is staged: a copy to the device reads it during the call, after a stream synchronization; a "
        "copy from the device returns when it is done",
        _SYNC,
    ),
    # order
    "order.race": Rule(
        "two pieces of work that touch the same bytes, one of them writing, are ordered by a stream, an event or the "
        "host",
        f"{_GUIDE}, 'Streams' and 'Events': commands in different streams may run out of order or concurrently. "
        "ONNX Runtime without user_compute_stream has a stream of its own (IOBinding.synchronize_inputs)",
    ),
    "order.random": Rule("unordered work runs in a random order, repeatable by its seed", _OURS),
    "order.execution": Rule("the work that was queued can be executed", f"{_DRIVER}, CUDA_ERROR_LAUNCH_FAILED"),
    # capture
    "capture.sync": Rule(
        "nothing synchronizes with a capturing stream, its events, or its device, and nothing queries them",
        f"{_GUIDE}, 'Prohibited and Unhandled Operations' of stream capture",
    ),
    "capture.allocate": Rule(
        "nothing allocates or frees in a capturing stream, or elsewhere while the mode forbids unsafe calls",
        f"{_DRIVER}, cuThreadExchangeStreamCaptureMode (global, thread-local, relaxed). {_OURS}: allocation nodes, "
        "which CUDA could record, are refused",
    ),
    "capture.pageable": Rule(
        "a captured copy uses device or page-locked memory",
        f"{_SYNC}: pageable copies may synchronize, and a capture must not",
    ),
    "capture.legacy": Rule(
        "the legacy default stream is neither captured nor used while a blocking stream captures",
        f"{_DRIVER}, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT; {_GUIDE}, stream capture",
    ),
    "capture.isolation": Rule(
        "captured work waits only for captured work", f"{_DRIVER}, CUDA_ERROR_STREAM_CAPTURE_ISOLATION"
    ),
    "capture.unjoined": Rule(
        "every stream that joined a capture is joined to its origin before the end",
        f"{_DRIVER}, CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
    ),
    "capture.thread": Rule(
        "a capture ends in the thread that began it, unless it is relaxed",
        f"{_DRIVER}, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
    ),
    "graph.addresses": Rule(
        "what a graph captured (memory, execution context) is alive and unchanged when it is replayed",
        f"cuda-core, GraphBuilder: captured operations reference memory without owning it; {_GUIDE}, 'CUDA Graphs'",
    ),
    # TensorRT
    "trt.profile": Rule(
        "a profile is chosen, exists, and every input shape lies inside it",
        f"{_HEADER}, setInputShape; {_TRT}, 'Working with Dynamic Shapes'",
    ),
    "trt.shapes": Rule("every dynamic input has its shape before enqueue", f"{_HEADER}, inferShapes and enqueueV3"),
    "trt.addresses": Rule(
        "every input and output has an address before enqueue", f"{_HEADER}, enqueueV3: non-null addresses"
    ),
    "trt.alignment": Rule("an address is aligned to 256 bytes", f"{_HEADER}, setTensorAddress"),
    "trt.size": Rule("an address has room for its tensor", f"{_HEADER}, setTensorAddress: 'of sufficient size'"),
    "trt.alias": Rule(
        "an output that is aliased with an input has the input's address",
        "tensorrt_rtx, ICudaEngine.get_aliased_input_tensor; IKVCacheUpdateLayer",
    ),
    "trt.overlap": Rule("no output overlaps another tensor, except its own alias", f"{_HEADER}, enqueueV3"),
    "trt.names": Rule("a tensor's name is one of the engine's", f"{_HEADER}, setTensorAddress returns false"),
    "trt.concurrency": Rule(
        "one execution context runs in one stream at a time, ordered behind the switch of its profile",
        f"{_HEADER}, enqueueV3: concurrent use from different streams is undefined; set_optimization_profile_async",
    ),
    "trt.warm": Rule(
        "a context is enqueued once, after its shapes changed, before it is captured",
        f"{_TRT}, 'CUDA Graphs': deferred updates must be flushed first",
    ),
    "trt.modified": Rule(
        "the shapes and the profile of a captured context do not change while its graph is in use",
        f"{_TRT}, 'CUDA Graphs': a graph is specific to the state of the context; modifying it is undefined",
    ),
    "trt.default_stream": Rule(
        "no engine is enqueued in the default stream", f"{_HEADER}, enqueueV3: it adds device synchronizations"
    ),
    "trt.lifetime": Rule(
        "an engine and its runtime outlive the execution context, and a context its queued work", f"{_HEADER}, IRuntime"
    ),
    # ONNX Runtime
    "ort.binding": Rule(
        "every input and output of a bound run has memory of its type, shape and device",
        "ONNX Runtime, IOBinding",
    ),
    "ort.graph": Rule(
        "with enable_cuda_graph every input and output lies on the device at the addresses of the first run of its "
        "gpu_graph_id, runs are bound, and no node is left on the CPU",
        "ONNX Runtime, CUDA execution provider, 'Using CUDA Graphs'",
    ),
    # at the end
    "end.allocated": Rule("nothing is left: memory, streams, events, graphs, engines, contexts", _OURS),
    "end.pending": Rule("no work is left in a queue", _OURS),
    "end.context": Rule("no capture is left open", _OURS),
}


def table() -> str:
    """The rules in Markdown, as docs/gpu-double.md has them."""
    rows = [f"| `{name}` | {rule.text} | {rule.source} |" for name, rule in RULES.items()]
    return "\n".join(["| rule | what a caller must do | source |", "|---|---|---|", *rows])
