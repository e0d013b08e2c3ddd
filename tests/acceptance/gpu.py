"""The GPU half on the strict double, with the shipped guide: every number of docs/figures/gpu.json.

python -m tests.acceptance.gpu kiosk.wanedge --base ../before

The bundle holds fp16 graphs (`wanedge export tiny --weights ... --precision both`). No GPU is used, so no time
of a GPU is measured. --base is a checkout to compare the CPU with; its units and these take turns, each in a process.
"""

import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tests.configs import mini
from tests.gpu_double import Gpu, finish, install, installed
from tests.gpu_models import Backend, DeviceFiles, device_files, host_model
from tests.media import user_units
from tests.repository import commit
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.session import Session
from wanedge.streaming import Streamer
from wanedge.units import AgentUnit, UserUnit
from wanedge_calibration.results import Measure, Provenance, Results
from wanedge_calibration.statistics import bootstrap
from wanedge_export.bundling import export_bundle
from wanedge_export.model import ReferenceModel
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.snapshots import load_states, save_states

WORLD = "A bright lobby. The guide is friendly."
ROOT = Path(__file__).parents[2]
KINDS = ("h2d", "d2h", "syncs", "launches", "allocations")
THRESHOLDS = {"h2d": 2, "d2h": 2, "syncs": 2, "launches": 8, "allocations": 0}
EQUAL = ">= 1"


def gpu(
    bundle: Annotated[Path, typer.Argument(help="With the variants fp32 and fp16.")],
    units: Annotated[int, typer.Option(min=10, help="Units through a session.")] = 300,
    failures: Annotated[int, typer.Option(min=1)] = 200,
    base: Annotated[Path | None, typer.Option(help="A checkout whose CPU units are compared.")] = None,
    out: Annotated[Path, typer.Option()] = Path("docs/figures/gpu.json"),
) -> None:
    """Measure everything and write it; what was measured is written after each step."""
    opened, measures = Bundle.open(bundle), dict[str, Measure]()
    command = shlex.join(["python", "-m", "tests.acceptance.gpu", *sys.argv[1:]])
    # Before the first double, beside which no library is what the machine has.
    machine = machine_facts() | {"load": round(os.getloadavg()[2], 1), "gpu": "none: the strict double"}
    made = Provenance.now(command, commit(), opened.digest)
    with tempfile.TemporaryDirectory() as folder:
        for step in _steps(opened, Path(folder), units, failures, base):
            measures |= step
            for name, measure in step.items():
                typer.echo(f"{name}: {measure.value:g} {measure.unit} ({measure.threshold or 'no threshold'})")
            Results(machine=machine, made=made, measures=measures).write(out)


def _steps(bundle: Bundle, folder: Path, units: int, failures: int, base: Path | None) -> Iterator[dict[str, Measure]]:
    media = list(user_units(bundle.model, units, text={1: "Hello", 40: "Where is the lift?"}))
    reference = Streamer(host_model(bundle), WORLD)
    expected = [_content(reference.step(user)) for user in media]
    backends: tuple[Backend, ...] = ("tensorrt", "tensorrt-rtx", "onnxruntime")
    devices = {backend: device_files(bundle, _made(folder / backend), backend) for backend in backends}
    for backend in backends:
        with installed(seed=2) as double:
            yield _counted(double, devices[backend], media[:24])
    answered = _through_session(host_model(bundle), media)  # a session cuts and times media, the same for every model
    for backend, device in devices.items():
        some = media if backend == "tensorrt" else media[:60]
        for graphs in (True, False):
            with installed(seed=1):
                equal = _on_device(device, some, answered, graphs)
            yield {f"{backend}_{'graphs' if graphs else 'no_graphs'}_units_equal": _share(equal)}
    yield {"resumed_in_a_new_process_equal": _share(_resumed(devices["tensorrt"], media[:24], expected, folder))}
    with installed(seed=3):
        yield {"three_sessions_interleaved_equal": _share(_interleaved(devices["tensorrt"], media[:30], expected))}
    with installed(seed=4) as double:
        left = _come_and_go(double, devices["tensorrt"], media[:2], 100)
    yield {"left_by_100_sessions": Measure(value=float(left), unit="objects", n=100, threshold="<= 0")}
    small = {lag: _small(folder, lag) for lag in (0, 1)}
    yield {"overlapped_units_equal": _share(_overlapped(small[1], units=100, orders=20))}
    yield _injected(small, failures)
    yield _cpu(bundle, base)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _content(unit: AgentUnit) -> tuple[object, ...]:
    return unit.audio.tobytes(), unit.frames.tobytes(), unit.tokens, unit.state


