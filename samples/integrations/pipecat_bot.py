"""The agent as a processor of a Pipecat pipeline, in one process: sound and pictures in, voice, pictures and words out.

    python samples/integrations/pipecat_bot.py kiosk.wanedge samples/media/kiosk-visitor.mp4 --seconds 8

A clip takes the place of a transport; in your bot, put `WanEdgeProcessor` between `transport.input()` and
`transport.output()`. Prints what the agent says and `8.0 s of voice, 200 pictures`. Needs the extras cpu and media, and
pipecat-ai 1.14 or later. (Pipecat's own OpenAILiveLLMService works with `wanedge serve`, too, without this file:
`OpenAILiveLLMService(api_key=..., base_url="ws://127.0.0.1:8710/v1/live/sessions")`. It carries no pictures.)
"""

import argparse
import asyncio
import time

import numpy as np
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputImageRawFrame,
    OutputImageRawFrame,
    SpeechOutputAudioRawFrame,
    StartFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from wanedge import AgentUnit, Model, Session
from wanedge.media import AudioChunk
from wanedge.media.files import read_media


class WanEdgeProcessor(FrameProcessor):
    """One live session. The model listens and speaks at the same time, so no turns and no interruptions are needed."""

    def __init__(self, model: Model, world: str = "") -> None:
        super().__init__(name="wanedge")
        self._model, self._world = model, world
        self._session: Session | None = None
        self._answers: asyncio.Task[None] | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._session = await asyncio.to_thread(Session.open, self._model, world=self._world, live=True)
            self._answers = self.create_task(self._answer(self._session))
        if isinstance(frame, InputAudioRawFrame) and self._session is not None:
            pcm = np.frombuffer(frame.audio, np.int16).reshape(-1, frame.num_channels)
            self._session.push(audio=pcm, sample_rate=frame.sample_rate)
        elif isinstance(frame, InputImageRawFrame) and self._session is not None:
            width, height = frame.size
            self._session.push(video=np.frombuffer(frame.image, np.uint8).reshape(height, width, 3))
        else:
            await self.push_frame(frame, direction)
        if isinstance(frame, EndFrame | CancelFrame):
            await self._end()

    async def cleanup(self) -> None:
        await super().cleanup()
        await self._end()

    async def _end(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.aclose()
        if self._answers is not None:
            answers, self._answers = self._answers, None
            await self.cancel_task(answers)

    async def _answer(self, session: Session) -> None:
        async for unit in session.units():
            for frame in self._frames(unit):
                await self.push_frame(frame)

    def _frames(self, unit: AgentUnit) -> list[Frame]:
        """A unit as Pipecat's frames: voice in quarters, each with the picture that belongs to it."""
        pcm = (np.clip(unit.audio, -1, 1) * 32_767).astype(np.int16)
        height, width = unit.frames.shape[1:3]
        rate = self._model.config.audio.sample_rate
        frames: list[Frame] = []
        for picture, samples in zip(unit.frames, np.array_split(pcm, len(unit.frames)), strict=True):
            image = OutputImageRawFrame(image=picture.tobytes(), size=(width, height), format="RGB")
            image.sync_with_audio = True  # shown when the voice before it has been played
            frames += [image, SpeechOutputAudioRawFrame(audio=samples.tobytes(), sample_rate=rate, num_channels=1)]
        if unit.text:
            frames.append(TTSTextFrame(text=unit.text, text_type="token"))
        return frames


class Listener(FrameProcessor):
    """Where a transport would play: prints the words and counts the media."""

    def __init__(self) -> None:
        super().__init__(name="listener")
        self.seconds, self.pictures = 0.0, 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, SpeechOutputAudioRawFrame):
            self.seconds += frame.num_frames / frame.sample_rate
        elif isinstance(frame, OutputImageRawFrame):
            self.pictures += 1
        elif isinstance(frame, TTSTextFrame):
            print(frame.text, end="", flush=True)
        await self.push_frame(frame, direction)


async def converse(bundle: str, clip: str, seconds: float) -> None:
    """Feed the clip at the pace of time."""
    listener = Listener()
    model = await asyncio.to_thread(Model.load, bundle)
    worker = PipelineWorker(Pipeline([WanEdgeProcessor(model, "The guide's name is Nina."), listener]))

    async def feed() -> None:
        started = time.monotonic()
        for chunk in read_media(clip):
            if chunk.timestamp is None or chunk.timestamp > seconds:
                break
            await asyncio.sleep(max(0.0, started + chunk.timestamp - time.monotonic()))
            if isinstance(chunk, AudioChunk):
                pcm = chunk.pcm if chunk.pcm.dtype == np.int16 else (chunk.pcm * 32_767).astype(np.int16)
                sound = InputAudioRawFrame(
                    audio=pcm.tobytes(), sample_rate=chunk.sample_rate, num_channels=pcm.shape[1]
                )
                await worker.queue_frame(sound)
            else:
                for frame in chunk.frames:
                    height, width = frame.shape[:2]
                    await worker.queue_frame(InputImageRawFrame(frame.tobytes(), size=(width, height), format="RGB"))
        await asyncio.sleep(1.0)  # the last answers
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    feeding = asyncio.create_task(feed())
    await runner.run()
    await feeding
    print(f"\n{listener.seconds:.1f} s of voice, {listener.pictures} pictures")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("clip")
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    asyncio.run(converse(arguments.bundle, arguments.clip, arguments.seconds))
