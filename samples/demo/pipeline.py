"""Stream a real clip through a Session, as a device would: no torch in this process."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from samples.demo.run import ComponentRow, DemoRun, Transcript
from samples.demo.shipped import ROOT, Scene
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.cli.conversation import converse, witnessed
from wanedge.config import FPS
from wanedge.media.files import read_media
from wanedge.media.mp4 import Mp4Writer
from wanedge.model import STREAMING_COMPONENTS, Model
from wanedge.session import Session
from wanedge.units import AgentUnit, UserUnit
from wanedge_calibration.results import Results

SEED = 0
EVALUATION = ROOT / "docs" / "figures" / "evaluation.json"

Unit = TypeVar("Unit", AgentUnit, UserUnit)
Log = Callable[[str], None]


def stream_clip(bundle: Bundle, shown: Scene, reply: Path, log: Log) -> DemoRun:
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
        chunks = witnessed(
            read_media(shown.clip), model.config, lambda seen: user_units.extend(_with_one_frame(unit) for unit in seen)
        )
        started = perf_counter()
        for unit in converse(session, chunks, "realtime"):
            writer.write(unit.frames, unit.audio)
            units.append(_with_one_frame(unit))
            memory.append((unit.index, _resident_bytes()))
            if unit.index % 25 == 0:
                log(f"unit {unit.index}: {unit.latency_ms:.0f} ms")
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


def copy_clip(shown: Scene, folder: Path) -> Path:
    """The visitor's clip beside the report, which plays it."""
    return Path(shutil.copy(shown.clip, folder / shown.clip.name))


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
    raise RuntimeError("this system does not tell the resident memory of a process")
