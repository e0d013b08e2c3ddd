"""Talk to a bundle: microphone and camera in, loudspeaker out.

    python samples/microphone_and_camera.py kiosk.wanedge
    python samples/microphone_and_camera.py kiosk.wanedge --clip samples/media/kiosk-visitor.mp4 --silent

Without devices, --clip takes their place at the pace of time, and --silent plays into nothing. Prints what the agent
says, and at the end what was late or lost:

    (waves) Hello! I am Anna.
    176 units, 0 late, 0 dropped

Needs the extras cpu and live; media for --clip.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from wanedge import Session
from wanedge.media.chunks import MediaChunk
from wanedge.media.files import read_media
from wanedge.media.live import Camera, Microphone, capture
from wanedge.media.playback import NullSink, Player, SoundCard


@contextmanager
def devices_or_clip(clip: str | None) -> Iterator[Iterator[MediaChunk]]:
    """Chunks of the devices, or of a file as fast as devices would deliver them."""
    if clip is None:
        with capture(Microphone(), Camera()) as chunks:
            yield iter(chunks)
        return

    def paced() -> Iterator[MediaChunk]:
        begun = monotonic()
        for chunk in read_media(clip):
            sleep(max(0.0, begun + (chunk.timestamp or 0.0) - monotonic()))
            yield chunk

    yield paced()


def main() -> None:
    """Converse until the clip ends, or until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--clip", help="a file in place of the devices")
    parser.add_argument("--silent", action="store_true", help="play into nothing")
    parser.add_argument("--world", default="The guide's name is Anna.")
    arguments = parser.parse_args()

    # live=True never makes a device wait: what cannot be answered in time is dropped, oldest first, and counted.
    with (
        Session.open(arguments.bundle, world=arguments.world, live=True) as session,
        Player(session.config.audio.sample_rate, NullSink() if arguments.silent else SoundCard()) as player,
        devices_or_clip(arguments.clip) as chunks,
    ):

        def answer(timeout: float = 0.0) -> None:
            for unit in session.pull(timeout):
                player.play(unit)
                print(unit.text, end="", flush=True)

        try:
            for chunk in chunks:
                session.push_chunk(chunk)
                answer()
                player.picture()  # the frame whose voice is heard now: show it in your window
        except KeyboardInterrupt:
            pass
        session.finish()
        while not session.ended:
            answer(timeout=0.2)
        metrics = session.metrics
    print(f"\n{metrics.units} units, {metrics.deadline_misses} late, {metrics.dropped_units} dropped")


if __name__ == "__main__":
    main()
