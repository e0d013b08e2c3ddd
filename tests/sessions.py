"""Driving a session from a test."""

from tests.media import user_units
from wanedge.model import Model
from wanedge.session import Session
from wanedge.streaming import Streamer
from wanedge.units import AgentUnit

WORLD = "A bright lobby."
PATIENT_S = 60.0  # far beyond what any unit takes, even on a busy machine


def push_units(session: Session, count: int, first: int = 0) -> None:
    for user in user_units(session.config, count, first=first):
        session.push(audio=user.audio, video=user.frames)


def pull_all(session: Session) -> list[AgentUnit]:
    """Units up to the end of the input."""
    session.finish()
    units: list[AgentUnit] = []
    while not session.ended:
        units += session.pull(timeout=PATIENT_S)
    return units


def media(units: list[AgentUnit]) -> list[tuple[int, str, bytes, bytes]]:
    return [(u.index, u.text, u.audio.tobytes(), u.frames.tobytes()) for u in units]


def answers(model: Model, count: int) -> list[tuple[int, str, bytes, bytes]]:
    """Answers of the synchronous core to the same units."""
    streamer = Streamer(model, WORLD)
    return media([streamer.step(user) for user in user_units(model.config, count)])
