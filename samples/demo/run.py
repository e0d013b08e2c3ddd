"""Stream a real clip through a Session, as a device would, and keep what the report shows. No torch in this process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal, Self, TypeVar

from pydantic import JsonValue, ValidationError

from samples.demo.scene import ROOT, SEED, Scene, Transcript
from wanedge.atomic import staged_file
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.cli.conversation import converse, with_user_units
from wanedge.config import FPS
from wanedge.media.files import read_media
from wanedge.media.mp4 import Mp4Writer
from wanedge.model import STREAMING_COMPONENTS, Model
from wanedge.session import Session
from wanedge.units import AgentUnit, UserUnit
from wanedge_calibration.results import Results
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.strict import Strict

EVALUATION = ROOT / "docs" / "figures" / "evaluation.json"
QUANTIZED = "quantized"  # folder beside the report: how the 8-bit variant was validated

Unit = TypeVar("Unit", AgentUnit, UserUnit)


@dataclass(frozen=True)
class ComponentRow:
    """One exported graph. states: tensors that live from unit to unit; state_bytes: of one session."""

    name: str
    opset: int
    weight_bytes: int
    states: int
    state_bytes: int


class Linted(Strict):
    """The fp16 graphs against one target's rules."""

    target: str
    library: str
    graphs: int
    errors: int
    warnings: int


class EngineRow(Strict):
    """One engine. seconds: of its build. layers: kinds in the network, with their number."""

    target: str
    sm: str
    component: str
    engine_bytes: int
    graph_bytes: int
    seconds: float
    layers: dict[str, int]


class EnginesRun(Strict):
    """Engines of the demo's bundle: the process that builds writes them, the report reads them.

    note: what the bundle says of its weights, which decides whether these are its engines.
    library: TensorRT-RTX with its version. absent: why nothing was built here; empty where engines were.
    """

    note: str
    library: str
    linted: tuple[Linted, ...]
    engines: tuple[EngineRow, ...]
    absent: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets that have engines, in the order in which they were built."""
        return tuple(dict.fromkeys(row.target for row in self.engines))

    def write(self, path: Path) -> None:
        """Write the whole new file, or leave the whole old one."""
        with staged_file(path) as staged:
            staged.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Raises InputError when it cannot be used."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(
                f"{path} holds no engines' results: {error}", hint=f"rm -f {path}, then make demo"
            ) from error


@dataclass(frozen=True)
class DemoRun:
    """A clip streamed through a session.

    units: the agent's answers, in order. user_units: what they answer, of the same indices.
    wall_s: seconds from the first push to the last unit. memory: (unit index, resident bytes), in order.
    weights: whether the model was trained. machine: `wanedge.benchmark.machine_facts()`. world: the world text.
    evaluation: the shipped guide's figures, docs/figures/evaluation.json; None where that is not there.
    engines: what was linted and built; None where the demo did not look.
    """

    units: Sequence[AgentUnit]
    user_units: Sequence[UserUnit]
    wall_s: float
    memory: Sequence[tuple[int, int]]
    model: str
    precision: str
    runtime: str
    weights: Literal["random", "trained"]
    machine: dict[str, JsonValue]
    components: Sequence[ComponentRow]
    transcript: Transcript
    world: str = ""
    evaluation: Results | None = None
    engines: EnginesRun | None = None

    def __post_init__(self) -> None:
        if not self.units or not self.memory:
            raise InputError("the run holds no units or no memory samples", hint="stream a clip of 160 ms or more")
        if not all(unit.timing.answer_ms for unit in self.units):
            raise InputError("a unit of the run has no stage times", hint="stream it through a Session or a Streamer")
        if [u.index for u in self.units] != [u.index for u in self.user_units]:
            raise InputError(
                f"{len(self.units)} agent units do not answer the {len(self.user_units)} user units one by one",
                hint="keep every user unit that the session answered, in order",
            )


def stream_clip(bundle: Bundle, shown: Scene, reply: Path, on_progress: Callable[[str], None]) -> DemoRun:
    """Push the scene's clip at the pace of a microphone and a camera, pull the answers, write them to `reply`."""
    model = Model.load(bundle)
    units: list[AgentUnit] = []
    user_units: list[UserUnit] = []
    memory: list[tuple[int, int]] = []
    video = model.config.agent_video
    with (
        Session.open(model, world=shown.world, seed=SEED) as session,
        Mp4Writer(reply, FPS, (video.height, video.width), model.config.audio.sample_rate) as writer,
    ):
        chunks = with_user_units(
            read_media(shown.clip), model.config, lambda seen: user_units.extend(_with_one_frame(unit) for unit in seen)
        )
        started = perf_counter()
        for unit in converse(session, chunks, "realtime"):
            writer.write(unit.frames, unit.audio)
            units.append(_with_one_frame(unit))
            memory.append((unit.index, _resident_bytes()))
            if unit.index % 25 == 0:
                on_progress(f"unit {unit.index}: {unit.timing.latency_ms:.0f} ms")
        wall_s = perf_counter() - started
    return DemoRun(
        units=units,
        user_units=user_units,
        wall_s=wall_s,
        memory=memory,
        model=model.config.name,
        precision=bundle.variant(model.variant).precision,
        runtime=model.runtime,
        weights=bundle.manifest.weights,
        machine=machine_facts(),
        components=_component_rows(bundle, model),
        transcript=Transcript.read(shown.clip.with_suffix(".json")),
        world=shown.world,
        evaluation=Results.read(EVALUATION) if EVALUATION.exists() and shown.weights else None,
    )


def _with_one_frame(unit: Unit) -> Unit:
    """The report shows one of a unit's four frames; the others would only count as memory of the session."""
    return replace(unit, frames=unit.frames[:1].copy())


def _component_rows(bundle: Bundle, model: Model) -> list[ComponentRow]:
    variant = bundle.variant(model.variant)
    rows, counted = [], set[str]()
    for name in STREAMING_COMPONENTS:
        spec, files = model.graphs[name].spec, variant.graphs[name]
        # A file that two components share is counted with the first.
        weights = sum(bundle.manifest.files[path].bytes for path in files.data if path not in counted)
        counted.update(files.data)
        rows.append(ComponentRow(name, spec.opset, weights, len(spec.states), spec.state_bytes))
    return rows


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not report the resident memory of a process")
