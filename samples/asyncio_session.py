"""Use a session from asyncio: one task pushes, another takes the answers as they come.

    python samples/asyncio_session.py kiosk.wanedge samples/media/kiosk-visitor.mp4

Prints the agent's text as it is written, `(waves) Hello! I am Anna.` and so on, then `176 units`. Needs the extras cpu
and media.
"""

import argparse
import asyncio
import math

from wanedge import Session
from wanedge.media.files import read_media


async def push(session: Session, clip: str) -> None:
    """Push the clip; the session's queue is bounded, so wait for room without blocking the event loop."""
    for chunk in read_media(clip):
        while session.metrics.waiting > 1:
            await asyncio.sleep(0.01)
        session.push_chunk(chunk)
    session.finish()


async def answers(session: Session) -> int:
    """Print the text of every unit and return their number."""
    count = 0
    async for unit in session.units():
        print(unit.text, end="", flush=True)
        count += 1
    return count


async def converse(bundle: str, clip: str) -> None:
    """Both sides at once."""
    async with Session.open(bundle, world="The guide's name is Anna.", deadline_ms=math.inf) as session:
        _, count = await asyncio.gather(push(session, clip), answers(session))
    print(f"\n{count} units")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("clip")
    arguments = parser.parse_args()
    asyncio.run(converse(arguments.bundle, arguments.clip))
