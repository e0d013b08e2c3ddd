"""Scene of the demo: the kiosk guide and its clip where its weights are shipped, else random weights and a clip."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import FiniteFloat, ValidationError

from wanedge_runtimes.errors import InputError
from wanedge_runtimes.strict import Strict

ROOT = Path(__file__).parents[2]
MEDIA = ROOT / "samples" / "media"
WEIGHTS = ROOT / "samples" / "kiosk" / "weights" / "kiosk-tiny.safetensors"
SEED = 0


@dataclass(frozen=True)
class Scene:
    """A model and what it is shown. weights: None for random ones, and then sha256 is None too."""

    model: Literal["kiosk-tiny", "random"]
    weights: Path | None
    sha256: str | None
    clip: Path
    world: str


class Said(Strict):
    """Words of the visitor and when they are heard, in seconds of the clip. due: the right reply, if there is one."""

    start_s: FiniteFloat
    end_s: FiniteFloat
    words: str
    speaker: str
    due: str = ""


class Transcript(Strict):
    """The words of a clip; samples/media/visitor.json.

    credit: authors and licence of the clip. world: the world text that belongs to it; None for any.
    """

    clip: str
    seconds: FiniteFloat
    language: str
    credit: str
    world: str | None = None
    said: tuple[Said, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The transcript in a file. InputError when it cannot be used."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(
                f"{path} is not a transcript: {error}", hint="get it again: git checkout -- samples/media"
            ) from error


def scene(weights: Path = WEIGHTS) -> Scene:
    """The scene that this checkout can play. Raises InputError when weights are there and are not the shipped ones."""
    if not weights.exists():
        return Scene("random", None, None, MEDIA / "visitor.mp4", "A bright lobby. The guide is friendly.")
    clip = MEDIA / "kiosk-visitor.mp4"
    world = Transcript.read(clip.with_suffix(".json")).world
    if world is None:
        raise InputError(
            f"{clip.with_suffix('.json').name} has no world text",
            hint="run: python -m samples.kiosk.data.make_kiosk_clip",
        )
    return Scene("kiosk-tiny", weights, _verified(weights), clip, world)


def _verified(weights: Path) -> str:
    """The weights' SHA-256, which the file beside them states too."""
    about = weights.with_suffix(".json")
    try:
        expected = json.loads(about.read_text("utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{about.name} has no SHA-256 of {weights.name} ({error})", hint=f"git checkout {about.name}"
        ) from error
    actual = hashlib.sha256(weights.read_bytes()).hexdigest()
    if actual != expected:
        raise InputError(
            f"{weights.name} is damaged: SHA-256 {actual[:12]}..., and {about.name} says {str(expected)[:12]}...",
            hint="get it again: git checkout -- samples/kiosk/weights",
        )
    return actual
