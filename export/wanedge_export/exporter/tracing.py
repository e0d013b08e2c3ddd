"""Trace a component with torch.export and translate it to ONNX operators."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import Dim

from wanedge_export.component import Component, ExportError
from wanedge_export.exporter.recurrent import recurrent_operators
from wanedge_export.exporter.reference import SEED, Dims
from wanedge_export.operators import exporting
from wanedge_runtimes.spec import GraphSpec


def trace(component: Component, spec: GraphSpec, dims: Dims) -> ir.Model:
    """The component as an ONNX model in memory: inputs then pasts -> outputs then presents, named as in `spec`.

    dims: sizes of the dynamic axes while tracing, each 2 or more. Axis names are still torch's own.
    Raises ExportError with torch's reason.
    """
    flat = _Flat(component, spec).eval()
    inputs = component.sample_inputs(torch.Generator().manual_seed(SEED), dict(dims))
    state = component.init_state()
    example = (*(inputs[t.name] for t in spec.inputs), *(state[s.name] for s in spec.states))
    dynamic = tuple({i: Dim.DYNAMIC for i, d in enumerate(t.shape) if isinstance(d, str)} for t in spec.inputs)
    try:
        with exporting(spec.profile), torch.no_grad(), _quiet(), recurrent_operators(flat, bool(spec.dynamic_dims)):
            program = torch.export.export(
                flat, example, dynamic_shapes={"tensors": dynamic + ({},) * len(spec.states)}, strict=False
            )
            onnx_program = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=spec.opset,
                input_names=[t.name for t in spec.inputs] + [s.past for s in spec.states],
                output_names=[t.name for t in spec.outputs] + [s.present for s in spec.states],
                optimize=True,  # folds the transposition of every linear layer's weight
                verbose=False,
            )
    except Exception as error:  # torch's export errors share no base below Exception
        raise ExportError(
            f"{spec.component}: torch cannot trace it at {dims}: {_reason(error)}",
            hint="write forward() without Python branches on tensor values, sizes frozen into numbers, or operators "
            "that ONNX lacks; torch.export.export on the module alone shows the line",
        ) from error
    assert onnx_program is not None
    return onnx_program.model


_REASON_LINES = 6
_ADVICE = (
    "For more information",
    "The following call raised",
    "To fix the error",
    "To log",
    "Suggested fixes",
    "For C++",
)


class _Flat(nn.Module):
    """A component as a function of positional tensors, as a graph is."""

    def __init__(self, component: Component, spec: GraphSpec) -> None:
        super().__init__()
        self.component = component
        self.inputs = [t.name for t in spec.inputs]
        self.outputs = [t.name for t in spec.outputs]
        self.states = [s.name for s in spec.states]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(self.inputs, tensors, strict=False))
        state = dict(zip(self.states, tensors[len(self.inputs) :], strict=True))
        outputs, present = self.component(inputs, state)
        return (*(outputs[name] for name in self.outputs), *(present[name] for name in self.states))


def _reason(error: BaseException) -> str:
    """The innermost message without torch's advice, which is pages long: its first lines, where the reason stands."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_ADVICE)]
    return f"{type(error).__name__}: {' '.join(lines[:_REASON_LINES]) or 'no message'}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide three messages that do not concern the user, by their text."""

    def without_torchvision(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("torchvision is not installed")

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(without_torchvision)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            # nn.GRU and nn.LSTM cause this by themselves; for other modules' tensors it stays a useful warning.
            own = r"The tensor attributes? (self\.[\w.]+\._flat_weights\[\d+\](, )?)+ w(as|ere) assigned"
            warnings.filterwarnings("ignore", own, UserWarning)
            yield
    finally:
        logger.removeFilter(without_torchvision)
