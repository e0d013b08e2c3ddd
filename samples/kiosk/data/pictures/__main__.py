"""Contact sheets and short films of everything that is drawn, to be looked at by a person.

python -m samples.kiosk.data.pictures --out out/kiosk/sheet
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samples.kiosk.data.pictures.animation import BEHAVIOURS, Cue, Mouth, Scene, animate, mouth_from_pcm
from samples.kiosk.data.pictures.footage import footage
from samples.kiosk.data.pictures.guide import FPS, draw_guide
from samples.kiosk.data.pictures.visitors import HEIGHT, WIDTH, Direction, Visit, VisitorScript, visitor_clip
from wanedge.media.chunks import AudioChunk
from wanedge.media.files import read_media
from wanedge.media.mp4 import Mp4Writer

Frames = NDArray[np.uint8]

ENLARGED = 2  # a sheet's pictures, so that they can be judged without a magnifier
COLUMNS = 6
RATE = 16_000
CLIP = Path(__file__).parents[3] / "media" / "visitor.mp4"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m samples.kiosk.data.pictures", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/kiosk/sheet"), help="folder for PNGs and MP4s")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for path in make_sheets(options.out, options.seed):
        print(path)


def make_sheets(out: Path, seed: int = 1) -> Iterator[Path]:
    """Write a PNG and an MP4 for each behaviour of the guide and for visitors; yields each path when it is written."""
    out.mkdir(parents=True, exist_ok=True)
    for name, frames in _films(seed):
        yield _film(out / f"{name}.mp4", frames)
        picked = np.linspace(0, len(frames) - 1, 4 * COLUMNS).astype(int)
        yield _sheet(out / f"{name}.png", frames[picked], COLUMNS)
    yield _sheet(out / "visitors.png", _many_visitors(seed), 8)
    big = draw_guide(animate(_scenes()["attending"], seed)[60:61], 4 * HEIGHT, 4 * WIDTH)
    yield _sheet(out / "guide-large.png", big, 1)


def _films(seed: int) -> Iterator[tuple[str, Frames]]:
    for name, scene in _scenes().items():
        yield f"guide-{name.replace(' ', '-')}", draw_guide(animate(scene, seed))
    for come, go in (("left", "right"), ("right", "left"), ("ahead", "ahead")):
        script = VisitorScript((Visit(15, 170, cast(Direction, come), cast(Direction, go)),), _babble(250))
        yield f"visitor-from-{come}", visitor_clip(seed, 250, script)[0]
    behind = footage(CLIP, 250)
    yield "visitor-on-footage", visitor_clip(seed, 250, VisitorScript((Visit(15, 170),)), background=behind)[0]


def _scenes() -> dict[str, Scene]:
    frames = 125
    here = Scene.idle(frames).with_(visitor_x=0.1)
    across = np.linspace(-0.9, 0.9, frames).astype(np.float32)
    across[:25] = np.nan
    scenes = {
        "idle": Scene.idle(2 * frames),
        "attending": Scene.idle(frames).with_(visitor_x=across),
        "listening": here.with_(listening=np.arange(frames) > 10),
        "speaking": here.with_(mouth=_spoken(frames)),
    }
    return scenes | {name: here.with_(cues=(Cue(20, name),)) for name in BEHAVIOURS}


def _spoken(frames: int) -> Mouth:
    """The mouth for the shipped clip's first sentences."""
    heard = [chunk for chunk in read_media(CLIP) if isinstance(chunk, AudioChunk)]
    pcm = np.concatenate([np.asarray(chunk.pcm, np.float32).mean(axis=1) for chunk in heard])
    mouth = mouth_from_pcm(pcm, heard[0].sample_rate)
    return Mouth(mouth.opening[15 : 15 + frames], mouth.width[15 : 15 + frames])


def _babble(frames: int) -> NDArray[np.float32]:
    """Speech activity in the middle of a clip, four syllables a second."""
    now = np.arange(frames)
    voiced = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * now / FPS)
    return np.where((now > 80) & (now < 160), voiced, 0).astype(np.float32)


def _many_visitors(seed: int) -> Frames:
    """One frame each of many people in many lobbies."""
    script = VisitorScript((Visit(0),), _babble(100))
    return np.stack([visitor_clip(seed + number, 100, script)[0][95] for number in range(48)])


def _film(path: Path, frames: Frames) -> Path:
    enlarged = frames.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    with Mp4Writer(path, FPS, enlarged.shape[1:3], RATE) as film:
        film.write(enlarged, np.zeros(len(frames) * RATE // FPS, np.float32))
    return path


def _sheet(path: Path, frames: Frames, columns: int) -> Path:
    rows = [np.concatenate(list(frames[at : at + columns]), axis=1) for at in range(0, len(frames), columns)]
    picture = Image.fromarray(np.concatenate(rows))
    zoom = ENLARGED if columns > 1 else 1
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(path)
    return path


if __name__ == "__main__":
    main()
