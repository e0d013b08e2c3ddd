"""The growing cache: the backbone as Optimum exports decoders, with a past that is concatenated, never overwritten.

The graph is the bundle's own backbone with every TensorScatter replaced by Concat(past, new), so weights, operators
and optimiser are the same; only the cache differs. `past_key_values.{i}.key` is [1, Hkv, P, Dh] with a dynamic P.
"""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import onnx

from wanedge_runtimes.errors import GraphError, StateError
from wanedge_runtimes.ort.session import import_onnxruntime, open_session
from wanedge_runtimes.runtime import Array, RuntimeOptions, State
from wanedge_runtimes.spec import GraphSpec

SEQUENCE_AXIS = 2  # of a cache [1, Hkv, P, Dh]
MASK = "attention_mask"  # bool [1, 1, S, P + S], one for all layers: there are no windows


def growing_graph(graph: Path, spec: GraphSpec) -> onnx.ModelProto:
    """The portable backbone in `graph` with concatenated caches, weights inside. Raises GraphError."""
    model = onnx.load(graph)
    nodes, masks = model.graph.node, {t.name for t in spec.inputs if t.name.startswith("mask.")}
    writes = [node for node in nodes if node.op_type == "TensorScatter"]
    if len(writes) != len(spec.states):
        raise GraphError(
            f"{graph} has {len(writes)} TensorScatter nodes for {len(spec.states)} caches",
            hint="bench a bundle that holds the portable profile: wanedge export",
        )
    for node in writes:
        past, new, _ = node.input
        node.CopyFrom(onnx.helper.make_node("Concat", [past, new], list(node.output), axis=SEQUENCE_AXIS))
    for node in nodes:
        for i, name in enumerate(node.input):
            if name in masks:
                node.input[i] = MASK
    gone = masks | {t.name for t in spec.inputs if t.name.startswith("write_index.")}
    inputs = [value for value in model.graph.input if value.name not in gone]
    inputs.append(onnx.helper.make_tensor_value_info(MASK, onnx.TensorProto.BOOL, [1, 1, "S", "T"]))
    del model.graph.input[:], model.graph.value_info[:]
    model.graph.input.extend(inputs)
    past, present = {s.past for s in spec.states}, {s.present for s in spec.states}
    for value in (*model.graph.input, *model.graph.output):
        if value.name in past | present:
            value.type.tensor_type.shape.dim[SEQUENCE_AXIS].dim_param = "P" if value.name in past else "T"
    return model


class GrowingState:
    """Keys and values of everything so far, by state name, as ONNX Runtime's own values.

    `before` is the history that the last run read, `after` the one it returned. A run at the place of the last one
    starts from `before` again: so the noisy flow steps discard their present and the clean pass keeps its own.
    """

    def __init__(self, spec: GraphSpec) -> None:
        self.spec = spec
        self._ort = import_onnxruntime()
        self._place: tuple[int, int] | None = None
        self.reset()

    def reset(self) -> None:
        self._adopt({s.name: np.zeros((*s.shape[:2], 0, s.shape[3]), s.dtype) for s in self.spec.states})

    def not_finite(self) -> None:
        """None: nothing of it swaps."""

    def snapshot(self) -> dict[str, Array]:
        return {name: np.array(value.numpy()) for name, value in self.after.items()}

    def restore(self, tensors: Mapping[str, Array]) -> None:
        if tensors.keys() != self.after.keys():
            raise StateError("the snapshot has other caches than the graph", hint="restore a snapshot of this state")
        self._adopt(tensors)

    def read(self, name: str, slots: slice) -> Array:
        return np.array(self.after[name].numpy()[:, :, slots])

    def write(self, name: str, slots: slice, values: Array) -> None:
        whole = np.array(self.after[name].numpy())
        whole[:, :, slots] = values
        self._adopt(self.snapshot() | {name: whole})

    def past(self, place: tuple[int, int]) -> dict[str, Any]:
        """The history for a block at `place` (first slot in the ring, tokens)."""
        if place != self._place:
            self.before, self._place = self.after, place
        return self.before

    @property
    def length(self) -> int:
        """Tokens in `before`."""
        return int(next(iter(self.before.values())).shape()[SEQUENCE_AXIS])

    def _adopt(self, tensors: Mapping[str, Array]) -> None:
        values = self._ort.OrtValue.ortvalue_from_numpy
        self.before = self.after = {name: values(np.ascontiguousarray(array)) for name, array in tensors.items()}
        self._place = None


