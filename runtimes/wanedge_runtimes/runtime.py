"""The contract between a graph and whatever runs it. Read this page first.

    runtime    = open_runtime("onnxruntime", RuntimeOptions(threads=2))
    executable = runtime.load(path, spec)         # weights are loaded once, shared by every state
    state      = executable.new_state()           # this session's caches and tails
    call       = executable.prepare(state, {"S": 21})   # buffers bound once for this block size
    call.inputs["embeddings"][:] = ...            # write into the bound memory
    call.run()                                    # no allocation, no copy of state
    call.outputs["hidden"]                        # valid until the next run of this call

`prepare` also takes arrays to bind in place of its own buffers, so that one call's output is the next call's
input without a copy. `Executable.run` is the convenience on top: arrays in, arrays out.

On the host a bfloat16 tensor is an array of uint16 bit patterns, because numpy has no bfloat16.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from wanedge_runtimes.spec import GraphSpec

Array = NDArray[Any]
Spin = Literal["never", "run", "always"]


@dataclass(frozen=True)
class RuntimeOptions:
    """Options of a runtime, independent of the graph.

    provider: "cpu", "cuda" or "tensorrt" (execution providers of ONNX Runtime).
    threads: threads inside one operator; 0 lets the runtime choose.
    device: index of the accelerator.
    disabled_optimizers: names of ONNX Runtime graph passes to leave out. By default QDQS8ToU8Transformer, beside which
        graphs with symmetric int8 activations do not load on the CPU; no other graph has anything for it to do.
    spin: when idle worker threads poll for work instead of sleeping. "run" polls inside a run and sleeps between
        runs: as fast as "always" back to back, without burning a core while the next unit is awaited.
    cuda_graphs: runs are captured and replayed. None: TensorRT's are, ONNX Runtime's are not, because it keeps every
        captured graph for as long as the model is loaded; True asks it to (its CUDA provider, where all nodes of a
        graph are on the GPU). False: to compare or to debug.
    """

    provider: str = "cpu"
    threads: int = 0
    device: int = 0
    disabled_optimizers: tuple[str, ...] = ("QDQS8ToU8Transformer",)
    spin: Spin = "run"
    cuda_graphs: bool | None = None


class State(Protocol):
    """One session's state for one graph: every `StateSpec` with its memory.

    Shapes, dtypes and initial values are the spec's. Not safe to use from two threads at once.
    """

    spec: GraphSpec

    def reset(self) -> None:
        """Every tensor back to its initial value."""

    def not_finite(self) -> str | None:
        """Name a swapped float tensor that holds NaN or infinity; None where there is none, or none on the host.

        Caches are left out: what they hold reaches every later hidden state.
        """

    def snapshot(self) -> dict[str, Array]:
        """Copies on the host, by `StateSpec.name`."""

    def restore(self, tensors: Mapping[str, Array]) -> None:
        """The opposite of `snapshot`. Raises StateError when a name, shape or dtype disagrees."""

    def read(self, name: str, slots: slice) -> Array:
        """A host copy of `slots` along the sequence axis (axis 2) of a KV cache [1, Hkv, C, Dh]."""

    def write(self, name: str, slots: slice, values: Array) -> None:
        """Write `values` [1, Hkv, n, Dh] into `slots` of a KV cache."""


class Call(Protocol):
    """One graph bound to one state at one set of dynamic sizes.

    `inputs` and `outputs` are host arrays: the bound memory itself on the CPU; on a device `run` copies from and to
    them, and what lies there (workspace.py) is not among them. A call stays valid after its state is reset or restored.

    elapsed_ns: wall time of the last run, copies to and from a device included.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    elapsed_ns: int

    def run(self) -> None:
        """Run once and advance the state.

        Raises ExecutionError. The state's content is then undefined: reset it or restore a snapshot.
        """


class Executable(Protocol):
    """A loaded graph: weights and kernels, no state. May be shared by sessions and threads."""

    spec: GraphSpec

    def new_state(self) -> State: ...

    def prepare(
        self,
        state: State,
        dims: Mapping[str, int] | None = None,
        bound: Mapping[str, Array] | None = None,
    ) -> Call:
        """Bind inputs, outputs and state once.

        dims: sizes of the graph's dynamic axes.
        bound: C-contiguous host arrays to use as the memory of these inputs or outputs, by name.

        Raises GraphError when a size is missing or an array does not fit, StateError for another graph's state.
        """

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, np.ndarray[Any, Any]]:
        """Copy `inputs` in, run, and return copies of the outputs. Calls are prepared once per block size.

        Raises InputError when a name, dtype or shape disagrees with the spec.
        """


class Runtime(Protocol):
    """Loads graphs for one device."""

    name: str
    options: RuntimeOptions

    def load(self, graph: Path, spec: GraphSpec) -> Executable:
        """Load and check a graph. Raises GraphError when the file and the spec disagree."""
