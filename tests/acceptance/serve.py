"""`wanedge serve` in a real browser and under attack: every number of docs/figures/serve.json.

python -m tests.acceptance.serve kiosk.wanedge -o docs/figures/serve.json

Headless Chromium with a camera and a microphone that play the demo's clip, on loopback and on this machine beside the
server. What cannot be measured is missing; what misses its threshold stays in the file.
"""

import asyncio
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from unittest.mock import patch

import numpy as np
import psutil
import typer
from PIL import Image

from tests.attacks import Attack, is_unharmed, send_messages, send_raw
from tests.browser import Page, browsing
from tests.repository import ROOT, commit
from tests.serving import CuttingProxy, client_of, serving
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.commands import report_errors, stderr
from wanedge.media import AudioChunk
from wanedge.media.files import read_media
from wanedge.model import Model
from wanedge.serve import Limits, LiveServer
from wanedge.serve.connection import Connection
from wanedge.serve.events import Pcm16, UnitMessage
from wanedge.units import AgentUnit
from wanedge_calibration.results import Measure, Provenance, Results, unmeasured
from wanedge_calibration.statistics import percentile

CLIP: Final = ROOT / "samples" / "media" / "kiosk-visitor.mp4"
WORLD: Final = "The guide's name is Nina. Open from eight to six."
KIOSK: Final = ("--autoplay-policy=no-user-gesture-required",)
LOUD: Final = 0.02  # of full scale: speech, and not the noise of a codec
BETWEEN_S: Final = 0.45  # silence that ends a question
Measures = dict[str, Measure]

# Hears what enters and leaves the page's audio graph, in blocks of 8 ms on its own clock, and looks at the picture's
# brightness at every repaint. It needs a worklet of its own, so the page's policy is switched off for it.
METER: Final = """
globalThis.meter = { blocks: [], looks: [], pictures: [], units: [] };
const source = `registerProcessor("meter", class extends AudioWorkletProcessor {
  process(inputs) {
    const peak = (input) => (input[0] ? input[0].reduce((a, b) => Math.max(a, Math.abs(b)), 0) : 0);
    this.port.postMessage([currentFrame / sampleRate * 1000, peak(inputs[0]), peak(inputs[1])]);
    return true;
  }
})`;
const connect = AudioNode.prototype.connect;
let made = null;
AudioNode.prototype.connect = function (target, ...rest) {
  const result = connect.call(this, target, ...rest);
  const context = this.context;
  made ??= context.audioWorklet
    .addModule(URL.createObjectURL(new Blob([source], { type: "text/javascript" })))
    .then(() => {
      const node = new AudioWorkletNode(context, "meter", { numberOfInputs: 2, numberOfOutputs: 1 });
      node.port.onmessage = (message) => meter.blocks.push(message.data);
      connect.call(node, new GainNode(context, { gain: 0 })).connect(context.destination);
      meter.context = context;
      return node;
    });
  if (this instanceof MediaStreamAudioSourceNode) made.then((node) => connect.call(this, node, 0, 0));
  const voice = target === context.destination && this instanceof AudioWorkletNode;
  if (voice) made.then((node) => connect.call(this, node, 0, 1));
  return result;
};
let last = "";
const look = () => {
  requestAnimationFrame(look);
  const canvas = document.getElementById("picture");
  if (!canvas || !globalThis.wanedge || !meter.context) return;
  const { latency, pictures } = wanedge.status();
  const key = JSON.stringify([latency.unitMs, pictures.pictures]);
  if (key === last) return;
  last = key;
  const [red] = canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data;
  meter.looks.push([meter.context.currentTime * 1000, red]);
  meter.pictures.push([pictures.madeToPixelMs, pictures.decodedMs, pictures.voiceToLipsMs]);
  if (latency.unitMs !== meter.units.at(-1)?.unitMs) meter.units.push(latency);
};
requestAnimationFrame(look);
"""
TRACKS: Final = """
globalThis.tracks = [];
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  const stream = await open(wanted);
  globalThis.tracks.push(...stream.getTracks());
  return stream;
};
globalThis.unplug = (kind) => {
  for (const track of globalThis.tracks.filter((each) => each.kind === kind && each.readyState === "live")) {
    track.stop();
    track.dispatchEvent(new Event("ended"));
  }
};
"""


@dataclass(frozen=True)
class Subject:
    """What is served."""

    bundle: Path
    variant: str | None

    def load(self) -> Model:
        return Model.load(self.bundle, variant=self.variant)

    @property
    def arguments(self) -> list[str]:
        return [str(self.bundle), *(["--variant", self.variant] if self.variant else [])]


