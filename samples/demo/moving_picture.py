"""The README's moving picture: some seconds of the conversation, the user beside the agent, with the agent's words."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from samples.demo.run import DemoRun
from wanedge.atomic import staged_file
from wanedge.config import FPS, FRAMES_PER_UNIT, UNIT_MS
from wanedge.media import VideoChunk
from wanedge.media.files import read_media

SECONDS = 9
EVERY = 2  # frames: half the rate is smooth enough, and half the bytes
HEIGHT = 192  # px of both pictures
CAPTION = 30  # px below them
MARGIN = 6


def write_moving_picture(run: DemoRun, reply: Path, path: Path) -> None:
    """Write an animated WebP that begins a second before the agent first speaks. reply: the agent's video."""
    spoken = next((number for number, unit in enumerate(run.units) if unit.text.strip()), 0)
    first = max(0, spoken - 1000 // UNIT_MS)
    units = slice(first, first + SECONDS * 1000 // UNIT_MS)
    frames: list[Image.Image] = []
    words = ""
    pictures = [chunk.frames[0] for chunk in read_media(reply) if isinstance(chunk, VideoChunk)]
    for user, agent in zip(run.user_units[units], run.units[units], strict=True):
        words += agent.text
        at = agent.index * FRAMES_PER_UNIT
        frames += [
            _frame(user.frames[0], picture, _caption(words)) for picture in pictures[at : at + FRAMES_PER_UNIT : EVERY]
        ]
    with staged_file(path) as staged:
        frames[0].save(
            staged,
            format="WEBP",
            save_all=True,
            append_images=frames[1:],
            duration=1000 * EVERY // FPS,
            loop=0,
            quality=60,
            method=4,
        )


def _frame(user: NDArray[np.uint8], agent: NDArray[np.uint8], words: str) -> Image.Image:
    left, right = (_scaled(picture) for picture in (user, agent))
    whole = Image.new("RGB", (left.width + MARGIN + right.width, HEIGHT + CAPTION), "#14171c")
    whole.paste(left, (0, 0))
    whole.paste(right, (left.width + MARGIN, 0))
    font = ImageFont.load_default(size=16)
    ImageDraw.Draw(whole).text((left.width + MARGIN + 4, HEIGHT + 6), words, fill="#e6edf3", font=font)
    return whole


def _scaled(picture: NDArray[np.uint8]) -> Image.Image:
    height, width = picture.shape[:2]
    return Image.fromarray(picture).resize((width * HEIGHT // height, HEIGHT), Image.Resampling.BICUBIC)


def _caption(words: str) -> str:
    """The end of what was said, as many whole words as fit below the agent's picture; behaviours are seen there."""
    line = " ".join(re.sub(r"\([^)]*\)?", "", words).split())
    while len(line) > 36:
        _, _, line = line.partition(" ")
    return line
