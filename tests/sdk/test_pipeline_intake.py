"""What a pipeline's inputs hold is bounded, also where one of them stays away."""

import numpy as np
import pytest

from wanedge.pipeline.config import Pipeline, Port, Step
from wanedge.session.events import Events
from wanedge.session.exchange import Exchange, choose_limits
from wanedge.session.intake import Push, Rates
from wanedge.session.pipeline_intake import PipelineIntake
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.runtime import Array

RATES: Rates = {"sample_rate": None, "fps": None, "pixel_format": "rgb"}
SOUND = Port(type="audio", dtype="float32", shape=(80,), sample_rate=8000)
PICTURE = Port(type="frames", dtype="uint8", shape=(1, 4, 6, 3))
TENSOR = Port(type="tensor", dtype="float32", shape=(2,))
WAITING = 4


def intake(**inputs: Port) -> tuple[PipelineIntake, Exchange]:
    """The input side of a live session of 10 ms units; whatever it queues stays there."""
    step = Step(component="all", takes={name: name for name in inputs}, gives={"out": "y"})
    pipeline = Pipeline(name="p", unit_ms=10, inputs=inputs, outputs={"y": TENSOR}, steps=(step,))
    exchange = Exchange(choose_limits(True, 1_000.0, WAITING, None, None, 10), Events())
    return PipelineIntake(pipeline, exchange, Events()), exchange


def sound(units: int = 1) -> Push:
    return Push(np.full(80 * units, 0.1, np.float32), None, None, None, RATES)


def tensor(values: Array) -> Push:
    return Push(None, None, None, None, RATES, {"x": values})


def test_pictures_that_stay_away_are_not_waited_for_without_end() -> None:
    intake_, _ = intake(sound=SOUND, picture=PICTURE)
    for _ in range(50):
        intake_.push(sound())
    stats = intake_.stats
    assert stats.units == stats.filled_frames == 50 - WAITING
    intake_.push(Push(None, np.full((4, 6, 3), 9, np.uint8), None, None, RATES))
    assert intake_.stats.units == 50 - WAITING + 1


def test_sound_that_runs_ahead_of_a_tensor_is_refused_and_goes_on_when_that_comes() -> None:
    intake_, _ = intake(sound=SOUND, x=TENSOR)
    intake_.push(sound(WAITING))
    with pytest.raises(InputError, match="4 units wait for the input 'x', which was not pushed"):
        intake_.push(sound())
    assert intake_.stats.pushed_samples == 80 * WAITING
    intake_.push(tensor(np.zeros((WAITING, 2), np.float32)))
    assert intake_.stats.units == WAITING
    intake_.push(sound())


def test_a_tensor_that_runs_ahead_of_sound_gets_silence() -> None:
    intake_, _ = intake(sound=SOUND, x=TENSOR)
    for _ in range(20):
        intake_.push(tensor(np.zeros(2, np.float32)))
    assert intake_.stats.units == 20 - WAITING
    assert intake_.stats.filled_samples == 80 * (20 - WAITING)
