"""Parts of streaming networks go through the exporter: recurrences, branches, delays, learned states, names."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.export.small_components import Small, f32, tail
from wanedge_export.component import Tensors
from wanedge_export.exporter import ExportedGraph, ExportError, WeightFile, export_component
from wanedge_export.exporter.parity import TOLERANCE as ALLOWED
from wanedge_export.exporter.reference import roll_out
from wanedge_runtimes.ort import OrtRuntime
from wanedge_runtimes.spec import GraphSpec

# float32 sums in another order, fed back through a state.
TOLERANCE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


class Sums(Small):
    """x [1, 3] -> y [1, 3]; total adds the inputs up. Derived classes differ in how y comes about."""

    def __init__(self) -> None:
        super().__init__()
        self.eval()

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        return {"y": self.compute(inputs["x"])}, {"total": state["total"] + inputs["x"]}

    def compute(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def spec(self) -> GraphSpec:
        x, y = f32("x", 1, 3), f32("y", 1, 3)
        return GraphSpec(component="sums", opset=24, inputs=(x,), outputs=(y,), states=(tail("total", 1, 3),))


class BufferCalledMean(Sums):
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(3))

    def compute(self, x: Tensor) -> Tensor:
        return x - x.mean() + self.mean


class ParameterCalledAdd(Sums):
    def __init__(self) -> None:
        super().__init__()
        self.add = nn.Parameter(torch.randn(3))

    def compute(self, x: Tensor) -> Tensor:
        return x + self.add + 1.0


class InputCalledLinear(Sums):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        return {"y": self.layer(inputs["linear"])}, {"total": state["total"] + inputs["linear"]}

    def spec(self) -> GraphSpec:
        return super().spec().model_copy(update={"inputs": (f32("linear", 1, 3),)})


class Delay(Sums):
    """y is the last x."""

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        return {"y": state["total"]}, {"total": inputs["x"]}


class Branches(Sums):
    """Takes one of two layers, by the sign of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 3), nn.Linear(3, 3)

    def compute(self, x: Tensor) -> Tensor:
        y: Tensor = torch.cond(x.sum() > 0, lambda x: self.left(x), lambda x: 2 * self.right(x), (x,))
        return y


class LearnedStart(Sums):
    """total begins with learned values."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, 3))

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        y = torch.tanh(inputs["x"] + state["total"])
        return {"y": y}, {"total": y}

    def init_state(self) -> Tensors:
        return {"total": self.start.detach().clone()}


class Recurrent(Small):
    """x [1, S, 6] -> y [1, S, 5] through a GRU and an LSTM of two layers."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 7, batch_first=True, bias=bias)
        self.lstm = nn.LSTM(7, 5, 2, bias=bias)
        self.eval()

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        h, gru = self.gru(inputs["x"], state["gru"])
        y, (hidden, cell) = self.lstm(h.transpose(0, 1), (state["h"], state["c"]))
        return {"y": y.transpose(0, 1)}, {"gru": gru, "h": hidden, "c": cell}

    def spec(self) -> GraphSpec:
        return GraphSpec(
            component="recurrent",
            opset=24,
            inputs=(f32("x", 1, "S", 6),),
            outputs=(f32("y", 1, "S", 5),),
            states=(tail("gru", 1, 1, 7), tail("h", 2, 1, 5), tail("c", 2, 1, 5)),
        )


class FoldedNorm(Sums):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1)
        self.eval()

    def compute(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x[:, None]))[:, 0]
        return y


class HandWrittenNorm(Sums):
    """Divides by the root of the mean square."""

    def compute(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6)


class Steep(Sums):
    """A right model that makes rounding errors large: x [1, 64] there and back, less x, and a thousandth of it."""

    def __init__(self) -> None:
        super().__init__()
        there = torch.randn(64, 512, dtype=torch.float64)
        self.there = nn.Parameter(there.float())
        self.back = nn.Parameter(torch.linalg.pinv(self.there.detach().double()).float())

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        x = inputs["x"]
        return {"y": x @ self.there @ self.back - x + 1e-3 * x}, {"total": state["total"] + x}

    def spec(self) -> GraphSpec:
        x, y = f32("x", 1, 64), f32("y", 1, 64)
        return GraphSpec(component="steep", opset=24, inputs=(x,), outputs=(y,), states=(tail("total", 1, 64),))


def streams_as_torch(component: Any, graph: ExportedGraph, dims: list[dict[str, int]], steps: int = 40) -> None:
    executable = OrtRuntime().load(graph.path, graph.spec)
    state = executable.new_state()
    for step in roll_out(component, dims, steps):
        outputs = executable.run({name: t.numpy() for name, t in step.inputs.items()}, state)
        for name, expected in step.outputs.items():
            np.testing.assert_allclose(outputs[name], expected.numpy(), **TOLERANCE)