class GrowingCall:
    """Offers the ring backbone's inputs, so that the same Streamer drives it; of the masks and write indices it uses
    only the place, to tell a repeated block from a new one.

    Everything so far is visible to every block; the prefill, the only block without a past, is token-causal.
    ONNX Runtime allocates the present and it goes back in as the past: no copy but the Concat's own.
    """

    def __init__(self, session: Any, state: GrowingState, tokens: int, bound: Mapping[str, Array]) -> None:
        self._session, self._state, self._tokens = session, state, tokens
        spec, dims = state.spec, {"S": tokens}

        def memory(name: str, dtype: str, shape: tuple[int, ...]) -> Array:
            return bound[name] if name in bound else np.zeros(shape, dtype)

        self.inputs: Mapping[str, Array] = {t.name: memory(t.name, t.dtype, t.concrete(dims)) for t in spec.inputs}
        self.outputs: Mapping[str, Array] = {t.name: memory(t.name, t.dtype, t.concrete(dims)) for t in spec.outputs}
        self._place = max((t.name for t in spec.inputs if t.name.startswith("write_index.")), key=self._capacity)
        self._fed = [name for name in self.inputs if not name.startswith(("mask.", "write_index."))]
        self.elapsed_ns = 0

    def run(self) -> None:
        started = perf_counter_ns()
        state, binding = self._state, self._session.io_binding()
        past = state.past((int(self.inputs[self._place][0]), self._tokens))
        for name in self._fed:
            binding.bind_cpu_input(name, self.inputs[name])
        binding.bind_cpu_input(MASK, self._mask(state.length))
        for name, array in self.outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for spec in state.spec.states:
            binding.bind_ortvalue_input(spec.past, past[spec.name])
            binding.bind_output(spec.present, "cpu")
        self._session.run_with_iobinding(binding)
        present = binding.get_outputs()[len(self.outputs) :]
        state.after = {spec.name: value for spec, value in zip(state.spec.states, present, strict=True)}
        self.elapsed_ns = perf_counter_ns() - started

    def _mask(self, length: int) -> Array:
        if length == 0:
            return np.tri(self._tokens, dtype=np.bool_)[None, None]
        return np.ones((1, 1, self._tokens, length + self._tokens), np.bool_)

    def _capacity(self, write_index: str) -> int:
        """Capacity of the ring that a write index belongs to: in the largest one a place comes round the latest."""
        return int(self.inputs[write_index.replace("write_index.", "mask.")].shape[-1])


class GrowingExecutable:
    """Keeps the `Executable` contract with a cache that grows.

    Args:
        graph, spec: the bundle's portable backbone. folder: where the rewritten graph is put.
    """

    def __init__(self, graph: Path, spec: GraphSpec, folder: Path, options: RuntimeOptions) -> None:
        self.spec = spec
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "backbone.growing.onnx"
        onnx.save(growing_graph(graph, spec), path)
        self._session = open_session(import_onnxruntime(), path, "backbone with a growing cache", options)

    def new_state(self) -> GrowingState:
        return GrowingState(self.spec)

    def prepare(
        self, state: State, dims: Mapping[str, int] | None = None, bound: Mapping[str, Array] | None = None
    ) -> GrowingCall:
        assert isinstance(state, GrowingState), "a state works only with the executable that made it"
        return GrowingCall(self._session, state, (dims or {})["S"], bound or {})

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, Array]:
        call = self.prepare(state, {"S": inputs["embeddings"].shape[1]}, inputs)
        call.run()
        return dict(call.outputs)
