"""What the demo streams: the kiosk guide if its weights are shipped, else random ones. The report says which."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from samples.demo.run import Transcript
from wanedge_runtimes.errors import InputError

ROOT = Path(__file__).parents[2]
MEDIA = ROOT / "samples" / "media"
WEIGHTS = ROOT / "samples" / "kiosk" / "weights" / "kiosk-tiny.safetensors"


@dataclass(frozen=True)
class Scene:
    """A model and what it is shown. weights: None for random ones, and then sha256 is None too."""

    model: Literal["kiosk-tiny", "random"]
    weights: Path | None
    sha256: str | None
    clip: Path
    world: str


def scene(weights: Path = WEIGHTS) -> Scene:
    """The scene that this checkout can play. Raises InputError when weights are there and are not the shipped ones."""
    if not weights.exists():
        return Scene("random", None, None, MEDIA / "visitor.mp4", "A bright lobby. The guide is friendly.")
    clip = MEDIA / "kiosk-visitor.mp4"
    world = Transcript.read(clip.with_suffix(".json")).world
    if world is None:
        raise InputError(
            f"{clip.with_suffix('.json').name} tells no world text",
            hint="run: python -m samples.kiosk.data.make_kiosk_clip",
        )
    return Scene("kiosk-tiny", weights, _verified(weights), clip, world)


def _verified(weights: Path) -> str:
    """The weights' SHA-256, which the file beside them also tells."""
    about = weights.with_suffix(".json")
    try:
        told = json.loads(about.read_text("utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{about.name} does not tell the SHA-256 of {weights.name} ({error})", hint=f"git checkout {about.name}"
        ) from error
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != told:
        raise InputError(
            f"{weights.name} is damaged: its SHA-256 is {found[:12]}..., and {about.name} says {str(told)[:12]}...",
            hint="get it again: git checkout -- samples/kiosk/weights",
        )
    return found
