"""A conversation to look at and listen to: python -m samples.kiosk.data.duplex --seed 3 --kind interruption"""

import argparse
from pathlib import Path
from typing import cast

import numpy as np

from samples.kiosk.data.duplex.guide import guide_audio, guide_video
from samples.kiosk.data.duplex.plot import write_script
from samples.kiosk.data.duplex.script import KINDS, Kind, Script
from samples.kiosk.data.duplex.timeline import timeline
from samples.kiosk.data.duplex.visitor import visitor_audio, visitor_video
from samples.kiosk.data.pictures.guide import HEIGHT
from samples.kiosk.data.speech.clip import SAMPLE_RATE
from samples.kiosk.data.speech.utterances import HEARD, Heard
from wanedge.config import FPS
from wanedge.media.mp4 import Mp4Writer

ENLARGED = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m samples.kiosk.data.duplex", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, default="conversation")
    parser.add_argument("--split", choices=HEARD, default="train")
    parser.add_argument("--units", type=int, default=125, help="of 160 ms")
    parser.add_argument("--out", type=Path, default=Path("out/kiosk/duplex"), help="folder for the MP4")
    given = parser.parse_args()
    script = write_script(cast(Heard, given.split), given.seed, given.units, cast(Kind, given.kind))
    print(timeline(script))
    given.out.mkdir(parents=True, exist_ok=True)
    name = f"{given.kind.replace(' ', '-')}-{given.split}-{given.seed}.mp4"
    print(film(given.out / name, script))


def film(path: Path, script: Script) -> Path:
    """Write the visitor beside the guide, both audible. Raises MediaFileError when the file can't be written."""
    seen, truth = visitor_video(script, HEIGHT, HEIGHT * 3 // 2)
    both = np.concatenate([seen, guide_video(script, truth)], axis=2)
    large = both.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    with Mp4Writer(path, FPS, large.shape[1:3], SAMPLE_RATE) as out:
        out.write(large, np.clip(visitor_audio(script) + guide_audio(script), -1.0, 1.0))
    return path


if __name__ == "__main__":
    main()
