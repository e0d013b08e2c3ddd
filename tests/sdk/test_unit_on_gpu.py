"""Units on the strict double of a GPU: the bytes of ONNX Runtime on the same fp16 graphs, and nothing left behind.

The shipped guide's figures are docs/figures/gpu.json; these are the same claims with a model that takes milliseconds.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import kept_bundle
from tests.configs import mini
from tests.gpu_double import Gpu, installed
from tests.gpu_models import Backend, DeviceFiles, device_files, host_model
from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge.session import Session
from wanedge.streaming import Streamer
from wanedge.units import AgentUnit, UserUnit
from wanedge_runtimes.errors import InputError, StateError, WanEdgeError

WORLD = "A bright lobby."
BACKENDS: tuple[Backend, ...] = ("tensorrt", "tensorrt-rtx", "onnxruntime")


@pytest.fixture(scope="module")
def bundles() -> dict[int, Bundle]:
    """Bundles by thinker_lag."""
    pytest.importorskip("torch", reason="torch is not installed: pip install 'wanedge[export]'")
    from wanedge_export.bundling import export_bundle
    from wanedge_export.model import ReferenceModel

    def export(lag: int, path: Path) -> Bundle:
        model = ReferenceModel(mini(thinker_lag=lag), seed=0)
        return export_bundle(model, path, precisions=("fp16",), overwrite=True)

    return {lag: kept_bundle(f"fp16-lag{lag}", partial(export, lag)) for lag in (0, 1)}


@pytest.fixture(scope="module")
def files(
    bundles: dict[int, Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, Backend], DeviceFiles]:
    made: dict[tuple[int, Backend], DeviceFiles] = {}

    def get(lag: int = 0, backend: Backend = "tensorrt") -> DeviceFiles:
        if (lag, backend) not in made:
            made[lag, backend] = device_files(bundles[lag], tmp_path_factory.mktemp("engines"), backend)
        return made[lag, backend]

    return get


def users(bundle: Bundle, count: int, first: int = 0) -> list[UserUnit]:
    return list(user_units(bundle.model, count, text={1: "Hello", 4: "Bye"}, first=first))


def answers(bundle: Bundle, count: int, **options: object) -> list[AgentUnit]:
    streamer = Streamer(host_model(bundle), WORLD, **options)  # type: ignore[arg-type]
    return [streamer.step(user) for user in users(bundle, count)]


def content(unit: AgentUnit) -> tuple[object, ...]:
    return unit.audio.tobytes(), unit.frames.tobytes(), unit.tokens, unit.state, unit.text


def same(found: list[AgentUnit], expected: list[AgentUnit]) -> bool:
    return list(map(content, found)) == list(map(content, expected))


@pytest.mark.parametrize("graphs", [None, False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_units_are_those_of_the_cpu_to_the_bit(
    files: Callable[..., DeviceFiles], backend: Backend, graphs: bool | None
) -> None:
    device = files(backend=backend)

    def run() -> list[AgentUnit]:
        streamer = Streamer(device.model(cuda_graphs=graphs), WORLD)
        return [streamer.step(user) for user in users(device.bundle, 12)]

    with installed(seed=1):
        assert same(run(), answers(device.bundle, 12))


def test_a_unit_is_one_copy_in_five_launches_one_copy_out_and_one_wait(files: Callable[..., DeviceFiles]) -> None:
    device = files()

    def run(gpu: Gpu) -> None:
        streamer = Streamer(device.model(), WORLD)
        for number, user in enumerate(users(device.bundle, 12)):
            with gpu.measured() as used:
                streamer.step(user)
            if number >= 4:  # both parities of swapped states are warm and captured
                counts = {kind: used[kind] for kind in ("h2d", "d2h", "syncs", "launches", "allocations")}
                assert counts == {"h2d": 1, "d2h": 1, "syncs": 1, "launches": 5, "allocations": 0}

    with installed(seed=1) as gpu:
        run(gpu)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sampled_text_and_old_bundles_decide_on_the_host(files: Callable[..., DeviceFiles], backend: Backend) -> None:
    device = files(backend=backend)

    def run(old: bool, temperature: float) -> list[AgentUnit]:
        source = device.without("text_choice", "flow_step") if old else device
        streamer = Streamer(source.model(), WORLD, temperature=temperature)
        return [streamer.step(user) for user in users(device.bundle, 6)]

    for old, temperature in ((False, 1.0), (True, 0.0), (True, 1.0)):
        with installed(seed=2):
            assert same(run(old, temperature), answers(device.bundle, 6, temperature=temperature))


@pytest.mark.parametrize("seed", range(4))
def test_overlapped_units_are_those_in_sequence_in_any_order_of_the_device(
    files: Callable[..., DeviceFiles], seed: int
) -> None:
    device = files(lag=1)

    def run(temperature: float) -> None:
        streamer = Streamer(device.model(), WORLD, temperature=temperature)
        assert streamer.overlaps
        expected = answers(device.bundle, 16, temperature=temperature)
        media = users(device.bundle, 16)
        assert same(list(streamer.stream(media[:9])), expected[:9])
        assert same([streamer.step(user) for user in media[9:12]], expected[9:12])
        saved = streamer.snapshot()
        in_sequence = Streamer(streamer.model, overlap=False)
        for each in (streamer, in_sequence):
            each.restore(*saved)
            assert same(list(each.stream(media[12:])), expected[12:])

    for temperature in (0.0, 1.0):
        with installed(seed=seed):
            run(temperature)


def test_overlap_is_refused_where_there_is_none(files: Callable[..., DeviceFiles], bundles: dict[int, Bundle]) -> None:
    with pytest.raises(InputError, match="cannot overlap"):
        Streamer(host_model(bundles[1]), WORLD, overlap=True)

    def run() -> None:
        streamer = Streamer(files(lag=1).model(), WORLD)
        media = users(bundles[1], 3)
        streamer.begin(media[0])
        with pytest.raises(StateError, match="unit 0 is begun"):
            streamer.snapshot()
        streamer.begin(media[1])
        with pytest.raises(InputError, match="unit 0 is begun"):
            streamer.begin(media[2])
        assert [streamer.finish().index, streamer.finish().index] == [0, 1]
        with pytest.raises(InputError, match="no unit"):
            streamer.finish()

    with installed(seed=0):
        run()


@pytest.mark.parametrize(("lag", "backend"), [(0, "tensorrt"), (1, "tensorrt"), (0, "onnxruntime")])
def test_sessions_in_worker_threads_share_a_model(
    files: Callable[..., DeviceFiles], lag: int, backend: Backend
) -> None:
    device = files(lag=lag, backend=backend)
    media, expected = users(device.bundle, 8), answers(device.bundle, 8)

    def run() -> None:
        model = device.model()
        sessions = [Session.open(model, world=WORLD) for _ in range(3)]
        for user in media:
            for session in sessions:
                session.push(audio=user.audio, video=user.frames, text=user.text or None)
        for session in sessions:
            session.finish()
            units: list[AgentUnit] = []
            while not session.ended:
                units += session.pull(timeout=60)
            session.close()
            assert [u.audio.tobytes() for u in units] == [u.audio.tobytes() for u in expected]

    with installed(seed=3):
        run()


def test_sessions_that_come_and_go_leave_nothing(files: Callable[..., DeviceFiles]) -> None:
    device = files()

    def run(gpu: Gpu) -> None:
        model = device.model()
        before = {kind: len(each) for kind, each in gpu.left.items()}
        for _ in range(5):
            streamer = Streamer(model, WORLD)
            for user in users(device.bundle, 3):
                streamer.step(user)
            del streamer
            assert {kind: len(each) for kind, each in gpu.left.items() if each} == before

    with installed(seed=0) as gpu:
        run(gpu)


def test_a_snapshot_moves_between_the_cpu_and_the_gpu(files: Callable[..., DeviceFiles]) -> None:
    device = files()
    expected, media = answers(device.bundle, 10), users(device.bundle, 10)
    host = Streamer(host_model(device.bundle), WORLD)
    assert same([host.step(user) for user in media[:5]], expected[:5])

    def run() -> None:
        streamer = Streamer(device.model(), "")
        streamer.restore(*host.snapshot())
        assert same([streamer.step(user) for user in media[5:8]], expected[5:8])
        host.restore(*streamer.snapshot())

    with installed(seed=0):
        run()
    assert same([host.step(user) for user in media[8:]], expected[8:])


CALLS_OF_TWO_UNITS = 16  # or a few more


def failures(seed: int) -> Iterator[tuple[int, int]]:
    generator = random.Random(seed)
    for unit in range(1, 7):
        yield unit, generator.randrange(CALLS_OF_TWO_UNITS)


@pytest.mark.parametrize(("unit", "call"), list(failures(5)))
@pytest.mark.parametrize("lag", [0, 1])
def test_a_failure_is_a_clear_error_and_the_last_snapshot_goes_on(
    files: Callable[..., DeviceFiles], lag: int, unit: int, call: int
) -> None:
    device = files(lag=lag)
    media, expected = users(device.bundle, 9), answers(device.bundle, 9)

    def run(gpu: Gpu) -> None:
        model = device.model()
        streamer, saved = Streamer(model, WORLD), None
        for user in media[:unit]:
            streamer.step(user)
        saved = streamer.snapshot()
        gpu.failures.fail_call(call, "CUDA_ERROR_OUT_OF_MEMORY")
        with pytest.raises(WanEdgeError) as failure:
            list(map(streamer.step, media[unit : unit + 2]))
        assert len(gpu.failures.injected) == 1
        assert failure.value.hint
        gpu.failures.clear()
        again = Streamer(model, "")
        again.restore(*saved)
        assert same([again.step(user) for user in media[unit:]], expected[unit:])

    with installed(seed=call) as gpu:
        run(gpu)


def test_an_earlier_state_can_be_restored_into_a_streamer_that_went_on(bundles: dict[int, Bundle]) -> None:
    """Its audio encoder's ring is not full again then, and what it hears must be hidden again."""
    streamer, media = Streamer(host_model(bundles[0]), WORLD), users(bundles[0], 8)
    streamer.step(media[0])
    saved = streamer.snapshot()
    first = [streamer.step(user) for user in media[1:]]
    streamer.restore(*saved)
    assert same([streamer.step(user) for user in media[1:]], first)
    assert np.isfinite(first[-1].audio).all()
