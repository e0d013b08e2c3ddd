"""Frames of any size become frames of the model's size."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wanedge.media.errors import MediaError

# Pillow may first shrink by a whole factor that leaves this much for the exact filter: more than twice as fast
# on a camera's frame as the exact filter alone.
_REDUCING_GAP = 1.5


def check_frames(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """`frames` [H, W, 3] or [n, H, W, 3] as [n, H, W, 3], without a copy.

    Raises:
        MediaError: not an array, not uint8, another shape, or no frame or no pixel in it.
    """
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        kind = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
        raise MediaError(f"video is {kind}", hint="push numpy uint8 RGB frames with values 0..255")
    if frames.ndim not in (3, 4) or frames.shape[-1] != 3:
        raise MediaError(
            f"video has shape {list(frames.shape)}",
            hint="push RGB frames as [H, W, 3] or [n, H, W, 3]; drop an alpha channel with frames[..., :3]",
        )
    if frames.size == 0:
        raise MediaError(f"video has shape {list(frames.shape)}: no pixels", hint="push at least one frame, or nothing")
    return frames if frames.ndim == 4 else frames[None]


def fit(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A copy of `image` [H, W, 3] at [height, width, 3]: centre crop to the aspect, then resize.

    Shrinking averages the area under each pixel (box filter); enlarging is bilinear. An image that already has the
    size is only copied: the caller may reuse its memory.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image.copy()
    scale = min(rows / height, columns / width)  # source pixels per target pixel
    top, left = (rows - scale * height) / 2, (columns - scale * width) / 2
    resized = Image.fromarray(image).resize(
        (width, height),
        Image.Resampling.BOX if scale > 1 else Image.Resampling.BILINEAR,
        box=(max(left, 0), max(top, 0), min(columns - left, columns), min(rows - top, rows)),
        reducing_gap=_REDUCING_GAP,
    )
    return np.asarray(resized)