def _share(equal: list[bool]) -> Measure:
    return Measure(value=sum(equal) / len(equal), unit="share", n=len(equal), threshold=EQUAL)


def _on_device(device: DeviceFiles, media: list[UserUnit], expected: list[Any], graphs: bool) -> list[bool]:
    options = graphs if device.backend == "onnxruntime" else (None if graphs else False)
    found = _through_session(device.model(cuda_graphs=options), media)
    return [unit == wanted for unit, wanted in zip(found, expected[: len(media)], strict=True)]


def _through_session(model: Model, media: list[UserUnit]) -> list[Any]:
    found: list[Any] = []
    with Session.open(model, world=WORLD, deadline_ms=float("inf")) as session:
        waiting = list(media)
        while not session.ended:
            while waiting and session.wait_for_room(0.0):
                user = waiting.pop(0)
                session.push(audio=user.audio, video=user.frames)
            if not waiting:
                with suppress(WanEdgeError):
                    session.finish()
            found += [_content(unit) for unit in session.pull(timeout=60)]
    return found


def _counted(double: Gpu, device: DeviceFiles, media: list[UserUnit]) -> dict[str, Measure]:
    def run() -> dict[str, list[int]]:
        streamer, counts = Streamer(device.model(), WORLD), dict[str, list[int]]()
        for number, user in enumerate(media):
            with double.measured() as used:
                streamer.step(user)
            if number >= 4:
                for kind in KINDS:
                    counts.setdefault(kind, []).append(used[kind])
        return counts

    ours = device.backend != "onnxruntime"  # its runs are launches, and no sequence of them is captured
    return {
        f"{device.backend}_{kind}_per_unit": Measure(
            value=float(max(counts)),
            unit="calls",
            n=len(counts),
            threshold=f"<= {THRESHOLDS[kind]}" if ours or kind != "launches" else None,
        )
        for kind, counts in run().items()
    }


def _resumed(device: DeviceFiles, media: list[UserUnit], expected: list[Any], folder: Path) -> list[bool]:
    half, state = len(media) // 2, folder / "state.safetensors"

    def run() -> None:
        streamer = Streamer(device.model(), WORLD)
        for user in media[:half]:
            streamer.step(user)
        save_states(state, *streamer.snapshot())

    with installed(seed=5):
        run()
    code = "from tests.acceptance.gpu import resume; import sys; resume(*sys.argv[1:])"
    answer = folder / "answer.npz"
    files = json.dumps({name: str(path) for name, (path, _) in device.files.items()})
    subprocess.run(
        [sys.executable, "-c", code, str(device.bundle.origin), files, str(state), str(answer), str(len(media))],
        cwd=ROOT,
        check=True,
    )
    found = np.load(answer)
    return [
        (found[f"audio{n}"].tobytes(), found[f"frames{n}"].tobytes()) == expected[n][:2]
        for n in range(half, len(media))
    ]


def resume(bundle: str, files: str, state: str, answer: str, units: str) -> None:
    """Go on in a new process: the rest of a saved stream's units into an npz file."""
    double = install(seed=6)
    _resume(Bundle.open(Path(bundle)), json.loads(files), Path(state), Path(answer), int(units))
    finish(double)


