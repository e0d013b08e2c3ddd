"""The agent as a duplex model of LiveKit Agents: it listens and speaks at the same time, in a real AgentSession.

    python samples/integrations/livekit_agent.py kiosk.wanedge samples/media/kiosk-visitor.mp4 --seconds 8

A clip takes the place of a room. In your agent, pass `DuplexRealtimeAdapter(WanEdgeDuplexModel(model))` to
`AgentSession(llm=...)`, and `await publish(room, model)` for the agent's picture. Prints what the agent says and
how much was spoken and shown. Needs the extras cpu and media, and livekit-agents 1.8 or later, below 2.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
from livekit import rtc
from livekit.agents import Agent, AgentSession, ConversationItemAddedEvent, utils
from livekit.agents.llm import (
    ChatItem,
    ChatMessage,
    DuplexAudioFrame,
    DuplexCapabilities,
    DuplexModel,
    DuplexOutputTranscriptDelta,
    DuplexRealtimeAdapter,
    DuplexSession,
    FixedGate,
    Tool,
    ToolChoice,
    ToolContext,
)
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.voice.avatar import QueueAudioOutput
from livekit.agents.voice.io import AudioInput, VideoInput

from wanedge import AgentUnit, Model, Session
from wanedge.media import AudioChunk
from wanedge.media.files import read_media

SILENCE = 0.003  # of full scale: the level of the agent's pauses


class WanEdgeDuplexModel(DuplexModel):
    """A loaded model; every AgentSession gets a session of its own. shown: pictures that were published."""

    def __init__(self, model: Model, world: str = "") -> None:
        super().__init__(capabilities=DuplexCapabilities(user_transcription=False, auto_tool_reply_generation=False))
        self.loaded, self.world = model, world
        self.shown = 0
        self.units: asyncio.Queue[AgentUnit] = asyncio.Queue(maxsize=12)  # the newest ones, for the picture

    @property
    def model(self) -> str:
        return self.loaded.config.name

    @property
    def provider(self) -> str:
        return "wanedge"

    def audio_gate(self) -> FixedGate:
        return FixedGate(silence=SILENCE)

    def session(self) -> DuplexSession:
        return WanEdgeDuplexSession(self)

    async def aclose(self) -> None:
        """Nothing is open without a session."""


class WanEdgeDuplexSession(DuplexSession[str]):
    """One conversation. Instructions become the world text, which is read once, before it starts."""

    def __init__(self, duplex: WanEdgeDuplexModel) -> None:
        super().__init__(duplex)
        self._duplex = duplex
        self._world = duplex.world
        self._session: Session | None = None
        self._frames: utils.aio.Chan[DuplexAudioFrame] = utils.aio.Chan()
        self._answers = asyncio.create_task(self._answer())

    @property
    def audio_stream(self) -> AsyncIterator[DuplexAudioFrame]:
        frames: AsyncIterator[DuplexAudioFrame] = self._frames
        return frames

    @property
    def tools(self) -> ToolContext:
        return ToolContext.empty()

    def push_audio(self, frame: rtc.AudioFrame) -> None:
        if self._session is not None:
            pcm = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
            self._session.push(audio=pcm, sample_rate=frame.sample_rate)

    def push_video(self, frame: rtc.VideoFrame) -> None:
        if self._session is not None:
            is_rgb = frame.type == rtc.VideoBufferType.RGB24
            rgb = frame if is_rgb else frame.convert(rtc.VideoBufferType.I420).convert(rtc.VideoBufferType.RGB24)
            self._session.push(video=np.frombuffer(rgb.data, np.uint8).reshape(rgb.height, rgb.width, 3))

    async def aclose(self) -> None:
        await super().aclose()
        if self._session is not None:
            await self._session.aclose()
        await utils.aio.cancel_and_wait(self._answers)
        self._frames.close()

    async def _answer(self) -> None:
        await self._configured.wait()
        if self._closing:
            return
        self._session = await asyncio.to_thread(Session.open, self._duplex.loaded, world=self._world, live=True)
        rate = self._duplex.loaded.config.audio.sample_rate
        async for unit in self._session.units():
            pcm = (np.clip(unit.audio, -1, 1) * 32_767).astype(np.int16)
            if unit.text:
                self.emit("transcript_delta", DuplexOutputTranscriptDelta(unit.text, unit.start_ms, unit.end_ms))
            frame = rtc.AudioFrame(pcm.tobytes(), rate, 1, len(pcm))
            self._frames.send_nowait(DuplexAudioFrame(frame, unit.start_ms))
            if self._duplex.units.full():
                self._duplex.units.get_nowait()
            self._duplex.units.put_nowait(unit)

    async def _update_instructions(self, instructions: str) -> None:
        self._world = instructions or self._world

    async def _append_items(self, items: list[ChatItem]) -> None:
        """The model keeps its own history."""

    async def _update_tools(self, tools: list[Tool]) -> None:
        if tools:
            raise NotImplementedError("this model calls no tools")

    def _update_options(self, *, tool_choice: NotGivenOr[ToolChoice | None] = NOT_GIVEN) -> None:
        """There is nothing to choose."""


async def publish(room: rtc.Room, duplex: WanEdgeDuplexModel) -> None:
    """Publish the agent's voice and picture as one synchronised pair; leave the AgentSession's own audio output out."""
    config = duplex.loaded.config
    audio = rtc.AudioSource(config.audio.sample_rate, 1)
    video = rtc.VideoSource(config.agent_video.width, config.agent_video.height)
    participant = room.local_participant
    await participant.publish_track(rtc.LocalAudioTrack.create_audio_track("voice", audio))
    await participant.publish_track(rtc.LocalVideoTrack.create_video_track("picture", video))
    await synchronise(duplex, audio, video)


async def synchronise(duplex: WanEdgeDuplexModel, audio: rtc.AudioSource, video: rtc.VideoSource) -> None:
    """Hand every unit's voice and pictures to a synchroniser, for as long as there are units."""
    together = rtc.AVSynchronizer(audio_source=audio, video_source=video, video_fps=25)
    while True:
        unit = await duplex.units.get()
        pcm = (np.clip(unit.audio, -1, 1) * 32_767).astype(np.int16)
        height, width = unit.frames.shape[1:3]
        for picture, part in zip(unit.frames, np.array_split(pcm, len(unit.frames)), strict=True):
            rgba = np.dstack((picture, np.full((height, width), 255, np.uint8)))
            await together.push(rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, rgba.tobytes()))
            duplex.shown += 1
            await together.push(rtc.AudioFrame(part.tobytes(), duplex.loaded.config.audio.sample_rate, 1, len(part)))


