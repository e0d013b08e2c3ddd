"""The planning half of the TensorRT runtime: bindings, aliases, profiles, captures and streams, without a GPU."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanedge_runtimes.errors import GraphError
from wanedge_runtimes.gpu.plan import CapturePlan, Loaded, choose_profile, plan_call, state_buffers
from wanedge_runtimes.gpu.schedule import Step, begin_unit, finish_unit
from wanedge_runtimes.spec import GraphSpec, StateSpec, TensorSpec
from wanedge_runtimes.tensorrt.engine import EngineInfo, EngineTensor

SPEC = GraphSpec(
    component="layer",
    opset=24,
    inputs=(TensorSpec(name="x", dtype="float32", shape=(1, "S", 8)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(1, "S", 8)),),
    states=(
        StateSpec(
            name="key", past="past.key", present="present.key", dtype="float16", shape=(1, 2, 64, 4), update="in_place"
        ),
        StateSpec(
            name="tail", past="past.tail", present="present.tail", dtype="float16", shape=(1, 8, 6), update="swap"
        ),
    ),
)


def engine(profiles: tuple[dict[str, tuple[int, int, int]], ...] = (), alias: str | None = "past.key") -> Loaded:
    info = EngineInfo(
        library="tensorrt-rtx",
        version="1.7.1.116",
        sm=("8.9",),
        platforms=("linux-x86_64",),
        tensors=(EngineTensor(name="present.key", mode="output", dtype="float16", shape=(1, 2, 64, 4), alias=alias),),
        profiles=profiles,
        workspace=0,
        memory_estimate=0,
        layers={},
        graph_sha256="0" * 64,
        log="x.log",
    )
    return Loaded.of(info)


def test_a_cache_has_one_address_for_input_and_output_and_a_tail_has_two_that_swap() -> None:
    plan = plan_call(engine(), SPEC, {"S": 3})
    even, odd = (dict(table) for table in plan.bindings)
    assert even["past.key"] == even["present.key"] == odd["past.key"] == odd["present.key"]
    assert even["past.tail"] != even["present.tail"]
    assert (odd["past.tail"], odd["present.tail"]) == (even["present.tail"], even["past.tail"])


@given(size=st.integers(1, 64))
def test_every_tensor_is_bound_to_a_buffer_of_its_own_size(size: int) -> None:
    plan = plan_call(engine(), SPEC, {"S": size})
    buffers = {buffer.name: buffer for buffer in plan.buffers}
    expected = {t.name for t in (*SPEC.inputs, *SPEC.outputs)} | {n for s in SPEC.states for n in (s.past, s.present)}
    shapes = {t.name: t.concrete({"S": size}) for t in (*SPEC.inputs, *SPEC.outputs)}
    for table in plan.bindings:
        assert {tensor for tensor, _ in table} == expected
        for tensor, name in table:
            if tensor in shapes:
                assert buffers[name].shape == shapes[tensor]
    assert buffers["input.x"].nbytes == np.zeros((1, size, 8), np.float32).nbytes


def test_state_memory_is_one_cache_and_two_tails() -> None:
    assert [b.name for b in state_buffers(SPEC)] == ["state.key", "state.tail.0", "state.tail.1"]
    assert sum(b.nbytes for b in state_buffers(SPEC)) == SPEC.state_bytes + 1 * 8 * 6 * 2


@pytest.mark.parametrize("alias", [None, "past.tail"])
def test_an_engine_whose_cache_is_not_in_place_is_refused(alias: str | None) -> None:
    with pytest.raises(GraphError, match=r"present\.key"):
        plan_call(engine(alias=alias), SPEC, {"S": 3})


def test_the_narrowest_profile_is_taken() -> None:
    info = engine(({"S": (1, 128, 128)}, {"S": (21, 21, 21)}, {"S": (1, 1, 1)}))
    assert [choose_profile(info, "layer", {"S": size}) for size in (1, 21, 20)] == [2, 1, 0]
    with pytest.raises(GraphError, match=r"129.*S 1\.\.128"):
        choose_profile(info, "layer", {"S": 129})
    assert choose_profile(engine(), "layer", {"S": 7}) is None


def test_a_graph_is_captured_after_one_warm_run_and_again_when_an_address_moves() -> None:
    plan = CapturePlan()
    here, moved = {"x": 0x100, "y": 0x200}, {"x": 0x300, "y": 0x200}
    assert [plan.decide((0,), here) for _ in range(3)] == ["warm_up", "capture", "replay"]
    assert plan.decide((1,), here) == "warm_up"  # the other parity has other addresses and a graph of its own
    assert [plan.decide((0,), moved) for _ in range(2)] == ["capture", "replay"]
    plan.forget()
    assert plan.decide((0,), moved) == "warm_up"


def happens_before(steps: list[Step]) -> set[tuple[int, int]]:
    """Pairs (earlier, later) that streams and events order: the transitive closure."""
    recorded = {step.records: index for index, step in enumerate(steps) if step.records}
    before: list[set[int]] = []
    last: dict[str, int] = {}
    for index, step in enumerate(steps):
        direct = {last[step.stream]} if step.stream in last else set()
        for event in step.waits:
            assert event in recorded, f"{event} is waited for and never recorded"
            assert recorded[event] < index, f"{event} is recorded after it is waited for"
            direct.add(recorded[event])
        before.append(direct.union(*(before[d] for d in direct)) if direct else set())
        last[step.stream] = index
    return {(a, b) for b, earlier in enumerate(before) for a in earlier}


def issued(units: int, unfinished: list[bool]) -> list[Step]:
    """Every step of some units. unfinished: for each but the first, whether it is begun before the last is finished."""
    steps: list[Step] = []
    for unit in range(units):
        waits = unit > 0 and unfinished[unit]
        if unit > 0 and not waits:
            steps += finish_unit(unit - 1)
        steps += begin_unit(unit, waits)
    return [*steps, *finish_unit(units - 1)]


PACES = st.lists(st.booleans(), min_size=1, max_size=9)


@given(pace=PACES)
def test_no_two_steps_race(pace: list[bool]) -> None:
    steps = issued(len(pace), pace)
    ordered = happens_before(steps)
    for (a, one), (b, two) in combinations(enumerate(steps), 2):
        if one.writes & (two.reads | two.writes) or two.writes & one.reads:
            assert (a, b) in ordered, f"{one.name} {one.unit} and {two.name} {two.unit} race"


@given(pace=PACES)
def test_a_thought_that_is_begun_early_does_not_wait_for_the_solver(pace: list[bool]) -> None:
    steps = issued(len(pace), pace)
    ordered = happens_before(steps)
    at = {(s.name, s.unit): i for i, s in enumerate(steps)}
    for unit in range(1, len(pace)):
        assert ((at["solve", unit - 1], at["think", unit]) not in ordered) == pace[unit]


@given(pace=PACES)
def test_the_thinker_has_the_media_of_every_unit_but_the_last(pace: list[bool]) -> None:
    order = [(s.name, s.unit) for s in issued(len(pace), pace) if s.stream == "thinker"]
    for unit in range(1, len(pace)):
        taken = {u for name, u in order[: order.index(("think", unit))] if name == "take"}
        assert taken >= set(range(unit - 1))
