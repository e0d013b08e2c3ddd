"""Runs on the CPU: state in place and in two buffers, block sizes, isolation, memory over time."""

import gc
import json
import re
import subprocess
import sys
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtimes.small_graphs import (
    CAPACITY,
    CHANNELS,
    CONV_WEIGHT,
    FRAMES,
    KERNEL,
    TAIL_SPEC,
    Case,
    D,
    attend,
    causal_mask,
    feed,
    frames,
    tokens,
)
from wanedge_runtimes.errors import ExecutionError, GraphError, InputError, StateError
from wanedge_runtimes.ort import OrtExecutable, OrtRuntime
from wanedge_runtimes.runtime import RuntimeOptions, Spin
from wanedge_runtimes.spec import GraphSpec, TensorSpec

# Scores, softmax and sums of at most 32 terms in float32 against float64.
FLOAT32_TOLERANCE = 1e-5


# in place


def test_a_cache_stays_at_one_address_and_is_written_there(cache: OrtExecutable) -> None:
    state = cache.new_state()
    memory = state.buffers.current("key")
    array, address = memory.array, memory.array.ctypes.data
    x = tokens(0, 3)
    feed(cache, state, x, start=4)
    assert state.buffers.current("key").array is array
    assert array.ctypes.data == address
    np.testing.assert_array_equal(array[0, 0, 4:7], x)
    assert not array[0, 0, :4].any()
    assert not array[0, 0, 7:].any()


_COUNT_COPIES = """
import sys
import numpy as np
from pathlib import Path
from tests.runtimes.small_graphs import write_cache, causal_mask, D
from wanedge_runtimes.ort import OrtRuntime, session
from wanedge_runtimes.ort.host import host_memory

session.LOG_FATAL_ONLY = 2  # show ONNX Runtime's warnings
case = write_cache(Path(sys.argv[1]))
executable = OrtRuntime().load(case.path, case.spec)
call = executable.prepare(executable.new_state(), {"S": 2})
call.inputs["mask"][...] = causal_mask(0, 2)
if sys.argv[2] == "elsewhere":
    keep = host_memory("float32", case.spec.states[0].shape)
    call._bindings[0].bind_output("present.0.key", "cpu", 0, np.float32, keep.array.shape, keep.address)
for _ in range(3):
    call.run()
"""


@pytest.mark.parametrize(("where", "copies"), [("in place", 0), ("elsewhere", 3)])
def test_onnx_runtime_copies_a_cache_only_when_past_and_present_differ(tmp_path: Path, where: str, copies: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COUNT_COPIES, str(tmp_path), where],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert len(re.findall("copying past_cache", done.stderr)) == copies, done.stderr


