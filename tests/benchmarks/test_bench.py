"""The bench compares like with like, and its arithmetic cannot be fooled by a machine that changes its mind."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks import measures as become
from tests.benchmarks import roofline
from tests.benchmarks.__main__ import bench
from tests.benchmarks.contenders import (
    WORLD,
    BenchError,
    Contender,
    GraphsContender,
    SessionContender,
    StreamerContender,
    UnitTime,
    require_same_answers,
)
from tests.benchmarks.growing import GrowingExecutable
from tests.benchmarks.longrun import EARLY, LongRun, long_run
from tests.benchmarks.paced import paced_latencies_ms
from tests.benchmarks.plot import spread_labels
from tests.benchmarks.roofline import Cost, Rates, graph_cost, measured_rates, roofline_ms
from tests.benchmarks.rounds import Timings, run_rounds
from tests.configs import mini
from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge.layout import UnitLayout
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.units import UserUnit
from wanedge_calibration.results import Results
from wanedge_export.model import ReferenceModel
from wanedge_export.torch_runtime import torch_model
from wanedge_runtimes.runtime import RuntimeOptions, State

THREADS = RuntimeOptions(threads=1)


@pytest.fixture(scope="module")
def model(mini_bundle: Bundle) -> Model:
    return Model.load(mini_bundle, "onnxruntime", options=THREADS)


@pytest.fixture
def growing(mini_bundle: Bundle, model: Model, tmp_path: Path) -> Model:
    backbone = GrowingExecutable(*mini_bundle.graph("backbone", model.variant), tmp_path, THREADS)
    return Model(model.config, {**model.graphs, "backbone": backbone}, model.tokenizer)


def test_a_growing_cache_answers_like_the_ring_until_the_ring_forgets(model: Model, growing: Model) -> None:
    remembered = min(model.config.backbone.windows.values())
    streams = [Streamer(m, WORLD) for m in (model, growing)]
    for user in user_units(model.config, remembered + 1):
        ring, grown = (stream.step(user).audio for stream in streams)
        # Float32 sums over a cache of another length differ in their last bits only.
        same = np.abs(ring - grown).max() < 1e-4 * np.abs(ring).max()
        assert same == (user.index < remembered)


def test_a_growing_cache_keeps_every_token_once_and_no_noisy_one(
    model: Model, growing: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = growing.graphs["backbone"]
    states: list[State] = []
    make = backbone.new_state

    def new_state() -> State:
        states.append(make())
        return states[-1]

    monkeypatch.setattr(backbone, "new_state", new_state)
    streamer, units = Streamer(growing, WORLD), 4
    (state,) = states
    prefill = state.snapshot()["0.key"].shape[2]
    for user in user_units(model.config, units):
        streamer.step(user)
    lengths = {array.shape[2] for array in state.snapshot().values()}
    assert prefill > 0
    assert lengths == {prefill + units * UnitLayout(model.config).slots}


def test_every_contender_runs_the_same_graphs_for_a_unit(model: Model) -> None:
    users = list(user_units(model.config, 4))
    session, streamer, bare = SessionContender(model), StreamerContender("streamer", model), GraphsContender(model)
    try:
        # A session's unit starts with the clean pass of the one before, a streamer's ends with its own.
        in_session, in_streamer = (
            [Counter(run.work for run in unit.ran) for unit in contender.run(users)[1:]]
            for contender in (session, streamer)
        )
        assert in_session == in_streamer
        assert len(bare.calls) == in_session[0].total()
    finally:
        session.close()


def test_a_unit_lasts_at_least_as_long_as_its_graph_runs(model: Model) -> None:
    users = list(user_units(model.config, 6))
    for contender in (SessionContender(model), StreamerContender("streamer", model), GraphsContender(model)):
        assert all(0 < unit.graph_ms < unit.wall_ms for unit in contender.run(users)[1:])
        contender.close()


@pytest.mark.slow
def test_contenders_with_other_weights_are_refused(model: Model, mini_model: ReferenceModel) -> None:
    require_same_answers(model, torch_model(mini_model, model.tokenizer))
    other = torch_model(ReferenceModel(model.config, seed=1), model.tokenizer)
    with pytest.raises(BenchError, match="differ by"):
        require_same_answers(model, other)


class Fake:
    """Takes as long as it is told for each unit."""

    def __init__(self, name: str, ms: Iterator[float]) -> None:
        self.name, self._ms, self.answered = name, ms, list[int]()

    def run(self, users: Sequence[UserUnit]) -> list[UnitTime]:
        self.answered += [user.index for user in users]
        return [UnitTime(user.index, next(self._ms), 0.0) for user in users]

    def close(self) -> None: ...


def race(*contenders: Contender, units: int = 60, block: int = 5) -> Timings:
    return run_rounds(contenders, mini(), units, block, hopeless_ms=100)


@settings(max_examples=20)
@given(st.lists(st.floats(0.2, 20), min_size=12, max_size=12), st.floats(0.5, 3))
def test_a_machine_that_slows_down_between_turns_changes_no_ratio(moods: list[float], factor: float) -> None:
    def in_moods(ms: float) -> Iterator[float]:
        return iter([ms * mood for mood in moods for _ in range(5)])

    timings = race(Fake("session", in_moods(1.0)), Fake("other", in_moods(factor)))
    ratio = timings.ratio("other", "session")
    assert ratio is not None
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((factor, factor, factor))


def test_the_hopeless_leave_the_race_and_the_others_answer_every_unit_in_order() -> None:
    quick, slow = Fake("session", iter([1.0] * 60)), Fake("growing", iter(np.arange(60) * 4.0))
    timings = race(quick, slow)
    assert quick.answered == list(range(60))
    assert slow.answered == list(range(30))  # units 25 .. 29 took 100 ms and more
    assert timings.ratio("growing", "session", (31, 60)) is None


def test_the_first_round_and_the_first_unit_of_a_turn_are_not_counted() -> None:
    cold = [1000.0, *[50.0] * 4, *[1000.0, 1.0, 1.0, 1.0, 1.0] * 11]
    timings = race(Fake("session", iter(cold)))
    assert set(timings.walls_ms("session")) == {1.0}
    assert timings.warm_ms == {"session": 1200.0}


@given(*[st.integers(1, 40)] * 3)
def test_a_products_cost_is_its_arithmetic_and_its_bytes(rows: int, inner: int, columns: int) -> None:
    info, float32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.zeros((inner, columns), np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [info("x", float32, [1, "S", inner])],
        [info("y", float32, [1, "S", columns])],
        [weight],
    )
    cost = cost_of(graph, rows)
    assert cost.flops == 2 * rows * inner * columns
    assert cost.moved == 4 * (rows * inner + inner * columns + rows * columns)


def cost_of(graph: onnx.GraphProto, tokens: int) -> Cost:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 24)]), path)
        return graph_cost(path, tokens)


def test_more_tokens_cost_more_arithmetic_and_the_same_weights(mini_bundle: Bundle, model: Model) -> None:
    path, _ = mini_bundle.graph("backbone", model.variant)
    one, two, three = (graph_cost(path, tokens) for tokens in (1, 2, 3))
    assert one.flops > 0
    assert three.flops - two.flops == two.flops - one.flops == one.flops
    assert three.moved - two.moved == two.moved - one.moved < one.moved / 2


def test_a_run_is_bound_by_the_slower_of_arithmetic_and_memory() -> None:
    rates = Rates(block=100.0, square=1e9, stream=10.0)
    assert roofline_ms([Cost(200.0, 1.0), Cost(1.0, 30.0)], rates) == pytest.approx(2000 + 3000)


@given(st.lists(st.floats(0, 500), min_size=1, max_size=6), st.floats(1, 40))
def test_labels_keep_their_order_and_their_distance(heights: list[float], gap: float) -> None:
    placed = spread_labels(heights, gap)
    by_height = [placed[i] for i in sorted(range(len(heights)), key=heights.__getitem__)]
    assert all(b - a >= gap * 0.999 for a, b in pairwise(by_height))
    assert all(y >= height for y, height in zip(placed, heights, strict=True))


def test_a_long_session_is_compared_with_a_young_one_and_its_memory_is_read_on_the_way(mini_bundle: Bundle) -> None:
    *steps, result = long_run(mini_bundle.origin, late=EARLY, turns=2, threads=1)
    assert steps == list(range(0, EARLY, 10))
    assert isinstance(result, LongRun)
    assert [len(turn) for turn in (*result.early_ms, *result.late_ms)] == [9] * 4
    found = become.long_session(LongRun.model_validate_json(result.model_dump_json()))
    assert found["memory_growth_mb"].threshold == "< 2"
    assert (found["memory_mb"].value or 0) > 10


def test_at_real_time_pace_every_unit_after_the_warm_up_is_counted(model: Model) -> None:
    counted: list[int] = []
    latencies = paced_latencies_ms(model, 3, lambda: counted.append(1))
    assert len(latencies) == len(counted) == 3
    assert all(latency > 0 for latency in latencies)


def test_installed_sizes_add_up() -> None:
    found = become.installation({"numpy": 70_000_000, "small": 400_000})
    assert found["installed_mb"].value == pytest.approx(70.4)
    assert "installed_numpy_mb" in found
    assert "installed_small_mb" not in found


def clock_of(*spent_ms: int) -> Callable[[], int]:
    """A clock in ns, read before and after each run; the runs take `spent_ms`, again and again."""
    now, runs = 0, cycle([ms for spent in spent_ms for ms in (0, spent)])

    def read() -> int:
        nonlocal now
        now += next(runs) * 1_000_000
        return now

    return read


def test_this_machines_rates_are_those_of_the_best_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "perf_counter_ns", clock_of(4, 2, 3))
    rates = measured_rates(mini(), rows=6, repeats=3)
    weights = 32 * 48 * 3 * 3  # width, ffn, three matrices of each of three layers
    assert rates.block == pytest.approx(2 * 6 * weights / 2e-3)  # operations a second; the best repeat took 2 ms
    assert rates.square == pytest.approx(2 * 1024**3 / 2e-3)
    assert rates.stream == pytest.approx(4 * weights / 2e-3)  # bytes a second


@pytest.mark.slow
def test_the_bench_writes_figures_with_every_bar_and_a_picture(mini_bundle: Bundle, tmp_path: Path) -> None:
    bench(
        out=tmp_path,
        bundle=mini_bundle.origin,
        weights=None,
        units=25,
        block=5,
        paced=20,
        threads=1,
        compiled=False,
        long=False,
        late=EARLY,
        install=False,
    )
    figures = Results.read(tmp_path / "bench.json")
    assert {name: m.threshold for name, m in figures.measures.items() if m.threshold} == {
        "session_open_s": "<= 2",
        "response_latency_ms_p95": "<= 120",
        "realtime_factor": "<= 0.75",
        "session_overhead_p95": "<= 0.03",
        "global_window_s": ">= 7",
        "agent_video_height": ">= 96",
        "agent_video_width": ">= 160",
        "audio_rate": ">= 16000",
        "torch_eager_over_session": "> 1",
    }
    assert not figures.measures["agent_video_height"].passed  # a miss stays in the file
    assert json.loads((tmp_path / "bench.json").read_text())["made"]["model_sha256"] == mini_bundle.digest
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert (tmp_path / "bench.svg").read_text().count("<svg") == 1
