"""The synchronous core on a real bundle: deterministic, causal, resumable, and equal on every runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.ring import backbone_rings
from wanedge.streaming import Streamer
from wanedge.units import AgentUnit, UserUnit

if TYPE_CHECKING:
    from wanedge_export.model import ReferenceModel
from wanedge_runtimes.errors import ExecutionError, InputError, StateError
from wanedge_runtimes.runtime import Call, Executable
from wanedge_runtimes.snapshots import load_states, save_states

WORLD = "A bright lobby."


@pytest.fixture(scope="module")
def model(mini_bundle: Bundle) -> Model:
    return Model.load(mini_bundle)


def run(streamer: Streamer, units: int, text: dict[int, str] | None = None) -> list[AgentUnit]:
    return [streamer.step(user) for user in user_units(streamer.config, units, text=text, first=streamer.next_unit)]


def same(a: AgentUnit, b: AgentUnit) -> bool:
    """Everything but wall times, to the bit."""
    return (a.index, a.text, a.tokens, a.state) == (b.index, b.text, b.tokens, b.state) and (
        a.audio.tobytes() == b.audio.tobytes() and a.frames.tobytes() == b.frames.tobytes()
    )


def relative_error(a: list[AgentUnit], b: list[AgentUnit]) -> float:
    """Largest difference of audio over its largest value."""
    x, y = (np.concatenate([u.audio for u in units]) for units in (a, b))
    return float(np.abs(x - y).max() / np.abs(y).max())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_media(model: Model) -> None:
    first, second = (run(Streamer(model, WORLD, seed=1), 8) for _ in range(2))
    other = run(Streamer(model, WORLD, seed=2), 8)
    assert all(map(same, first, second))
    assert not any(a.audio.tobytes() == b.audio.tobytes() for a, b in zip(first, other, strict=True))


def test_sampled_text_is_reproducible_and_differs_from_greedy(model: Model) -> None:
    warm = [run(Streamer(model, WORLD, temperature=1.0), 8) for _ in range(2)]
    assert all(map(same, *warm))
    assert [u.tokens for u in warm[0]] != [u.tokens for u in run(Streamer(model, WORLD), 8)]


def test_thinker_and_performer_with_a_cache_each_give_the_same_bytes(model: Model) -> None:
    units = 2 * max(ring.units for ring in backbone_rings(model.config).values()) + 1
    shared = run(Streamer(model, WORLD), units, text={1: "Hello"})
    apart = run(Streamer(model, WORLD, own_caches=True), units, text={1: "Hello"})
    assert all(map(same, shared, apart))


def shout(user: UserUnit) -> UserUnit:
    return replace(user, audio=user.audio + np.float32(0.1))


def invert(user: UserUnit) -> UserUnit:
    return replace(user, frames=255 - user.frames)


def type_in(user: UserUnit) -> UserUnit:
    return replace(user, text="Hello")


@pytest.mark.slow
@settings(max_examples=12)
@given(changed=st.integers(0, 11), change=st.sampled_from([shout, invert, type_in]))
def test_a_changed_unit_changes_nothing_before_it_and_everything_that_can_see_it(
    model: Model, changed: int, change: Callable[[UserUnit], UserUnit]
) -> None:
    users = list(user_units(model.config, 12))
    plain, altered = Streamer(model, WORLD), Streamer(model, WORLD)
    for user in users:
        a = plain.step(user)
        b = altered.step(change(user) if user.index == changed else user)
        if user.index < changed:
            assert same(a, b)
        else:
            assert a.audio.tobytes() != b.audio.tobytes()


@pytest.mark.slow
def test_torch_and_onnx_runtime_agree_for_300_units_and_the_error_does_not_grow(
    model: Model, mini_model: ReferenceModel
) -> None:
    """Each feeds its own state back. float32 sums differ in order, so about 1e-6; growth would show as a slope."""
    from wanedge_export.torch_runtime import torch_model

    reference = Streamer(torch_model(mini_model, model.tokenizer), WORLD)
    streamer = Streamer(model, WORLD)
    wraps = min(300 // ring.units for ring in backbone_rings(model.config).values())
    assert wraps >= 2
    ours, theirs = run(streamer, 300), run(reference, 300)
    assert [(u.state, u.tokens) for u in ours] == [(u.state, u.tokens) for u in theirs]
    early, late = relative_error(ours[:30], theirs[:30]), relative_error(ours[-30:], theirs[-30:])
    assert late < 1e-5
    assert late < 10 * early


def test_the_decomposed_profile_agrees_with_the_portable_one(mini_bundle: Bundle, model: Model) -> None:
    decomposed = Model.load(mini_bundle, variant="fp32-decomposed")
    assert decomposed.graphs["backbone"].spec.opset <= 20
    ours, theirs = run(Streamer(model, WORLD), 40), run(Streamer(decomposed, WORLD), 40)
    assert [(u.state, u.tokens) for u in ours] == [(u.state, u.tokens) for u in theirs]
    assert relative_error(ours, theirs) < 1e-5


RESUME = """
import sys
import numpy as np
from pathlib import Path
from tests.media import user_units
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge_runtimes.snapshots import load_states