def _resume(bundle: Bundle, files: dict[str, str], state: Path, answer: Path, units: int) -> None:
    variant = bundle.variant("fp16")
    placed = {name: (Path(path), bundle.graph(name, variant)[1]) for name, path in files.items()}
    streamer = Streamer(DeviceFiles(bundle, placed, "tensorrt").model(), "")
    streamer.restore(*load_states(state))
    media = list(user_units(bundle.model, units, text={1: "Hello", 40: "Where is the lift?"}))
    arrays: dict[str, Any] = {}
    for user in media[streamer.next_unit :]:
        unit = streamer.step(user)
        arrays |= {f"audio{user.index}": unit.audio, f"frames{user.index}": unit.frames}
    np.savez(answer, **arrays)


def _interleaved(device: DeviceFiles, media: list[UserUnit], expected: list[Any]) -> list[bool]:
    model = device.model()
    streamers = [Streamer(model, WORLD) for _ in range(3)]
    return [_content(streamer.step(user)) == expected[user.index] for user in media for streamer in streamers]


def _come_and_go(double: Gpu, device: DeviceFiles, media: list[UserUnit], sessions: int) -> int:
    """Count how many objects more are alive on the device after all of them than before the first."""
    model = device.model()

    def alive() -> int:
        return sum(map(len, double.left.values()))

    before = alive()
    for _ in range(sessions):
        with Session.open(model, world=WORLD) as session:
            for user in media:
                session.push(audio=user.audio, video=user.frames)
            session.pull(timeout=60)
        del session
    return alive() - before


def _small(folder: Path, lag: int) -> DeviceFiles:
    bundle = export_bundle(ReferenceModel(mini(thinker_lag=lag), seed=0), folder / f"mini{lag}", precisions=("fp16",))
    return device_files(bundle, _made(folder / f"engines{lag}"))


def _overlapped(device: DeviceFiles, units: int, orders: int) -> list[bool]:
    media = list(user_units(device.bundle.model, units))
    reference = Streamer(host_model(device.bundle), WORLD)
    expected = [_content(reference.step(user)) for user in media]

    def run(overlap: bool) -> list[bool]:
        found = Streamer(device.model(), WORLD, overlap=overlap).stream(media)
        return [_content(unit) == wanted for unit, wanted in zip(found, expected, strict=True)]

    equal: list[bool] = []
    for seed in range(orders):
        for overlap in (True, False):
            with installed(seed=seed):
                equal += run(overlap)
    return equal


def _injected(devices: dict[int, DeviceFiles], count: int) -> dict[str, Measure]:
    """Failures of calls drawn from all that a few units make, each followed by a stream from the last snapshot."""
    draw, clear, equal, kinds = random.Random(7), 0, list[bool](), set[str]()
    runs = {lag: _failing(device) for lag, device in devices.items()}
    happened = 0
    while happened < count:
        with installed(seed=happened) as double:
            injected, named, went_on = runs[draw.choice((0, 1))](double, draw.randrange(400))
        if injected:
            happened += 1
            kinds.add(injected)
            clear += named
            equal.append(went_on)
    return {
        "failures_that_are_clear_errors": Measure(value=clear / count, unit="share", n=count, threshold=EQUAL),
        "restored_after_a_failure_equal": _share(equal),
        "kinds_of_calls_failed": Measure(value=float(len(kinds)), unit="kinds", n=count),
    }


def _failing(device: DeviceFiles) -> Callable[[Gpu, int], tuple[str | None, bool, bool]]:
    media = list(user_units(device.bundle.model, 8))
    reference = Streamer(host_model(device.bundle), WORLD)
    expected = [_content(reference.step(user)) for user in media]

    def run(double: Gpu, call: int) -> tuple[str | None, bool, bool]:
        model = device.model()
        streamer = Streamer(model, WORLD)
        for user in media[:3]:
            streamer.step(user)
        saved, before = streamer.snapshot(), len(double.failures.injected)
        double.failures.fail_call(call, "CUDA_ERROR_OUT_OF_MEMORY")
        named = True
        try:
            Streamer(model, WORLD)  # so that allocations and their like are among the calls
            for user in media[3:6]:
                streamer.step(user)
        except WanEdgeError as error:
            named = bool(error.what and error.hint)
        except Exception:
            named = False
        double.failures.clear()
        injected = double.failures.injected[before:]
        again = Streamer(model, "")
        again.restore(*saved)
        went_on = [_content(again.step(user)) for user in media[3:]] == expected[3:]
        return (injected[0] if injected else None), named, went_on

    return run


