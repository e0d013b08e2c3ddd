"""Talk to `wanedge serve` with the openai package: the Live API's client, pointed at this machine.

    wanedge serve kiosk.wanedge                     # in another terminal
    python samples/integrations/live_api_client.py samples/media/kiosk-visitor.mp4 --seconds 8

Prints what the agent says, and how many seconds of its voice came: `8.0 s of voice`. Needs the extra media and openai.
"""

import argparse
import asyncio
import base64
import time

import numpy as np
from openai import AsyncOpenAI

from wanedge.media import AudioChunk
from wanedge.media.audio import Resampler
from wanedge.media.files import read_media

RATE = 24_000  # what the Live API speaks where nobody says anything else
BLOCK = RATE // 25  # samples of 40 ms


def sound(clip: str) -> np.ndarray:
    """Mono samples int16 of the clip at RATE."""
    chunks = [chunk for chunk in read_media(clip) if isinstance(chunk, AudioChunk)]
    pcm = np.concatenate([chunk.pcm for chunk in chunks]).astype(np.float32).mean(axis=1)
    if chunks[0].pcm.dtype == np.int16:
        pcm /= 32_768
    resampled = Resampler(chunks[0].sample_rate, RATE).feed(pcm)
    return (resampled * 32_767).astype(np.int16)


async def converse(url: str, token: str, clip: str, seconds: float) -> None:
    """Send the clip's sound at the pace of time and print the answers as they come."""
    pcm = sound(clip)[: int(seconds * RATE)]
    client = AsyncOpenAI(base_url=url, api_key=token)
    async with client.live.connect() as connection:
        await connection.session.start(session={"model": "kiosk", "instructions": "The guide's name is Nina."})

        async def speak() -> None:
            started = time.monotonic()
            for number, at in enumerate(range(0, len(pcm), BLOCK)):
                await asyncio.sleep(max(0.0, started + number * 0.04 - time.monotonic()))
                audio = base64.b64encode(pcm[at : at + BLOCK].tobytes()).decode()
                await connection.session.input_audio.append(audio=audio)
            await asyncio.sleep(1.0)  # the last answers
            await connection.session.close()

        speaking, heard = None, 0
        async for event in connection:
            if event.type == "session.started":
                speaking = asyncio.create_task(speak())
            elif event.type == "session.output_audio.delta":
                heard += len(base64.b64decode(event.delta)) // 2
            elif event.type == "session.output_transcript.delta":
                print(event.delta, end="", flush=True)
            elif event.type == "error":
                raise SystemExit(f"{event.error.code}: {event.error.message}")
            elif event.type == "session.closed":
                break
        if speaking is not None:
            await speaking
    print(f"\n{heard / RATE:.1f} s of voice")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--url", default="http://127.0.0.1:8710/v1")
    parser.add_argument("--token", default="none", help="what `wanedge serve --token-file` holds")
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    asyncio.run(converse(arguments.url, arguments.token, arguments.clip, arguments.seconds))