# media


def write_devices(folder: Path, rounds: int) -> tuple[Path, Path]:
    """The clip as a WAV for the microphone, `rounds` times, and as raw pictures for the camera."""
    chunks = list(read_media(CLIP))
    sound = [chunk for chunk in chunks if isinstance(chunk, AudioChunk)]
    pcm = np.concatenate([chunk.pcm for chunk in sound]).astype(np.float64).mean(axis=1)
    pcm *= 1.0 if sound[0].pcm.dtype == np.int16 else 32_767.0
    with wave.open(str(folder / "microphone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound[0].sample_rate)
        file.writeframes(np.tile(np.clip(pcm, -32_768, 32_767).astype("<i2"), rounds).tobytes())
    frames = np.concatenate([chunk.frames for chunk in chunks if not isinstance(chunk, AudioChunk)])
    with (folder / "camera.mjpeg").open("wb") as file:
        for frame in frames:
            Image.fromarray(frame).resize((320, 240)).save(file, "JPEG", quality=90)
    return folder / "microphone.wav", folder / "camera.mjpeg"


@asynccontextmanager
async def command_serving(subject: Subject, *options: str) -> AsyncIterator[tuple[int, psutil.Process]]:
    """`wanedge serve` in a process of its own: its port, and the process."""
    wanedge = Path(sys.executable).with_name("wanedge")
    command = [str(wanedge), "serve", *subject.arguments, "--port", "0", "--world", WORLD, "--drain-s", "0", *options]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = await asyncio.to_thread(process.stdout.readline)
            port = re.search(r":(\d+)/", line)
            assert port, "the server did not start"
            yield int(port[1]), psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(20)


# a conversation


async def conversation(subject: Subject, folder: Path, rounds: int, picture: Path | None) -> Measures:
    """Questions through the browser: from the last sample of each to the first one of its answer, and the parts."""
    microphone, camera = write_devices(folder, rounds)
    flags = (*KIOSK, f"--use-file-for-fake-video-capture={camera}")
    async with (
        command_serving(subject, "--max-sessions", "1") as (port, _),
        browsing(f"http://127.0.0.1:{port}/", sound=microphone, flags=flags, script=METER, policy=False) as page,
    ):
        await page.wait_for("wanedge.status().pictures.pictures > 4")
        ends = time.monotonic() + rounds * 28.0
        if picture is not None:
            await page.wait_for("wanedge.status().caption.includes('left') && wanedge.status().agent === '<speak>'")
            await page.press("l")
            await asyncio.sleep(0.4)
            await page.picture(folder / "page.png")
            Image.open(folder / "page.png").convert("RGB").save(picture, "JPEG", quality=85)
            await page.press("l")
        await asyncio.sleep(max(0.0, ends - time.monotonic()))
        blocks, units, pictures = await page.evaluate("[meter.blocks, meter.units, meter.pictures]")
        output_ms = (await page.status())["latency"]["outputMs"]
    delays = answer_delays(np.array(blocks), output_ms)
    stderr().print(f"{len(delays)} answers: {[round(d) for d in delays]}")
    measures: Measures = {}
    for percent, aim in ((50, "<= 550"), (95, "<= 700")):
        name = f"question_to_answer_ms_p{percent}"
        measures[name] = percentile(delays, percent).measure("ms", aim) if delays else unmeasured("ms", aim)
    for part in ("totalMs", "modelMs", "transportMs", "bufferMs", "outputMs"):
        values = [unit[part] for unit in units if unit.get(part) is not None]
        name = "unit_heard_to_loudspeaker" if part == "totalMs" else part.removesuffix("Ms")
        for percent in (50, 95):
            measures[f"{name}_ms_p{percent}"] = percentile(values, percent).measure("ms")
    shown = np.array([picture for picture in pictures if None not in picture])
    measures["picture_made_to_pixel_ms_p50"] = percentile(shown[:, 0], 50).measure("ms", "<= 20")
    measures["picture_made_to_decoded_ms_p50"] = percentile(shown[:, 1], 50).measure("ms")
    measures["picture_made_to_decoded_ms_p95"] = percentile(shown[:, 1], 95).measure("ms")
    return measures


def answer_delays(blocks: np.ndarray[Any, Any], output_ms: float) -> list[float]:
    """Ms from the end of each question in the microphone to the next sound of the agent.

    blocks: time in ms, peak of the microphone, peak of the loudspeaker; 8 ms each. A question that is spoken while the
    agent speaks, or to which nothing is said within 3 s, has none.
    """
    times, heard, said = blocks[:, 0], blocks[:, 1] > LOUD, blocks[:, 2] > LOUD
    delays: list[float] = []
    for index in np.flatnonzero(heard[:-1] & ~heard[1:]):
        end = times[index] + 8.0
        following = (times > end) & (times < end + BETWEEN_S * 1e3)
        before = (times > end - 300.0) & (times <= end)
        if heard[following].any() or said[before].any():
            continue
        answers = np.flatnonzero(said & (times > end))
        if answers.size and times[answers[0]] - end < 3_000.0:
            delays.append(float(times[answers[0]] - end + output_ms))
    return delays


# voice and lips, by a click and a flash


class Marked(Connection):
    """A connection whose units are black and silent but for every fourth, which begins with a click and a flash."""

    async def send_unit(self, unit: AgentUnit, audio: Pcm16, heard_ms: float) -> None:
        frames, sound = np.zeros_like(unit.frames), np.zeros_like(audio)
        if unit.index % 4 == 0:
            frames[:2] = 255
            sound[:640] = (20_000 * np.sin(np.arange(640) * 2 * np.pi * 1_000 / 16_000)).astype(np.int16)
        marked = AgentUnit(unit.index, unit.start_ms, unit.end_ms, unit.audio, frames, "", (), unit.state, unit.timing)
        await super().send_unit(marked, sound, heard_ms)


async def voice_and_lips(subject: Subject, seconds: float) -> Measures:
    """How far the flash is from the click at the page. Measured at both outputs, not by the player's own account."""
    async with AsyncExitStack() as stack:
        stack.enter_context(patch("wanedge.serve.server.Connection", Marked))
        server = await stack.enter_async_context(serving(subject.load(), max_sessions=1))
        page = await stack.enter_async_context(browsing(server.url, flags=KIOSK, script=METER, policy=False))
        await page.wait_for("wanedge.status().pictures.pictures > 4")
        await asyncio.sleep(seconds)
        blocks, looks = await page.evaluate("[meter.blocks, meter.looks]")
        output_ms = (await page.status())["latency"]["outputMs"]
    audio, video = np.array(blocks), np.array(looks)
    clicks = onsets(audio[:, 0], audio[:, 2] > 0.2) + output_ms
    flashes = onsets(video[:, 0], video[:, 1] > 128)
    offsets = [float(flashes[np.abs(flashes - click).argmin()] - click) for click in clicks if flashes.size]
    offsets = [offset for offset in offsets if abs(offset) < 320.0]
    measures = {"voice_against_lips_ms_p95": unmeasured("ms", "<= 40"), "voice_against_lips_ms_p50": unmeasured("ms")}
    if offsets:
        size = np.abs(offsets)
        measures["voice_against_lips_ms_p95"] = percentile(size, 95).measure("ms", "<= 40")
        measures["voice_against_lips_ms_p50"] = percentile(size, 50).measure("ms")
    return measures


def onsets(times: np.ndarray[Any, Any], on: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Times at which a signal comes on, after at least 200 ms without it."""
    found: list[float] = []
    last = -1e9
    for time_ms, is_on in zip(times, on, strict=True):
        if is_on and time_ms - last > 200.0:
            found.append(float(time_ms))
        if is_on:
            last = float(time_ms)
    return np.array(found)


# stalls, cuts, lost devices


async def latency_now(page: Page, seconds: float) -> float:
    """Median latency of the units heard during `seconds`, from heard to loudspeaker."""
    seen: dict[int, float] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        latency = (await page.status())["latency"]
        if "totalMs" in latency:
            seen[latency["unitMs"]] = latency["totalMs"]
        await asyncio.sleep(0.05)
    return float(np.median(list(seen.values())))


async def stalls(subject: Subject, times: int) -> Measures:
    """How much later answers are heard two seconds after half a second in which nothing moved."""
    found: dict[str, list[float]] = {"server": [], "page": []}
    async with (
        command_serving(subject, "--max-sessions", "1") as (port, _),
        CuttingProxy(port) as proxy,
        browsing(proxy.url, flags=KIOSK) as page,
    ):
        await page.wait_for("wanedge.status().pictures.pictures > 4")
        await asyncio.sleep(6.0)
        for _ in range(times):
            for side in found:
                before = await latency_now(page, 3.0)
                if side == "server":
                    await proxy.hold(0.5)
                else:
                    await page.evaluate("(() => { const end = Date.now() + 500; while (Date.now() < end); })()")
                await asyncio.sleep(2.0)
                found[side].append(await latency_now(page, 1.5) - before)
                stderr().print(f"stall of the {side}: {found[side][-1]:+.0f} ms")
    return {
        f"latency_after_{side}_stall_ms_max": Measure(value=max(values), unit="ms", n=len(values), threshold="<= 40")
        for side, values in found.items()
    }


async def long_visit(subject: Subject, minutes: float, cuts: int, losses: int) -> Measures:
    """One page for a long time, whose socket is cut and whose devices are pulled out again and again."""
    resumed_s: list[float] = []
    dead = 0
    memory: list[tuple[float, float]] = []
    async with (
        command_serving(subject, "--max-sessions", "1") as (port, process),
        CuttingProxy(port) as proxy,
        browsing(proxy.url, flags=KIOSK, script=TRACKS) as page,
    ):
        await page.wait_for("wanedge.status().pictures.pictures > 4")
        session = (await page.status())["session"]
        pause, began = minutes * 60.0 / cuts, time.monotonic()
        for cut in range(1, cuts + 1):
            await asyncio.sleep(max(0.0, began + cut * pause - 2.0 - time.monotonic()))
            if cut % (cuts // losses) == 0:
                kind = ("audio", "video")[cut // (cuts // losses) % 2]
                for each in (kind, "audio" if kind == "video" else "video"):
                    await page.evaluate(f"unplug('{each}')")
                await page.wait_for("wanedge.status().microphone.on && wanedge.status().camera.on")
            proxy.cut()
            try:
                resumed_s.append(await page.wait_for(f"wanedge.status().connection.resumed >= {cut}", seconds=10.0))
                seen = (await page.status())["pictures"]["pictures"]
                await page.wait_for(f"wanedge.status().pictures.pictures > {seen + 4}", seconds=10.0)
            except TimeoutError as error:
                stderr().print(str(error))
                dead += 1
            await page.call("HeapProfiler.collectGarbage")
            heap = (await page.call("Runtime.getHeapUsage"))["usedSize"]
            memory.append((process.memory_info().rss / 1e6, heap / 1e6))
        same = (await page.status())["session"] == session
        lasted = (time.monotonic() - began) / 60.0
    half = len(memory) // 2
    grown = np.median(memory[half:], axis=0) - np.median(memory[half // 2 : half], axis=0)
    return {
        "visit_minutes": Measure(value=lasted, unit="min", threshold=">= 30"),
        "visit_cuts": Measure(value=float(cuts), unit="cuts", threshold=">= 50"),
        "visit_device_losses": Measure(value=float(losses), unit="of each", threshold=">= 10"),
        "visit_dead_pages": Measure(value=float(dead), unit="pages", n=cuts, threshold="== 0"),
        "visit_session_kept": Measure(value=float(same), unit="bool", threshold="== 1"),
        "cut_to_resumed_s_max": Measure(value=max(resumed_s), unit="s", n=len(resumed_s), threshold="<= 1"),
        "cut_to_resumed_s_p50": percentile(resumed_s, 50).measure("s"),
        "server_memory_growth_mb": Measure(value=float(grown[0]), unit="MB", n=len(memory), threshold="<= 5"),
        "page_heap_growth_mb": Measure(value=float(grown[1]), unit="MB", n=len(memory), threshold="<= 2"),
    }


# attack, and many sessions


async def attacked(subject: Subject, count: int) -> Measures:
    """Hostile messages until the server has received `count` of them."""
    attack = Attack()
    limits = Limits(messages_per_s=1e9, bytes_per_s=1e12)
    async with serving(subject.load(), limits=limits) as server:
        process, before = psutil.Process(), 0.0
        seed = 0
        while server.metrics["messages_received"] < count:
            await send_messages(server, seed, 2_000, attack)
            await send_raw(server, seed, 40, attack)
            seed += 1
            if seed == 3:
                before = process.memory_info().rss / 1e6
        grown = process.memory_info().rss / 1e6 - before
        unharmed = await is_unharmed(server)
        received = server.metrics["messages_received"]
        refused = server.metrics["events_refused"]
    return {
        "hostile_messages": Measure(value=float(received), unit="messages", threshold=">= 100000"),
        "hostile_messages_refused": Measure(value=float(refused), unit="messages"),
        "hostile_connections": Measure(value=float(attack.connections), unit="connections"),
        "hostile_closed_without_reason": Measure(value=float(attack.silent), unit="connections", threshold="== 0"),
        "hostile_server_unharmed": Measure(value=float(unharmed), unit="bool", threshold="== 1"),
        "hostile_memory_growth_mb": Measure(value=grown, unit="MB", threshold="<= 20"),
    }


async def many_sessions(subject: Subject, most: int, seconds: float) -> Measures:
    """Latency and late units with 1, 2, ... sessions at the pace of time; how many the machine answers in time."""
    measures: Measures = {}
    held = 0
    for sessions in range(1, most + 1):
        async with serving(subject.load(), max_sessions=sessions, world=WORLD) as server:
            talks = await asyncio.gather(*(talk(server, n, seconds) for n in range(sessions)))
            latencies = [latency for each in talks for latency in each]
            answered = server.metrics["units"] / (sessions * seconds / 0.16)
        late = float(np.mean(np.array(latencies) > 160.0))
        measures[f"sessions_{sessions}_latency_ms_p50"] = percentile(latencies, 50).measure("ms")
        measures[f"sessions_{sessions}_latency_ms_p95"] = percentile(latencies, 95).measure("ms")
        measures[f"sessions_{sessions}_late_share"] = Measure(value=late, unit="ratio", n=len(latencies))
        p50 = float(np.median(latencies))
        stderr().print(f"{sessions} sessions: p50 {p50:.0f} ms, late {late:.1%}, answered {answered:.1%}")
        if late <= 0.05 and answered >= 0.95 and held == sessions - 1:
            held = sessions
        if p50 > 320.0:
            break
    measures["sessions_in_time"] = Measure(value=float(held), unit="sessions")
    return measures


async def talk(server: LiveServer, seed: int, seconds: float) -> list[float]:
    """One client of pictures and noise at the pace of time; latencies of its units in ms."""
    generator = np.random.default_rng(seed)
    latencies: list[float] = []
    async with client_of(server) as client:
        await client.start(wanedge={"binary": True, "output_video": True})

        async def listen() -> None:
            while True:
                message = await client.receive()
                if isinstance(message, UnitMessage):
                    latencies.append(message.latency_ms)

        listener = asyncio.create_task(listen())
        began = time.monotonic()
        for block in range(int(seconds / 0.04)):
            await asyncio.sleep(max(0.0, began + (block + 1) * 0.04 - time.monotonic()))
            await client.send_audio(block * 40.0, (500 * generator.standard_normal(640)).astype(np.int16))
            await client.send_picture(block * 40.0)
        listener.cancel()
    return latencies[12:]  # the first ones load


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle with an INT8 variant of the kiosk's guide.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file of results.")] = Path("out/serve.json"),
    minutes: Annotated[float, typer.Option(help="Of the long visit.")] = 30.0,
    hostile: Annotated[int, typer.Option(help="Messages of the attack.")] = 100_000,
    rounds: Annotated[int, typer.Option(help="Of the clip with five questions.")] = 6,
    variant: Annotated[str | None, typer.Option(help="The bundle's variant; default: the best one.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Keep a picture of the page here, as JPEG.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Measure these only, and keep the rest of the file.")] = None,
) -> None:
    """Measure `wanedge serve` (about 45 minutes with --minutes 30)."""
    with report_errors(), tempfile.TemporaryDirectory() as folder:
        opened, subject = Bundle.open(bundle), Subject(bundle, variant)
        parts: dict[str, Callable[[], Awaitable[Measures]]] = {
            "hostile": lambda: attacked(subject, hostile),
            "conversation": lambda: conversation(subject, Path(folder), rounds, picture),
            "lips": lambda: voice_and_lips(subject, 40.0),
            "stalls": lambda: stalls(subject, 4),
            "sessions": lambda: many_sessions(subject, 6, 20.0),
            "visit": lambda: long_visit(subject, minutes, cuts=50, losses=10),
        }
        measures: Measures = dict(Results.read(out).measures) if part and out.exists() else {}
        loads: list[float] = []
        for name, measure in parts.items():
            if part and name not in part:
                continue
            loads.append(os.getloadavg()[0])
            stderr().print(f"{name}, load {loads[-1]:.1f}")
            measures |= asyncio.run(_awaited(measure))
            machine = {**machine_facts(), "variant": subject.load().variant, "load_before": max(loads)}
            command = shlex.join(["python", "-m", "tests.acceptance.serve", *sys.argv[1:]])
            Results(machine=machine, made=Provenance.now(command, commit(), opened.digest), measures=measures).write(
                out
            )
        for name, measured in measures.items():
            stderr().print(f"{name}: {measured.value} {measured.unit} {measured.threshold or ''} {measured.passed}")


async def _awaited(measure: Callable[[], Awaitable[Measures]]) -> Measures:
    return await measure()


if __name__ == "__main__":
    typer.run(main)