# the CPU

_WARM_UNITS = 5

_WORKER = """
import hashlib, sys
from pathlib import Path
from time import perf_counter_ns
import numpy as np
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.units import UserUnit
model = Model.load(Bundle.open(Path(sys.argv[1])), "onnxruntime", "fp32")
streamer, config = Streamer(model, "A bright lobby."), model.config
for line in sys.stdin:
    index = int(line)
    g, video = np.random.default_rng([0, index]), config.user_video
    user = UserUnit(
        index=index,
        audio=np.float32(0.1) * g.standard_normal(config.audio.samples, dtype=np.float32),
        frames=g.integers(0, 256, (4, video.height, video.width, 3), dtype=np.uint8),
    )
    started = perf_counter_ns()
    unit = streamer.step(user)
    took = perf_counter_ns() - started
    digest = hashlib.sha256(unit.audio.tobytes() + unit.frames.tobytes() + repr(unit.tokens).encode()).hexdigest()
    graph_ms = getattr(unit, "graph_ms", None) or unit.timing.graph_ms  # as older checkouts have it
    latency_ms = getattr(unit, "latency_ms", None) or unit.timing.latency_ms
    print(took, graph_ms, latency_ms, digest, flush=True)
"""


def _cpu(bundle: Bundle, base: Path | None, rounds: int = 20, units: int = 30) -> dict[str, Measure]:
    """What a unit is outside its graphs, and a unit here over one of before: unit by unit in turns.

    Where a process's memory lies changes its speed by some per cent, so each round is two new processes, and the ratio
    is the median of the rounds'.
    """
    checkouts = {"now": ROOT} | ({} if base is None else {"before": base.resolve()})
    overhead: list[float] = []
    ratios: list[float] = []
    equal: list[bool] = []
    for number in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in checkouts}
        with _workers(checkouts, str(bundle.origin)) as workers:
            for index in range(units):
                digests = set()
                for name in sorted(workers, reverse=bool((index + number) % 2)):
                    worker = workers[name]
                    worker.stdin.write(f"{index}\n")
                    worker.stdin.flush()
                    took, graph_ms, latency_ms, digest = worker.stdout.readline().split()
                    digests.add(digest)
                    if index >= _WARM_UNITS:
                        times[name].append(float(took))
                        if name == "now":
                            overhead.append(1 - float(graph_ms) / float(latency_ms))
                equal.append(len(digests) == 1)
        if base is not None:
            ratios.append(float(np.median(times["now"]) / np.median(times["before"])))
    count = len(overhead)
    measures = {
        "cpu_overhead_p95": Measure(
            value=float(np.percentile(overhead, 95)), unit="ratio", n=count, threshold="<= 0.03"
        ),
        "cpu_overhead_p50": Measure(value=float(np.median(overhead)), unit="ratio", n=count),
    }
    if base is not None:
        measures |= {
            "cpu_unit_over_before": bootstrap(np.median, ratios).measure("ratio", "<= 1.00"),
            "cpu_units_equal_to_before": _share(equal),
        }
    return measures


@contextmanager
def _workers(checkouts: dict[str, Path], bundle: str) -> Iterator[dict[str, Any]]:
    workers = {}
    for name, root in checkouts.items():
        path = os.pathsep.join(str(root / part) for part in ("runtimes", "sdk"))
        workers[name] = subprocess.Popen(
            [sys.executable, "-c", _WORKER, bundle],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.communicate()


if __name__ == "__main__":
    typer.run(gpu)
