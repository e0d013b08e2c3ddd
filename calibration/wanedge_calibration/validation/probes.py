"""Look at the tensors in front of every Q: quantization turns a NaN into a number, and clips without a word.

Teacher-forced at units spread over the caches' filling, through the same graphs with those tensors as outputs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from wanedge.bundle import Bundle, Variant
from wanedge.model import Model
from wanedge_calibration.graph.editing import mark_outputs, read_graph
from wanedge_calibration.graph.trace_back import GraphView, Quantizer
from wanedge_calibration.observe import observed
from wanedge_calibration.statistics import Interval
from wanedge_calibration.validation.ranges import covered
from wanedge_calibration.validation.sensitivity import TeacherForcedRun
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Call, RuntimeOptions


@dataclass
class QuantizerProbe:
    """One tensor in front of a Q. values: seen. not_finite, clipped: how many of them."""

    component: str
    node: str
    tensor: str
    values: int = 0
    not_finite: int = 0
    clipped: int = 0

    @property
    def saturated(self) -> float:
        """Share of values beyond what the Q represents."""
        return self.clipped / self.values if self.values else 0.0


def probe_quantizers(candidate: Bundle, variant: Variant, run: TeacherForcedRun) -> list[QuantizerProbe]:
    """Every Q of the candidate at the run's units, the worst first."""
    probes: dict[tuple[str, str], QuantizerProbe] = {}
    with _instrumented(candidate, variant, run.reference) as (model, quantizers):

        def see(component: str, call: Call) -> None:
            for quantizer in quantizers[component]:
                name = quantizer.tensor
                values = call.outputs[name] if name in call.outputs else call.inputs[name]
                probe = probes.setdefault(
                    (component, quantizer.node), QuantizerProbe(component, quantizer.node, quantizer.tensor)
                )
                finite = np.isfinite(values)
                low, high = covered(quantizer)
                step = float(quantizer.scale)  # a value within one step of the range's end is rounded, not clipped
                probe.values += values.size
                probe.not_finite += int(values.size - finite.sum())
                probe.clipped += int(((values < low - step) | (values > high + step)).sum())

        # A NaN that reaches the host ends the run; which tensor held it was seen before that.
        with suppress(WanEdgeError):
            run.stream(observed(model, see))
    return sorted(probes.values(), key=lambda p: (-p.not_finite, -p.saturated))


def probe_measures(probes: list[QuantizerProbe]) -> dict[str, Interval]:
    """`probe.not_finite`, how many tensors held NaN or infinity, and `probe.saturated_worst`."""
    values = sum(p.values for p in probes)
    if probes and not values:
        return {}
    bad = sum(p.not_finite > 0 for p in probes)
    worst = max((p.saturated for p in probes), default=0.0)
    return {
        "probe.not_finite": Interval(float(bad), None, None, max(len(probes), 1)),
        "probe.saturated_worst": Interval(worst, None, None, max(values, 1)),
    }


@contextmanager
def _instrumented(
    bundle: Bundle, variant: Variant, reference: Model
) -> Iterator[tuple[Model, Mapping[str, list[Quantizer]]]]:
    """The candidate's model with the tensors in front of each Q as further outputs, and those Qs by component."""
    runtime = open_runtime("onnxruntime", RuntimeOptions(threads=1))
    graphs, quantizers = dict(reference.graphs), dict[str, list[Quantizer]]()
    with TemporaryDirectory(prefix="wanedge-probes-") as folder:
        for component in reference.graphs:
            path, spec = bundle.graph(component, variant)
            model = read_graph(path)
            view = GraphView(model)
            readers = [
                Quantizer(q.name, q.input[0], scale, zero)
                for q in model.graph.node
                if q.op_type == "QuantizeLinear"
                and (scale := view.constant(q.input[1])) is not None
                and (zero := view.constant(q.input[2])) is not None
            ]
            quantizers[component] = readers
            target = Path(folder) / f"{component}.onnx"
            graphs[component] = runtime.load(target, mark_outputs(path, spec, [q.tensor for q in readers], target))
        yield replace(reference, graphs=graphs), quantizers