@settings(max_examples=30)
@given(blocks=st.lists(st.integers(1, 7), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_any_sequence_of_block_sizes_on_one_state_equals_attention_over_all_tokens(
    cache: OrtExecutable, blocks: list[int], seed: int
) -> None:
    state, x, start = cache.new_state(), tokens(seed), 0
    for size in blocks:
        size = min(size, CAPACITY - start)
        if size == 0:
            break
        block = x[start : start + size]
        got = feed(cache, state, block, start)
        np.testing.assert_allclose(got, attend(x[: start + size], start), atol=FLOAT32_TOLERANCE)
        start += size


# swap


@settings(max_examples=20)
@given(units=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_swapped_tail_equals_one_convolution_over_everything(tail: OrtExecutable, units: int, seed: int) -> None:
    state, x = tail.new_state(), frames(seed, units)
    got = np.concatenate([tail.run({"x": unit}, state)["y"] for unit in x], axis=2)
    whole = np.concatenate([np.full((1, CHANNELS, KERNEL - 1), 0.5), *x], axis=2)  # 0.5 is the initial value
    windows = np.lib.stride_tricks.sliding_window_view(whole[0], KERNEL, axis=1)  # [channels, n, kernel]
    np.testing.assert_allclose(got[0], np.einsum("cnk,ock->on", windows, CONV_WEIGHT), atol=FLOAT32_TOLERANCE)


@settings(max_examples=20)
@given(
    steps=st.lists(st.sampled_from(["run", "other call", "reset", "round trip"]), max_size=12),
    seed=st.integers(0, 99),
)
def test_calls_on_one_state_follow_it_through_resets_and_restores(
    tail: OrtExecutable, steps: list[str], seed: int
) -> None:
    state, past = tail.new_state(), np.full((1, CHANNELS, KERNEL - 1), 0.5, np.float32)
    calls = {"run": tail.prepare(state), "other call": tail.prepare(state)}
    for step, x in zip(steps, frames(seed, len(steps)), strict=True):
        if step == "reset":
            state.reset()
            past[:] = 0.5
        elif step == "round trip":
            state.restore(state.snapshot())
        else:
            calls[step].inputs["x"][...] = x
            calls[step].run()
            past = x[:, :, 1 - KERNEL :]
        np.testing.assert_array_equal(state.snapshot()["tail"], past)


# isolation


def test_states_of_one_executable_do_not_disturb_each_other(cache: OrtExecutable) -> None:
    x, other = tokens(1), tokens(2)
    alone = [feed(cache, state, x[i : i + 4], i) for state in [cache.new_state()] for i in range(0, CAPACITY, 4)]
    a, b = cache.new_state(), cache.new_state()
    beside = []
    for i in range(0, CAPACITY, 4):
        beside.append(feed(cache, a, x[i : i + 4], i))
        feed(cache, b, other[i : i + 4], i)
    np.testing.assert_array_equal(beside, alone)


def test_two_threads_with_two_states_get_what_they_get_alone(cache: OrtExecutable, tail: OrtExecutable) -> None:
    def session(seed: int) -> tuple[np.ndarray, np.ndarray]:
        kv, conv, x = cache.new_state(), tail.new_state(), tokens(seed)
        attended = [feed(cache, kv, x[i : i + 2], i) for _ in range(20) for i in range(0, CAPACITY, 2)]
        convolved = [tail.run({"x": unit}, conv)["y"] for unit in frames(seed, 200)]
        return np.stack(attended), np.stack(convolved)

    alone = [session(seed) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(session, (1, 2)))
    for one, two in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])


# calls


def test_one_calls_output_is_the_next_calls_input_without_a_copy(tail: OrtExecutable) -> None:
    first, second = tail.new_state(), tail.new_state()
    shared = np.zeros((1, CHANNELS, FRAMES), np.float32)
    produce = tail.prepare(first, bound={"y": shared})
    consume = tail.prepare(second, bound={"x": shared})
    produce.inputs["x"][...] = frames(3, 1)[0]
    produce.run()
    consume.run()
    reference = tail.run({"x": tail.run({"x": frames(3, 1)[0]}, tail.new_state())["y"]}, tail.new_state())["y"]
    np.testing.assert_array_equal(consume.outputs["y"], reference)
    assert produce.outputs["y"] is consume.inputs["x"] is shared


def test_a_call_tells_the_wall_time_of_its_last_run(tail: OrtExecutable) -> None:
    call = tail.prepare(tail.new_state())
    assert call.elapsed_ns == 0
    call.run()
    assert call.elapsed_ns > 0


def test_bfloat16_state_is_bit_patterns_on_the_host(bfloat16: OrtExecutable) -> None:
    state = bfloat16.new_state()
    x = np.array([[1, 2, 1 / 256]], np.float32)
    np.testing.assert_array_equal(bfloat16.run({"x": x}, state)["y"], 1.5 + x)
    bits = state.snapshot()["total"]
    assert bits.dtype == np.uint16
    as_float = (bits.astype(np.uint32) << 16).view(np.float32)
    # bfloat16 keeps 8 significant bits: the last sum, 1.50390625, rounds back to 1.5.
    np.testing.assert_array_equal(as_float, [[2.5, 3.5, 1.5]])
    fresh = bfloat16.new_state()
    fresh.restore(state.snapshot())
    np.testing.assert_array_equal(bfloat16.run({"x": x}, fresh)["y"], as_float + x)


def test_a_freed_state_takes_its_calls_with_it(cache: OrtExecutable) -> None:
    state = cache.new_state()
    feed(cache, state, tokens(0, 2), 0)
    buffers, gone = weakref.ref(state.buffers), weakref.ref(state)
    gc.disable()  # reference counts alone must do it: a kiosk must not wait for the collector to get its cache back
    try:
        del state
        assert gone() is None
        assert buffers() is None
    finally:
        gc.enable()


# memory


_GROWTH_OF_RUNS = """
import gc, json, sys, tracemalloc
from pathlib import Path
import psutil
from wanedge_runtimes.ort import OrtRuntime
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.spec import GraphSpec

runtime = OrtRuntime(RuntimeOptions(threads=1))
paths, specs = sys.argv[1::2], sys.argv[2::2]
cache, tail = (runtime.load(Path(p), GraphSpec.model_validate_json(s)) for p, s in zip(paths, specs))
kv, conv = cache.new_state(), tail.new_state()
calls = [cache.prepare(kv, {"S": size}) for size in (1, 3, 7)] + [tail.prepare(conv)]
for call in calls[:3]:
    call.inputs["mask"][...] = True

def run(times):
    for _ in range(times):
        for call in calls:
            call.run()

run(300)
gc.collect()
resident = psutil.Process().memory_info().rss
tracemalloc.start()
before = tracemalloc.get_traced_memory()[0]
run(1500)
traced = tracemalloc.get_traced_memory()[0] - before
tracemalloc.stop()
print(json.dumps([traced, psutil.Process().memory_info().rss - resident]))
"""


def test_runs_allocate_nothing_that_stays(cache_case: Case, tail_case: Case) -> None:
    """Measured in a process of its own: the tests' process allocates and frees for a hundred other reasons."""
    cases = [text for case in (cache_case, tail_case) for text in (str(case.path), case.spec.model_dump_json())]
    command = [sys.executable, "-c", _GROWTH_OF_RUNS, *cases]
    traced, resident = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    # A run that kept even one small object would keep 6000 of them, 100 kB and more.
    assert traced < 50_000
    assert resident < 1 << 20


def test_run_keeps_the_memory_of_a_few_block_sizes_only(runtime: OrtRuntime, tmp_path: Path) -> None:
    """At S = 1..2000 of a real backbone it kept 6 GiB."""
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, "N"]) for name in "xy"]
    nodes = [onnx.helper.make_node("Add", ["x", "x"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "sum", tensors[:1], tensors[1:])
    opset = onnx.helper.make_opsetid("", 20)  # the newest is beyond the oldest ONNX Runtime that is allowed
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.save(model, tmp_path / "sum.onnx")
    spec = GraphSpec(
        component="sum",
        opset=20,
        inputs=(TensorSpec(name="x", dtype="float32", shape=(1, "N")),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(1, "N")),),
    )
    executable = runtime.load(tmp_path / "sum.onnx", spec)
    state, sizes = executable.new_state(), range(100_000, 100_040)

    def kept() -> int:
        """Bytes of NumPy memory that a run at each of 40 sizes leaves allocated."""
        gc.collect()
        tracemalloc.start()
        for size in sizes:
            executable.run({"x": np.ones((1, size), np.float32)}, state)
        traced = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return traced

    a_call = 2 * 100_040 * 4
    assert 8 * a_call < kept() < 9 * a_call  # eight sizes stay, of an input and an output each
    assert kept() < 9 * a_call


# misuse


def test_a_state_of_another_graph_is_refused(cache: OrtExecutable, tail: OrtExecutable) -> None:
    with pytest.raises(StateError, match="another graph than tail"):
        tail.prepare(cache.new_state())


@pytest.mark.parametrize("dims", [None, {}, {"S": 0}, {"T": 3}, {"S": 3, "T": 3}])
def test_dynamic_axes_must_be_given_exactly(cache: OrtExecutable, dims: dict[str, int] | None) -> None:
    with pytest.raises(GraphError, match=r"dynamic axes \['S'\]"):
        cache.prepare(cache.new_state(), dims)


_SHAPE = (1, CHANNELS, FRAMES)
_READ_ONLY = np.zeros(_SHAPE, np.float32)
_READ_ONLY.setflags(write=False)


@pytest.mark.parametrize(
    ("bound", "says"),
    [
        ({"x": np.zeros((1, CHANNELS, FRAMES + 1), np.float32)}, "the array to bind is float32"),
        ({"x": np.zeros(_SHAPE, np.float64)}, "the array to bind is float64"),
        ({"x": np.zeros((1, FRAMES, CHANNELS), np.float32).swapaxes(1, 2)}, "C-contiguous"),
        ({"y": _READ_ONLY}, "writeable"),
        ({"past_states.tail": np.zeros((1, CHANNELS, 2), np.float32)}, "no input or output 'past_states.tail'"),
    ],
)
def test_an_array_that_does_not_fit_is_not_bound(tail: OrtExecutable, bound: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(GraphError, match=says):
        tail.prepare(tail.new_state(), bound=bound)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, r"takes the inputs \['x'\], and was given \[\]"),
        ({"x": np.zeros(_SHAPE, np.float64)}, "not float64"),
        ({"x": np.zeros((CHANNELS, FRAMES), np.float32)}, r"not float32 \[3, 5\]"),
    ],
)
def test_run_refuses_inputs_that_disagree_with_the_spec(
    tail: OrtExecutable, inputs: dict[str, np.ndarray], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        tail.run(inputs, tail.new_state())


def test_run_refuses_inputs_that_disagree_on_a_dynamic_axis(cache: OrtExecutable) -> None:
    inputs = {"x": np.zeros((1, 3, D), np.float32), "mask": causal_mask(0, 2), "write_index": np.array([0])}
    with pytest.raises(InputError, match=r"'mask' .*with \{'S': 3\}"):
        cache.run(inputs, cache.new_state())


def test_a_failing_run_names_its_component_and_leaves_others_usable(cache: OrtExecutable) -> None:
    state = cache.new_state()
    with pytest.raises(ExecutionError, match="cache failed while it ran") as caught:
        feed(cache, state, tokens(0, 2), start=CAPACITY)  # writes past the end
    assert "reset it" in caught.value.hint
    state.reset()
    np.testing.assert_allclose(feed(cache, state, tokens(0, 2), 0), attend(tokens(0, 2), 0), atol=FLOAT32_TOLERANCE)


@pytest.mark.parametrize("spin", ["never", "run", "always"])
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_threads_and_spinning_do_not_change_the_answer(
    tail_case, tail: OrtExecutable, spin: Spin, threads: int
) -> None:
    runtime = OrtRuntime(RuntimeOptions(threads=threads, spin=spin))
    executable = runtime.load(tail_case.path, TAIL_SPEC)
    x = {"x": frames(1, 1)[0]}
    got, expected = executable.run(x, executable.new_state()), tail.run(x, tail.new_state())
    np.testing.assert_array_equal(got["y"], expected["y"])