class ClipSound(AudioInput):
    """The clip's sound at the pace of time, where a room's microphone would be."""

    def __init__(self) -> None:
        super().__init__(label="clip")
        self.frames: asyncio.Queue[rtc.AudioFrame] = asyncio.Queue()

    async def __anext__(self) -> rtc.AudioFrame:
        return await self.frames.get()


class ClipPicture(VideoInput):
    """The clip's pictures, where a room's camera would be."""

    def __init__(self) -> None:
        super().__init__(label="clip")
        self.frames: asyncio.Queue[rtc.VideoFrame] = asyncio.Queue()

    async def __anext__(self) -> rtc.VideoFrame:
        return await self.frames.get()


async def feed(clip: str, seconds: float, sound: ClipSound, picture: ClipPicture) -> None:
    """Feed the clip at the pace of time."""
    started = time.monotonic()
    for chunk in read_media(clip):
        if chunk.timestamp is None or chunk.timestamp > seconds:
            break
        await asyncio.sleep(max(0.0, started + chunk.timestamp - time.monotonic()))
        if isinstance(chunk, AudioChunk):
            pcm = chunk.pcm if chunk.pcm.dtype == np.int16 else (chunk.pcm * 32_767).astype(np.int16)
            frame = rtc.AudioFrame(pcm.tobytes(), chunk.sample_rate, pcm.shape[1], len(pcm))
            sound.frames.put_nowait(frame)
        else:
            for rgb in chunk.frames:
                height, width = rgb.shape[:2]
                picture.frames.put_nowait(rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, rgb.tobytes()))


async def converse(bundle: str, clip: str, seconds: float) -> None:
    """Run an AgentSession without a room."""
    duplex = WanEdgeDuplexModel(await asyncio.to_thread(Model.load, bundle))
    sound, picture, output = ClipSound(), ClipPicture(), QueueAudioOutput(sample_rate=16_000)
    session = AgentSession(llm=DuplexRealtimeAdapter(duplex), video_sampler=None)  # every picture
    session.input.audio, session.input.video, session.output.audio = sound, picture, output
    heard = 0.0

    async def listen() -> None:
        nonlocal heard
        async for frame in output:
            if isinstance(frame, rtc.AudioFrame):
                heard += frame.duration
            else:
                output.notify_playback_finished(heard, interrupted=False)

    config = duplex.loaded.config
    audio = rtc.AudioSource(config.audio.sample_rate, 1)
    video = rtc.VideoSource(config.agent_video.width, config.agent_video.height)

    @session.on("conversation_item_added")
    def show(event: ConversationItemAddedEvent) -> None:
        if isinstance(event.item, ChatMessage):
            print(event.item.text_content, flush=True)

    tasks = [asyncio.create_task(listen()), asyncio.create_task(synchronise(duplex, audio, video))]
    await session.start(Agent(instructions="The guide's name is Nina."))
    await feed(clip, seconds, sound, picture)
    await asyncio.sleep(1.0)  # the last answers
    await session.aclose()
    for task in tasks:
        if task.done():
            task.result()  # it should still be running: raise what ended it
        task.cancel()
    print(f"{heard:.1f} s of voice, {duplex.shown} pictures")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("clip")
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    asyncio.run(converse(arguments.bundle, arguments.clip, arguments.seconds))
