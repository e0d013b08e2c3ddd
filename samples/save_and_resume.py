"""Save a conversation in the middle and resume it, as after a restart: the answers are the same, bit by bit.

    python samples/save_and_resume.py kiosk.wanedge

Prints `16 units in one go, 8 + 8 with a restart: the same`. Needs the extra cpu.
"""

import argparse
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from wanedge import AgentUnit, Model, Session
from wanedge.config import FPS, FRAMES_PER_UNIT

WORLD = "The guide's name is Anna."
UNITS = 16


def talk(session: Session, first: int, last: int) -> list[AgentUnit]:
    """Push units first to last - 1 of a reproducible user, and return the answers."""
    answers: list[AgentUnit] = []
    config = session.config
    for index in range(first, last):
        generator = np.random.default_rng(index)
        audio = 0.1 * generator.standard_normal(config.audio.samples, dtype=np.float32)
        size = (FRAMES_PER_UNIT, config.user_video.height, config.user_video.width, 3)
        session.push(audio=audio, video=generator.integers(0, 256, size, dtype=np.uint8), fps=FPS)
        while len(answers) < index - first + 1:
            answers += session.pull(timeout=1.0)
    return answers


def main() -> None:
    """Compare a conversation in one go with one that is saved and resumed in the middle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    model = Model.load(parser.parse_args().bundle)  # once; sessions share its weights

    with Session.open(model, world=WORLD, deadline_ms=math.inf) as session:
        whole = talk(session, 0, UNITS)
    with TemporaryDirectory() as folder:
        state = Path(folder) / "conversation.safetensors"
        with Session.open(model, world=WORLD, deadline_ms=math.inf) as session:
            parts = talk(session, 0, UNITS // 2)
            session.save(state)
        with Session.open(model, world=WORLD, state=state, deadline_ms=math.inf) as session:
            parts += talk(session, UNITS // 2, UNITS)
    same = all(
        np.array_equal(a.audio, b.audio) and np.array_equal(a.frames, b.frames) and a.tokens == b.tokens
        for a, b in zip(whole, parts, strict=True)
    )
    print(f"{UNITS} units in one go, 8 + 8 with a restart: {'the same' if same else 'different'}")
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
