"""Transforms between samples and spectra as ONNX graphs, so that a pipeline needs no code of its user.

    frame        audio [hop] -> frame [1, window]: the newest `window` samples
    stft         audio [hop] -> spectrum [1, F, 1, 2] (real, imaginary), magnitude [1, 1, F]; F = window / 2 + 1
    irfft        spectrum (times mask [1, 1, F], where it is taken) -> frame [1, window]
    overlap_add  frame [1, window] -> audio [hop]
    istft        irfft, the window, and overlap_add

An analysis begins with silence before the first sample; overlap-add is late by window - hop samples. The matrices are
those of the discrete Fourier transform in float32. "sqrt_hann" (periodic) in both directions adds up to one at a hop
of half the window, and is divided by the sum of its squares at any other hop.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from wanedge_export.component import ExportError
from wanedge_export.importing.description import StepDescription, Window
from wanedge_runtimes.spec import GraphSpec, StateSpec, TensorSpec

OPSET = 20
_IR = 10
Float = NDArray[np.float32]


def write_transform(step: StepDescription) -> tuple[onnx.ModelProto, GraphSpec]:
    """The graph of a transform and its spec. Raises ExportError for sizes that do not fit."""
    assert step.transform is not None
    assert step.window is not None
    assert step.hop is not None
    window, hop = step.window, step.hop
    if hop > window or (step.transform != "frame" and (window % 2 or window % hop)):
        raise ExportError(
            f"{step.component}: a window of {window} samples and a hop of {hop} do not fit",
            hint="the window must be even and a multiple of the hop; of a frame, at least the hop",
        )
    graph = _Graph(step.component)
    match step.transform:
        case "frame":
            graph.output("frame", graph.framed(window, hop), (1, window))
        case "stft":
            _analyse(graph, window, hop, step.shape)
        case "irfft":
            graph.output("frame", _to_frame(graph, window, masked="mask" in step.takes), (1, window))
        case "overlap_add":
            graph.input("frame", (1, window))
            graph.output("audio", graph.overlapped("frame", window, hop), (1, hop))
        case "istft":
            frame = _to_frame(graph, window, masked="mask" in step.takes)
            shaped = graph.node("Mul", [frame, graph.constant("window", synthesis_window(window, hop, step.shape))])
            graph.output("audio", graph.overlapped(shaped, window, hop), (1, hop))
    return graph.finish()


def analysis_window(length: int, shape: Window) -> Float:
    """The periodic window [length]."""
    if shape == "none":
        return np.ones(length, np.float32)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    values: Float = (np.sqrt(hann) if shape == "sqrt_hann" else hann).astype(np.float32)
    return values


def synthesis_window(length: int, hop: int, shape: Window) -> Float:
    """The window that makes overlap-add of frames windowed once before give the samples again [length]."""
    window = analysis_window(length, shape).astype(np.float64)
    total = (window**2).reshape(length // hop, hop).sum(axis=0)
    if (total < 1e-6).any():
        raise ExportError(
            f"a {shape} window of {length} samples at a hop of {hop} leaves samples out", hint="choose a smaller hop"
        )
    values: Float = (window / np.tile(total, length // hop)).astype(np.float32)
    return values


def dft(length: int) -> tuple[Float, Float]:
    """Matrices [length, F] of the real and the imaginary part of a real frame's spectrum."""
    phase = 2 * np.pi * (np.outer(np.arange(length), np.arange(length // 2 + 1)) % length) / length
    return np.cos(phase).astype(np.float32), (-np.sin(phase)).astype(np.float32)


def _analyse(graph: "_Graph", window: int, hop: int, shape: Window) -> None:
    bins = window // 2 + 1
    frame = graph.node("Mul", [graph.framed(window, hop), graph.constant("window", analysis_window(window, shape))])
    parts = [
        graph.node("MatMul", [frame, graph.constant(name, matrix)])
        for name, matrix in zip(("cosine.basis", "sine.basis"), dft(window), strict=True)
    ]
    shaped = [graph.reshaped(part, (1, bins, 1, 1)) for part in parts]
    graph.output("spectrum", graph.node("Concat", shaped, axis=3), (1, bins, 1, 2))
    squares = [graph.node("Mul", [part, part]) for part in parts]
    magnitude = graph.node("Sqrt", [graph.node("Add", squares)])
    graph.output("magnitude", graph.reshaped(magnitude, (1, 1, bins)), (1, 1, bins))


def _to_frame(graph: "_Graph", window: int, *, masked: bool) -> str:
    bins = window // 2 + 1
    graph.input("spectrum", (1, bins, 1, 2))
    weights = np.full((bins, 1), 2.0, np.float64)
    weights[[0, -1]] = 1.0  # the mirrored half has neither the constant nor the highest frequency
    real, imaginary = ((weights * m.T.astype(np.float64) / window).astype(np.float32) for m in dft(window))
    parts = graph.node("Split", ["spectrum", graph.constant("halves", np.array([1, 1], np.int64))], outputs=2, axis=3)
    flat = [graph.reshaped(part, (1, bins)) for part in parts.split(" ")]
    if masked:
        graph.input("mask", (1, 1, bins))
        mask = graph.reshaped("mask", (1, bins))
        flat = [graph.node("Mul", [part, mask]) for part in flat]
    sums = [
        graph.node("MatMul", [part, graph.constant(name, matrix)])
        for part, name, matrix in zip(flat, ("cosine.basis", "sine.basis"), (real, imaginary), strict=True)
    ]
    return graph.node("Add", sums)


class _Graph:
    """Collects nodes; every node's value is named after its operator and number."""

    def __init__(self, component: str) -> None:
        self._component = component
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[TensorSpec] = []
        self._outputs: list[TensorSpec] = []
        self._states: list[StateSpec] = []

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        self._inputs.append(TensorSpec(name=name, dtype="float32", shape=shape))
        return name

    def output(self, name: str, value: str, shape: tuple[int, ...]) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"{name}/Identity"))
        self._outputs.append(TensorSpec(name=name, dtype="float32", shape=shape))

    def constant(self, name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> str:
        if all(constant.name != name for constant in self._constants):
            self._constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> str:
        """The value's name; of several outputs, all of them with a space between."""
        number = len(self._nodes)
        names = [f"{op.lower()}_{number}" if outputs == 1 else f"{op.lower()}_{number}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(op, inputs, names, name=f"{op}_{number}", **attributes))
        return " ".join(names)

    def reshaped(self, value: str, shape: tuple[int, ...]) -> str:
        name = "shape_" + "x".join(map(str, shape))
        return self.node("Reshape", [value, self.constant(name, np.array(shape, np.int64))])

    def state(self, name: str, size: int) -> str:
        past, present = f"past_states.{name}", f"present_states.{name}"
        self._states.append(
            StateSpec(name=name, past=past, present=present, dtype="float32", shape=(1, size), update="swap")
        )
        return past

    def framed(self, window: int, hop: int) -> str:
        """The newest `window` samples [1, window]; the older ones are state."""
        audio = self.input("audio", (1, hop))
        if window == hop:
            return audio
        frame = self.node("Concat", [self.state("tail", window - hop), audio], axis=1)
        self._keep("tail", self._along(frame, hop, window))
        return frame

    def overlapped(self, frame: str, window: int, hop: int) -> str:
        """The first `hop` samples of the sum of frames; the rest of the sum is state."""
        if window == hop:
            return frame
        silence = self.constant("silence", np.zeros((1, hop), np.float32))
        before = self.node("Concat", [self.state("sum", window - hop), silence], axis=1)
        total = self.node("Add", [before, frame])
        self._keep("sum", self._along(total, hop, window))
        return self._along(total, 0, hop)

    def finish(self) -> tuple[onnx.ModelProto, GraphSpec]:
        def infos(specs: list[tuple[str, tuple[int | str, ...]]]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in specs]

        spec = GraphSpec(
            component=self._component,
            opset=OPSET,
            inputs=tuple(self._inputs),
            outputs=tuple(self._outputs),
            states=tuple(self._states),
        )
        graph = helper.make_graph(
            self._nodes,
            self._component,
            infos([(t.name, t.shape) for t in self._inputs] + [(s.past, s.shape) for s in self._states]),
            infos([(t.name, t.shape) for t in self._outputs] + [(s.present, s.shape) for s in self._states]),
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR)
        return model, spec

    def _along(self, value: str, start: int, stop: int) -> str:
        """Samples start .. stop of a value [1, n]."""
        first, last, axis = (self.constant(f"at_{n}", np.array([n], np.int64)) for n in (start, stop, 1))
        return self.node("Slice", [value, first, last, axis])

    def _keep(self, state: str, value: str) -> None:
        present = next(s.present for s in self._states if s.name == state)
        self._nodes.append(helper.make_node("Identity", [value], [present], name=f"{state}/Identity"))
