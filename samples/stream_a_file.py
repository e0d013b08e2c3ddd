"""Stream a video file through a bundle and write the agent's reply as a video.

    wanedge export tiny --weights samples/kiosk/weights/kiosk-tiny.safetensors -o kiosk.wanedge
    python samples/stream_a_file.py kiosk.wanedge samples/media/kiosk-visitor.mp4 reply.mp4

Prints one line for each 160 ms unit (time, latency, state and text of the agent), then a summary:

      0.00 s    97 ms  <idle>
      ...
      1.44 s    95 ms  <speak>  (waves) Hello
      ...
    reply.mp4: 28.2 s

Needs the extras cpu and media.
"""

import argparse
import math

from wanedge import Session
from wanedge.config import FPS, UNIT_MS
from wanedge.media.files import read_media
from wanedge.media.mp4 import Mp4Writer


def main() -> None:
    """Parse the command line and stream."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("clip")
    parser.add_argument("reply")
    parser.add_argument("--world", default="The guide's name is Anna.", help="scene and character, once")
    arguments = parser.parse_args()

    units = 0
    # A file has no deadline; without this, answers later than 160 ms are logged as late.
    with Session.open(arguments.bundle, world=arguments.world, deadline_ms=math.inf) as session:
        video = session.config.agent_video
        size, sample_rate = (video.height, video.width), session.config.audio.sample_rate
        with Mp4Writer(arguments.reply, FPS, size, sample_rate) as reply:
            # `stream` pushes at the pace at which the session answers, so no answer waits in line.
            for unit in session.stream(read_media(arguments.clip)):
                reply.write(unit.frames, unit.audio)
                print(f"{unit.start_ms / 1000:6.2f} s {unit.timing.latency_ms:5.0f} ms  {unit.state}  {unit.text}")
                units += 1
    print(f"{arguments.reply}: {units * UNIT_MS / 1000:.1f} s")


if __name__ == "__main__":
    main()