streamer = Streamer(Model.load(sys.argv[1]), "another world")
streamer.restore(*load_states(Path(sys.argv[2])))
units = [streamer.step(u) for u in user_units(streamer.config, 9, first=streamer.next_unit)]
arrays = {name: [getattr(u, name) for u in units] for name in ("audio", "frames", "tokens")}
np.savez(sys.argv[3], **arrays)
"""


def test_a_saved_state_continues_bit_exactly_in_a_new_process(
    mini_bundle: Bundle, model: Model, tmp_path: Path
) -> None:
    streamer = Streamer(model, WORLD, seed=7)
    run(streamer, 8, text={7: "Where is the lift, please? I am looking for the cafe."})
    save_states(tmp_path / "state", *streamer.snapshot())
    expected = run(streamer, 9)

    arguments = [str(mini_bundle.root), str(tmp_path / "state"), str(tmp_path / "resumed.npz")]
    subprocess.run([sys.executable, "-c", RESUME, *arguments], check=True, cwd=Path(__file__).parents[2])
    resumed = np.load(tmp_path / "resumed.npz")
    assert resumed["audio"].tobytes() == np.array([u.audio for u in expected]).tobytes()
    assert resumed["frames"].tobytes() == np.array([u.frames for u in expected]).tobytes()
    assert resumed["tokens"].tolist() == [list(u.tokens) for u in expected]


def test_a_state_of_another_model_or_shape_is_refused(model: Model, tmp_path: Path) -> None:
    streamer = Streamer(model, WORLD)
    tensors, metadata = streamer.snapshot()
    with pytest.raises(StateError, match="of model 'maxi'"):
        streamer.restore(tensors, {"streamer": metadata["streamer"].replace('"mini"', '"maxi"')})
    with pytest.raises(StateError, match="not written by a streamer"):
        streamer.restore(tensors, {})
    with pytest.raises(StateError, match="own_caches"):
        Streamer(model, WORLD, own_caches=True).restore(tensors, metadata)
    (tmp_path / "state").write_bytes(b"not a state")
    with pytest.raises(StateError):
        load_states(tmp_path / "state")


def test_the_world_text_changes_what_is_generated(model: Model) -> None:
    assert not same(run(Streamer(model, WORLD), 1)[0], run(Streamer(model, "A dark hall."), 1)[0])


def test_a_world_text_longer_than_the_prefill_says_by_how_much(model: Model) -> None:
    with pytest.raises(InputError, match=r"has \d+ tokens and the model's prefill holds 12"):
        Streamer(model, "word " * 50)


def unit_with(model: Model, **changes: Any) -> UserUnit:
    return replace(next(iter(user_units(model.config, 1))), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": np.zeros(7, np.float32)}, r"audio of unit 0 is float32 \(7,\)"),
        ({"audio": np.zeros(1280, np.int16)}, "audio of unit 0 is int16"),
        ({"audio": np.full(1280, np.nan, np.float32)}, "NaN"),
        ({"frames": np.zeros((4, 8, 8, 3), np.uint8)}, r"frames of unit 0 is uint8 \(4, 8, 8, 3\)"),
        ({"index": 5}, "unit 5 was given, unit 0 is next"),
    ],
)
def test_a_bad_unit_is_refused_and_the_stream_goes_on(model: Model, changes: dict[str, object], message: str) -> None:
    streamer, untouched = Streamer(model, WORLD), Streamer(model, WORLD)
    with pytest.raises(InputError, match=message):
        streamer.step(unit_with(model, **changes))
    assert all(map(same, run(streamer, 3), run(untouched, 3)))


def test_an_agent_unit_says_when_it_is_and_where_its_time_went(model: Model) -> None:
    unit = run(Streamer(model, WORLD), 3)[2]
    assert (unit.index, unit.start_ms, unit.end_ms) == (2, 320, 480)
    assert set(unit.timing.stages_ms) == {"commit", "encode", "thinker", "performer", "decode"}
    assert 0 < unit.timing.graph_ms <= unit.timing.latency_ms
    assert unit.state in model.config.text.states
    assert np.abs(unit.audio).max() <= 1.0


def test_an_early_snapshot_restored_into_an_old_streamer_goes_on_with_the_same_bytes(model: Model) -> None:
    """What a streamer derived from later units (which slots are visible) must not outlive the restore."""
    streamer = Streamer(model, WORLD)
    run(streamer, 2)
    early = streamer.snapshot()
    expected = run(streamer, 4)
    run(streamer, 60)  # every ring has wrapped
    streamer.restore(*early)
    assert all(map(same, run(streamer, 4), expected))


@settings(max_examples=15, deadline=None)
@given(
    own_caches=st.booleans(),
    orders=st.lists(
        st.one_of(st.integers(1, 9), st.sampled_from(["save", "restore", "reset"])), min_size=3, max_size=12
    ),
)
def test_units_are_the_same_whatever_was_prepared_for_others(
    model: Model, expected: list[AgentUnit], own_caches: bool, orders: list[int | str]
) -> None:
    """A streamer prepares the next unit early; a restore or a reset then makes another one the next."""
    streamer = Streamer(model, WORLD, own_caches=own_caches)
    saved = streamer.snapshot()
    for order in orders:
        if order == "save":
            saved = streamer.snapshot()
        elif order == "restore":
            streamer.restore(*saved)
        elif order == "reset":
            streamer.reset(WORLD)
        else:
            first = streamer.next_unit
            units = run(streamer, min(int(order), len(expected) - first))
            assert all(map(same, units, expected[first:]))


@pytest.fixture(scope="module")
def expected(model: Model) -> list[AgentUnit]:
    """Answers of a streamer that takes one unit after the other."""
    return run(Streamer(model, WORLD), 80)


def test_an_interruption_survives_a_snapshot(model: Model) -> None:
    streamer = Streamer(model, WORLD)
    run(streamer, 3)
    streamer.interrupt()
    saved = streamer.snapshot()
    expected = run(streamer, 3)
    other = Streamer(model, WORLD)
    other.restore(*saved)
    assert all(map(same, run(other, 3), expected))
    assert expected[0].state == "<stop>"


@pytest.mark.parametrize(
    "change",
    [
        {"next_unit": 1.5},
        {"next_unit": -1},
        {"typed": "abc"},
        {"typed": [10**9]},
        {"words": [-1]},
        {"prefill_length": 10**9},
        {"prefill_length": 0},
        {"seed": 2**130},
        {"seed": "7"},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"interrupted": 1},
        {"unheard_of": 1},
        {"version": 2},
        {"model": "another"},
        {"next_unit": None},
    ],
    ids=str,
)
def test_saved_metadata_is_validated(model: Model, change: dict[str, object]) -> None:
    streamer = Streamer(model, WORLD)
    tensors, metadata = streamer.snapshot()
    about = json.loads(metadata["streamer"])
    with pytest.raises(StateError) as caught:
        streamer.restore(tensors, {"streamer": json.dumps({**about, **change})})
    assert caught.value.hint
    for key in about.keys() - {"interrupted"}:
        with pytest.raises(StateError):
            streamer.restore(tensors, {"streamer": json.dumps({k: v for k, v in about.items() if k != key})})
    for content in ("", "[]", "7", "[" * 100_000, "{", "null"):
        with pytest.raises(StateError):
            streamer.restore(tensors, {"streamer": content})
    streamer.restore(tensors, metadata)


@pytest.mark.parametrize("wrong", [{"seed": 2**128}, {"seed": -1}, {"seed": 1.0}, {"temperature": -0.1}], ids=str)
def test_a_seed_or_a_temperature_that_cannot_be_is_an_input_error(model: Model, wrong: dict[str, float]) -> None:
    with pytest.raises(InputError) as caught:
        Streamer(model, WORLD, **wrong)  # type: ignore[arg-type]
    assert caught.value.hint


@pytest.mark.parametrize(
    ("component", "name"),
    [("video_decoder", None), ("audio_decoder", None), ("backbone", "0.key"), ("backbone", "1.value")],
    ids=str,
)
def test_a_nan_in_a_state_is_never_delivered_as_an_answer(model: Model, component: str, name: str | None) -> None:
    streamer = Streamer(model, WORLD)
    run(streamer, 3)
    tensors, about = streamer.snapshot()
    name = name or next(iter(tensors[component]))
    tensors[component][name].reshape(-1)[:] = np.nan
    streamer.restore(tensors, about)
    with pytest.raises(ExecutionError, match="NaN or infinity") as caught:
        run(streamer, 3)
    assert caught.value.hint


@pytest.mark.parametrize("graph", ["text_head", "flow_out"])
def test_a_nan_from_a_graph_names_it_and_its_unit_is_not_answered(
    model: Model, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """argmax would choose the NaN, and the decoders turn NaN into black pictures."""
    prepare = type(model.graphs[graph]).prepare

    def poisoned(self: Executable, *args: Any, **named: Any) -> Call:
        call = prepare(self, *args, **named)
        if self is model.graphs[graph]:
            run_graph = call.run

            def run_and_poison() -> None:
                run_graph()
                for output in call.outputs.values():
                    output.reshape(-1)[-1] = np.nan

            monkeypatch.setattr(call, "run", run_and_poison)
        return call

    monkeypatch.setattr(type(model.graphs[graph]), "prepare", poisoned)
    with pytest.raises(ExecutionError, match=f"{graph} gave NaN"):
        run(Streamer(model, WORLD), 2)
