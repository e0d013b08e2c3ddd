"""Whether the guide's mouth follows its own voice: correlation of opening and loudness, and the lag between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.evaluation.record import Record
from samples.kiosk.evaluation.replies import Said
from samples.kiosk.evaluation.sound import sounds
from wanedge.config import FRAMES_PER_UNIT

NEAR: Final = 1  # frames by which a mouth may be off and still be in time
FAR: Final = 6  # frames of lag that are looked at
MARGIN: Final = 1  # units around a reply, in which the mouth opens and closes
_FLAT: Final = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sync:
    """correlation: the best within NEAR frames of lag. lag: frames at which it is best within FAR; positive: late."""

    correlation: float
    lag: int


def sync(record: Record, reply: Said) -> Sync | None:
    """Lip-sync of a reply; None where nothing sounds. A mouth that does not move has a correlation of 0."""
    if not any(sounds(level) for level in record.level_dbfs[reply.first : reply.end]):
        return None
    first = max(0, reply.first - MARGIN) * FRAMES_PER_UNIT
    end = min(record.units, reply.end + MARGIN) * FRAMES_PER_UNIT
    mouth, voice = (np.asarray(values[first:end], np.float64) for values in (record.mouth, record.envelope))
    found = {lag: _at(mouth, voice, lag) for lag in range(-FAR, FAR + 1)}
    near = max(found[lag] for lag in range(-NEAR, NEAR + 1))
    return Sync(near, max(found, key=lambda lag: (found[lag], -abs(lag))))


def _at(mouth: Floats, voice: Floats, lag: int) -> float:
    """Correlation of the mouth with the voice `lag` frames before."""
    if lag >= 0:
        mouth, voice = mouth[lag:], voice[: voice.size - lag]
    else:
        mouth, voice = mouth[:lag], voice[-lag:]
    if mouth.size < 2 or mouth.std() < _FLAT or voice.std() < _FLAT:
        return 0.0
    return float(np.corrcoef(mouth, voice)[0, 1])
