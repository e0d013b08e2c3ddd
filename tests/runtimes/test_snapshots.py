"""Saved states: what comes back, and every damage is noticed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from tests.runtimes.small_graphs import CHANNELS, FRAMES, Case
from wanedge_runtimes.errors import InputError, StateError
from wanedge_runtimes.ort import OrtExecutable
from wanedge_runtimes.snapshots import load_states, save_states

STATES: dict[str, dict[str, np.ndarray]] = {
    "backbone": {"layers.0.key": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4), "bits": np.ones(3, np.uint16)},
    "audio_decoder": {"tail": np.full((1, 2), np.nan, np.float32)},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "session.state"
    save_states(path, STATES, {"model": "tiny", "unit": "12"})
    return path


def test_states_and_metadata_come_back_as_they_were(saved: Path) -> None:
    loaded = load_states(saved)
    assert loaded.metadata == {"model": "tiny", "unit": "12"}
    assert {c: set(s) for c, s in loaded.states.items()} == {c: set(s) for c, s in STATES.items()}
    for component, snapshot in STATES.items():
        for name, values in snapshot.items():
            found = loaded.states[component][name]
            assert found.dtype == values.dtype
            np.testing.assert_array_equal(found, values)


@given(
    values=hnp.arrays(
        st.sampled_from([np.float32, np.float16, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=4, max_side=4),
    )
)
def test_any_tensor_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.getbasetemp() / "any.state"
    save_states(path, {"c": {"s": values}}, {})
    found = load_states(path).states["c"]["s"]
    assert (found.dtype, found.shape, found.tobytes()) == (values.dtype, values.shape, values.tobytes())


def test_every_truncation_is_noticed(saved: Path) -> None:
    content = saved.read_bytes()
    for length in range(len(content)):
        saved.write_bytes(content[:length])
        with pytest.raises(StateError):
            load_states(saved)


def test_every_flipped_byte_is_noticed(saved: Path) -> None:
    content = saved.read_bytes()
    for at in range(len(content)):
        # 0x01 turns one character of the header's names and numbers into another valid one.
        saved.write_bytes(content[:at] + bytes([content[at] ^ 0x01]) + content[at + 1 :])
        with pytest.raises(StateError):
            load_states(saved)


def test_a_missing_file_and_a_foreign_file_are_state_errors(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no saved state"):
        load_states(tmp_path / "nothing")
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "weights.safetensors")
    with pytest.raises(StateError, match=r"not a saved state of version 1 \(found None\)"):
        load_states(tmp_path / "weights.safetensors")


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StateError, match="No space left"):
        save_states(saved, {"c": {"s": np.zeros(5)}}, {})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_component_name_that_would_blur_into_the_state_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains '/'"):
        save_states(tmp_path / "x", {"a/b": {}}, {})


_CONTINUE = """
import sys
import numpy as np
from pathlib import Path
from tests.runtimes.small_graphs import TAIL_SPEC
from wanedge_runtimes.ort import OrtRuntime
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.snapshots import load_states

graph, saved, units, answers = map(Path, sys.argv[1:])
executable = OrtRuntime(RuntimeOptions(threads=1)).load(graph, TAIL_SPEC)
state = executable.new_state()
state.restore(load_states(saved).states["tail"])
np.save(answers, [executable.run({"x": x}, state)["y"] for x in np.load(units)])
"""


def test_a_new_process_continues_bit_exactly(tail: OrtExecutable, tail_case: Case, tmp_path: Path) -> None:
    units = np.random.default_rng(3).standard_normal((9, 1, CHANNELS, FRAMES)).astype(np.float32)
    state = tail.new_state()
    for x in units[:3]:
        tail.run({"x": x}, state)
    save_states(tmp_path / "state", {"tail": state.snapshot()}, {})
    went_on = [tail.run({"x": x}, state)["y"] for x in units[3:]]
    np.save(tmp_path / "units.npy", units[3:])
    files = [tail_case.path, tmp_path / "state", tmp_path / "units.npy", tmp_path / "answers.npy"]
    subprocess.run([sys.executable, "-c", _CONTINUE, *map(str, files)], cwd=Path(__file__).parents[2], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "answers.npy"), went_on)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "U128", "nonsense"])
def test_an_element_type_that_numpy_lacks_is_a_state_error(saved: Path, dtype: str) -> None:
    content = saved.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = next(key for key in header if key != "__metadata__")
    header[name]["dtype"] = dtype
    encoded = json.dumps(header).encode()
    saved.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])
    with pytest.raises(StateError):
        load_states(saved)
