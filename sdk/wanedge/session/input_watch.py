"""Whether a microphone and a camera still deliver, seen from the session they feed."""

from typing import Final

from wanedge.session.events import Events
from wanedge_runtimes.runtime import Array

NO_INPUT_S: Final = 2.0  # without a push: the device is in trouble
# One constant value for so long is a dead or muted microphone; those with a noise gate send that in every pause.
CONSTANT_SOUND_S: Final = 10.0


class InputWatch:
    """When sound and pictures last came, and what is said when those that are expected stay away."""

    def __init__(self, now: float, events: Events, expect: tuple[str, ...] = ("sound", "picture")) -> None:
        self._events, self._expect = events, expect
        self._opened = now
        self._audio = self._sound = self._picture = -1.0  # -1: never yet
        self._silent: dict[str, float] = {}  # what is missing now, since when

    def came(self, audio: Array | None, video: Array | None, now: float) -> None:
        """Take note of a push."""
        if audio is not None:
            self._audio = now
            if audio.flat[0] != audio.flat[-1] or audio.min() != audio.max():
                self._sound = now
                self._back("sound", now)
        if video is not None:
            self._picture = now
            self._back("picture", now)

    def watch(self, now: float) -> None:
        """Report once what has stayed away for too long."""
        heard = max(self._audio, self._opened)
        if self._audio >= 0 and now - heard < NO_INPUT_S:
            self._missing("sound", max(self._sound, self._opened), CONSTANT_SOUND_S, now, "the microphone is silent")
        else:
            self._missing("sound", heard, NO_INPUT_S, now, "no audio comes in")
        self._missing("picture", max(self._picture, self._opened), NO_INPUT_S, now, "no pictures come in")

    def since_sound_ms(self, now: float) -> float | None:
        return None if self._sound < 0 else (now - self._sound) * 1e3

    def since_picture_ms(self, now: float) -> float | None:
        return None if self._picture < 0 else (now - self._picture) * 1e3

    def _missing(self, what: str, last: float, after_s: float, now: float, message: str) -> None:
        if what in self._expect and now - last >= after_s and what not in self._silent:
            self._silent[what] = last
            since_ms = (now - last) * 1e3
            self._events.post(
                "input_silent", f"{message}: {since_ms / 1e3:.1f} s", input=what, since_ms=round(since_ms)
            )

    def _back(self, what: str, now: float) -> None:
        if (since := self._silent.pop(what, None)) is not None:
            message = f"{what} is back after {now - since:.1f} s"
            self._events.post("recovered", message, input=what, since_ms=round((now - since) * 1e3))
