"""Run several conversations on one model: the weights are loaded once, every session has its own state.

    python samples/several_sessions.py kiosk.wanedge samples/media/kiosk-visitor.mp4 --sessions 2

Prints one line for each session: its number, its units and its median latency. Needs the extras cpu and media.
"""

import argparse
import math
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from wanedge import Model, Session
from wanedge.media.files import read_media


def converse(model: Model, clip: str, number: int) -> str:
    """Stream the clip through a session of its own."""
    with Session.open(model, world="The guide's name is Anna.", seed=number, deadline_ms=math.inf) as session:
        latencies = [unit.timing.latency_ms for unit in session.stream(read_media(clip))]
    return f"session {number}: {len(latencies)} units, median latency {median(latencies):.0f} ms"


def main() -> None:
    """Parse the command line and converse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("clip")
    parser.add_argument("--sessions", type=int, default=2)
    arguments = parser.parse_args()
    model = Model.load(arguments.bundle)
    with ThreadPoolExecutor(arguments.sessions) as pool:
        for line in pool.map(lambda n: converse(model, arguments.clip, n), range(arguments.sessions)):
            print(line)


if __name__ == "__main__":
    main()
