"""Other people's clients and frameworks hold a conversation: openai, Pipecat, LiveKit and GStreamer, on loopback.

openai is a development package. Pipecat and LiveKit (a gigabyte together) and Debian's GStreamer are not; where they
are installed, their tests run.
"""

import asyncio
import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("websockets", reason="websockets is not installed: pip install 'wanedge[serve]'")

from tests.serving import serving
from wanedge.bundle import Bundle
from wanedge.model import Model

ROOT = Path(__file__).parents[2]
INTEGRATIONS = ROOT / "samples" / "integrations"
CLIP = ROOT / "samples" / "media" / "kiosk-visitor.mp4"
TOKEN = "0123456789abcdef0123456789abcdef"
WANTED = 5  # units of voice


@pytest.fixture(scope="module")
def model(mini_bundle: Bundle) -> Model:
    return Model.load(mini_bundle)


def block(number: int, rate: int) -> bytes:
    """40 ms of noise, 16-bit."""
    generator = np.random.default_rng(number)
    samples: bytes = (3_000 * generator.standard_normal(rate // 25)).astype("<i2").tobytes()
    return samples


def test_the_openai_client_holds_a_conversation(model: Model) -> None:
    openai = pytest.importorskip("openai", minversion="3.50", reason="openai is not installed: pip install openai")

    async def converse() -> None:
        async with serving(model, token=TOKEN) as server:
            client = openai.AsyncOpenAI(api_key=TOKEN, base_url=f"{server.url}v1")
            async with client.live.connect() as connection:
                await connection.session.start(session={"model": "kiosk", "instructions": "A bright lobby."})
                started = await connection.recv()
                assert started.type == "session.started"
                assert started.session.status == "active"

                async def speak() -> None:
                    for number in range(100):
                        audio = base64.b64encode(block(number, 24_000)).decode()
                        await connection.session.input_audio.append(audio=audio)
                        await asyncio.sleep(0.01)

                speaking = asyncio.create_task(speak())
                kinds: list[str] = []
                async for event in connection:
                    assert type(event).__name__ != "BaseModel", event  # an event that the client does not know
                    kinds.append(event.type)
                    if kinds.count("session.output_audio.delta") == WANTED:
                        break
                speaking.cancel()
                await connection.session.close()
                async for event in connection:
                    kinds.append(event.type)
                    if event.type == "session.closed":
                        assert event.reason == "close_requested"
                        assert event.usage.seconds >= WANTED * 0.16
                        break
            assert "session.output_transcript.delta" in kinds
            assert "error" not in kinds

    asyncio.run(asyncio.wait_for(converse(), 120))


@pytest.mark.slow
def test_pipecats_own_live_service_holds_a_conversation(model: Model) -> None:
    pytest.importorskip("pipecat", reason="pipecat is not installed: pip install pipecat-ai")
    from pipecat.frames.frames import EndFrame, ErrorFrame, Frame, InputAudioRawFrame, SpeechOutputAudioRawFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineWorker
    from pipecat.processors.aggregators.llm_context import LLMContext
    from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.services.openai.live.llm import OpenAILiveLLMService
    from pipecat.workers.runner import WorkerRunner

    class Listener(FrameProcessor):
        voice = 0
        errors: tuple[str, ...] = ()

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            self.voice += isinstance(frame, SpeechOutputAudioRawFrame)
            if isinstance(frame, ErrorFrame):
                self.errors += (frame.error,)
            await self.push_frame(frame, direction)

    async def converse() -> Listener:
        async with serving(model, token=TOKEN) as server:
            url = f"{server.url.replace('http', 'ws')}v1/live/sessions"
            settings = OpenAILiveLLMService.Settings(model="kiosk", system_instruction="A bright lobby.")
            service = OpenAILiveLLMService(api_key=TOKEN, base_url=url, settings=settings)
            listener = Listener()
            pair = LLMContextAggregatorPair(LLMContext())
            worker = PipelineWorker(Pipeline([pair.user(), service, listener, pair.assistant()]))
            runner = WorkerRunner(handle_sigint=False)
            await runner.add_workers(worker)

            async def speak() -> None:
                from pipecat.frames.frames import LLMRunFrame

                await worker.queue_frame(LLMRunFrame())
                for number in range(800):
                    await worker.queue_frame(InputAudioRawFrame(block(number, 24_000), 24_000, 1))
                    await asyncio.sleep(0.02)
                    if listener.voice >= WANTED:
                        break
                await worker.queue_frame(EndFrame())

            speaking = asyncio.create_task(speak())
            await runner.run()
            await speaking
            return listener

    listener = asyncio.run(asyncio.wait_for(converse(), 120))
    assert listener.voice >= WANTED
    assert listener.errors == ()


def sample(name: str, *arguments: object) -> str:
    command = [sys.executable, str(INTEGRATIONS / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_pipecat_sample_answers_with_voice_and_pictures(mini_bundle: Bundle) -> None:
    pytest.importorskip("pipecat", reason="pipecat is not installed: pip install pipecat-ai")
    printed = sample("pipecat_bot", mini_bundle.root, CLIP, "--seconds", 3)
    found = re.search(r"^([\d.]+) s of voice, (\d+) pictures$", printed, re.MULTILINE)
    assert found
    assert float(found[1]) > 1.0
    assert int(found[2]) == pytest.approx(25 * float(found[1]), abs=4)


@pytest.mark.slow
def test_the_livekit_sample_speaks_in_an_agent_session(mini_bundle: Bundle) -> None:
    pytest.importorskip("livekit.agents", reason="livekit-agents is not installed: pip install livekit-agents")
    printed = sample("livekit_agent", mini_bundle.root, CLIP, "--seconds", 4)
    found = re.search(r"^([\d.]+) s of voice, (\d+) pictures$", printed, re.MULTILINE)
    assert found
    assert float(found[1]) > 0.5
    assert int(found[2]) > 25


@pytest.mark.slow
def test_the_openai_sample_talks_to_the_command(mini_bundle: Bundle) -> None:
    pytest.importorskip("openai", minversion="3.50", reason="openai is not installed: pip install openai")
    wanedge = Path(sys.executable).with_name("wanedge")
    command = [str(wanedge), "serve", str(mini_bundle.root), "--port", "0", "--max-sessions", "1", "--drain-s", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            printed = sample("live_api_client", CLIP, "--url", f"{url}v1", "--seconds", 2)
        finally:
            server.terminate()
    found = re.search(r"^([\d.]+) s of voice$", printed, re.MULTILINE)
    assert found
    assert float(found[1]) > 1.0


@pytest.mark.slow
def test_the_gstreamer_sample_feeds_and_plays(mini_bundle: Bundle) -> None:
    python = Path("/usr/bin/python3")  # GStreamer's bindings belong to the system's
    version = f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}"
    check = f"{version}; import gi; gi.require_version('GstApp', '1.0')"
    if not python.exists() or subprocess.run([python, "-c", check], capture_output=True, check=False).returncode:
        pytest.skip("GStreamer is not installed for this Python: apt-get install python3-gst-1.0")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "sdk"), *sys.path])}
    command = [str(python), str(INTEGRATIONS / "gstreamer_kiosk.py"), str(mini_bundle.root), "--seconds", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^([\d.]+) s of voice, (\d+) pictures$", done.stdout, re.MULTILINE)
    assert found
    assert float(found[1]) > 1.0
    assert int(found[2]) == round(25 * float(found[1]))


def test_every_integration_is_a_row_of_the_table_and_says_what_it_prints() -> None:
    table = (INTEGRATIONS / "README.md").read_text("utf-8")
    for path in INTEGRATIONS.glob("[a-z]*.py"):
        text = path.read_text("utf-8")
        assert f"]({path.name})" in table
        assert f"samples/integrations/{path.name}" in text
        assert "Prints " in text
        assert len(text.splitlines()) <= 280, path