@pytest.mark.parametrize("component", [BufferCalledMean, ParameterCalledAdd, InputCalledLinear, Delay, Branches])
def test_it_streams_as_torch_does(component: type[Small], tmp_path: Path) -> None:
    streams_as_torch(component(), export_component(component(), tmp_path), [{}])


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["portable", "decomposed"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_recurrence_over_a_dynamic_axis_streams_in_blocks_of_any_size(
    bias: bool, profile: Any, tmp_path: Path
) -> None:
    component = Recurrent(bias)
    graph = export_component(component, tmp_path, profile=profile)
    streams_as_torch(component, graph, [{"S": 1}, {"S": 9}, {"S": 16}])
    operators = [node.op_type for node in onnx.load(graph.path, load_external_data=False).graph.node]
    assert (operators.count("GRU"), operators.count("LSTM")) == (1, 2)
    assert "Split" not in operators  # the gates were reordered in the weights, once


def test_a_recurrence_stays_float32_in_a_float16_graph(tmp_path: Path) -> None:
    graph = export_component(Recurrent(), tmp_path, precision="fp16")
    assert {name.rpartition("/")[2].partition("_")[0] for name in graph.float32_nodes} >= {"GRU", "LSTM"}
    assert graph.error < 5e-3


def test_layers_outside_of_an_export_are_torchs_own() -> None:
    before = nn.GRU.forward, nn.LSTM.forward
    x = torch.randn(1, 4, 6)
    assert Recurrent()({"x": x}, Recurrent().init_state())[0]["y"].shape == (1, 4, 5)
    assert (nn.GRU.forward, nn.LSTM.forward) == before


def test_a_stream_begins_with_the_learned_values_and_a_new_state_begins_again(tmp_path: Path) -> None:
    component = LearnedStart()
    graph = export_component(component, tmp_path)
    executable = OrtRuntime().load(graph.path, graph.spec)
    x = torch.randn(1, 3)
    expected, _ = component({"x": x}, component.init_state())
    for _ in range(2):
        state = executable.new_state()
        first = executable.run({"x": x.numpy()}, state)["y"]
        second = executable.run({"x": x.numpy()}, state)["y"]
        np.testing.assert_allclose(first, expected["y"].detach(), **TOLERANCE)
        assert not np.allclose(first, second)


def test_a_branch_in_float16_agrees_with_torch_on_both_sides(tmp_path: Path) -> None:
    component = Branches()
    graph = export_component(component, tmp_path, precision="fp16")
    executable = OrtRuntime().load(graph.path, graph.spec)
    for sign in (1.0, -1.0):
        x = torch.full((1, 3), sign)
        expected, _ = component({"x": x}, component.init_state())
        actual = executable.run({"x": x.numpy()}, executable.new_state())["y"]
        np.testing.assert_allclose(actual, expected["y"].detach(), rtol=5e-3, atol=5e-3)


def test_a_convolution_keeps_its_name_when_a_norm_is_folded_into_it(tmp_path: Path) -> None:
    graph = export_component(FoldedNorm(), tmp_path)
    names = [node.name for node in onnx.load(graph.path).graph.node]
    assert any(name.startswith("conv/") for name in names)
    assert not any(name.startswith("norm/") for name in names)


@pytest.mark.parametrize("amplitude", [1.0, 300.0, 32768.0])
def test_a_hand_written_norm_in_float16_holds_loud_sound(amplitude: float, tmp_path: Path) -> None:
    graph = export_component(HandWrittenNorm(), tmp_path, precision="fp16")
    executable = OrtRuntime().load(graph.path, graph.spec)
    x = amplitude * torch.tensor([[0.3, -1.0, 0.7]])
    expected, _ = HandWrittenNorm()({"x": x}, HandWrittenNorm().init_state())
    np.testing.assert_allclose(executable.run({"x": x.numpy()}, executable.new_state())["y"], expected["y"], rtol=5e-3)


@pytest.mark.slow
def test_calibration_finds_what_sample_inputs_do_not_reach(tmp_path: Path) -> None:
    class Gain(Sums):
        def compute(self, x: Tensor) -> Tensor:
            return x * 30.0 / 40.0

    loud = {"x": torch.full((1, 3), 2e4)}
    quiet = export_component(Gain(), tmp_path / "quiet", precision="fp16")
    known = export_component(Gain(), tmp_path / "loud", precision="fp16", calibration=[loud])
    assert len(known.float32_nodes) > len(quiet.float32_nodes)


def test_a_right_model_with_large_rounding_errors_is_compared_with_float64(tmp_path: Path) -> None:
    assert export_component(Steep(), tmp_path).error > ALLOWED[torch.float32]


def test_a_tolerance_of_the_callers_own_is_held(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="allowed 1e-12"):
        export_component(Recurrent(), tmp_path, tolerance=1e-12)


def test_torchs_own_reason_is_shown(tmp_path: Path) -> None:
    class BothWays(Recurrent):
        """Reads the future, which ONNX's operator is not used for, so that torch unrolls it over a frozen size."""

        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(6, 7, batch_first=True, bidirectional=True)
            self.lstm = nn.LSTM(14, 5, 2)
            self.eval()

        def spec(self) -> GraphSpec:
            spec = super().spec()
            return spec.model_copy(update={"states": (tail("gru", 2, 1, 7), *spec.states[1:])})

    with pytest.raises(
        ExportError, match=r"Constraints violated.*(inferred to be a constant|specialized|Not all values)"
    ):
        export_component(BothWays(), tmp_path)


class TestFolders:
    """What lies in a folder after several exports answers as on the first day."""

    def answer(self, graph: ExportedGraph) -> np.ndarray:
        executable = OrtRuntime().load(graph.path, graph.spec)
        return executable.run({"x": np.ones((1, 300), np.float32)}, executable.new_state())["y"]

    def wide(self, name: str, seed: int) -> Any:
        class Wide(Small):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(seed)
                self.layer = nn.Linear(300, 300)
                self.eval()

            def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
                return {"y": self.layer(inputs["x"])}, state

            def spec(self) -> GraphSpec:
                return GraphSpec(component=name, opset=24, inputs=(f32("x", 1, 300),), outputs=(f32("y", 1, 300),))

        return Wide()

    def test_a_component_that_shares_weights_survives_another_export_of_its_neighbour(self, tmp_path: Path) -> None:
        with WeightFile(tmp_path / "heads.weights") as weights:
            first = export_component(self.wide("left", 0), tmp_path, weights=weights)
            export_component(self.wide("right", 1), tmp_path, weights=weights)
        before = self.answer(first)
        with WeightFile(tmp_path / "heads.weights") as weights:
            export_component(self.wide("right", 2), tmp_path, weights=weights)
        np.testing.assert_array_equal(self.answer(first), before)

    def test_float16_does_not_replace_float32(self, tmp_path: Path) -> None:
        whole = export_component(self.wide("wide", 0), tmp_path)
        before = self.answer(whole)
        half = export_component(self.wide("wide", 0), tmp_path, precision="fp16")
        assert half.path != whole.path
        np.testing.assert_array_equal(self.answer(whole), before)

    def test_changed_weights_are_noticed_when_the_graph_is_loaded(self, tmp_path: Path) -> None:
        graph = export_component(self.wide("wide", 0), tmp_path)
        content = bytearray(graph.data[0].read_bytes())
        content[100] ^= 1
        graph.data[0].write_bytes(content)
        with pytest.raises(Exception, match=r"does not hold the weights that wide\.onnx was exported with"):
            self.answer(graph)

    def test_two_exports_at_once_do_not_meet(self, tmp_path: Path) -> None:
        with WeightFile(tmp_path / "w.weights") as one:
            first = export_component(self.wide("left", 0), tmp_path, weights=one)
            with WeightFile(tmp_path / "w.weights") as two:
                second = export_component(self.wide("right", 1), tmp_path, weights=two)
        assert not np.array_equal(self.answer(first), self.answer(second))
        assert not list(tmp_path.glob(".*"))

    def test_what_a_killed_export_left_is_removed(self, tmp_path: Path) -> None:
        (tmp_path / ".w.weights.999999999-abcd.exporting").mkdir()
        export_component(self.wide("wide", 0), tmp_path)
        assert not list(tmp_path.glob(".*"))

    @pytest.mark.parametrize("name", ["a/b", "x" * 260, "..", ""])
    def test_a_name_that_is_no_file_name_is_refused(self, name: str, tmp_path: Path) -> None:
        component = self.wide("wide", 0)
        spec = component.spec().model_copy(update={"component": name})
        component.spec = lambda: spec
        with pytest.raises(ExportError, match="no name for a file"):
            export_component(component, tmp_path)

    def test_a_file_in_the_folders_place_is_an_export_error(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("a file")
        with pytest.raises(ExportError, match="cannot write to"):
            export_component(self.wide("wide", 0), tmp_path / "taken")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
    def test_a_full_disk_is_an_export_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_args: object, **_options: object) -> None:
            Path("/dev/full").write_bytes(b"x" * 10_000)

        monkeypatch.setattr(Path, "touch", full)
        with pytest.raises(ExportError, match="No space left"):
            export_component(self.wide("wide", 0), tmp_path)


class BatchFirst(Small):
    """x [1, S, 257] -> y [1, S, 257] through an LSTM of two layers that has the batch first, and a product."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(257, 128, 2, batch_first=True), nn.Linear(128, 257)
        self.eval()

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        y, (hidden, cell) = self.lstm(inputs["x"], (state["h"], state["c"]))
        return {"y": torch.sigmoid(self.out(y))}, {"h": hidden, "c": cell}

    def spec(self) -> GraphSpec:
        return GraphSpec(
            component="batch_first",
            opset=24,
            inputs=(f32("x", 1, "S", 257),),
            outputs=(f32("y", 1, "S", 257),),
            states=(tail("h", 2, 1, 128), tail("c", 2, 1, 128)),
        )


@pytest.mark.slow
def test_a_recurrence_in_float16_does_not_end_the_process_that_exports_it(tmp_path: Path) -> None:
    """In a process of its own, because a segmentation fault would end the tests as well."""
    code = (
        "import sys; from pathlib import Path; from tests.export.test_exporter_streaming import BatchFirst; "
        "from wanedge_export.exporter import export_component; "
        "print(export_component(BatchFirst(), Path(sys.argv[1]), precision='fp16').path.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "batch_first.fp16.onnx"), done.stderr[-2000:]
