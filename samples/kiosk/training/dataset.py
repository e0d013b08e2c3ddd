"""Conversations made once and read many times: what the sequence stages train on.

    python -m samples.kiosk.training.dataset draw      # scripts, sound and pictures: needs no weights
    python -m samples.kiosk.training.dataset draw --first 10000 --count 400 --no-face    # natural voices, to listen to
    python -m samples.kiosk.training.dataset encode    # tokens and latents by the frozen encoders

A folder `out/kiosk/dataset`, a pair of files a conversation. Both commands go on where they were.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Final, Self

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track

from samples.kiosk.data.duplex.media import guide_audio, guide_thoughts, guide_video, visitor_audio, visitor_video
from samples.kiosk.data.duplex.plot import write_script
from samples.kiosk.data.duplex.script import KINDS, REPLY_DELAY_UNITS, Kind, Script, script_stream
from samples.kiosk.data.speech.acoustics import through_microphone
from samples.kiosk.data.speech.clip import Samples, as_int16
from samples.kiosk.data.speech.utterances import Heard
from samples.kiosk.tools import OUT
from samples.kiosk.training.audio_encoder import COLOURED_SHARE, hear
from samples.kiosk.training.guide_media import moved_forward
from wanedge.config import TINY, ModelConfig
from wanedge.text import Tokenizer
from wanedge_export.model import ReferenceModel
from wanedge_export.tokenizer import LOBBY

DATASET: Final = OUT / "dataset"
UNITS: Final = 100  # 16 s
# How often each kind comes: mostly talk, and enough of what must not be answered.
MIX: Final[tuple[Kind, ...]] = (
    "conversation", "interruption", "conversation", "two questions", "false start",
    "conversation", "arrival", "interruption", "conversation", "empty", "two questions", "long silence",
)  # fmt: skip
NATURAL_FROM: Final = 10_000  # from this number on the visitors have Kokoro's voices
ENCODED_AT_ONCE: Final = 25  # units: memory stays small

assert set(MIX) == set(KINDS)
app = typer.Typer(add_completion=False, help=__doc__)


@dataclass(frozen=True)
class Drawn:
    """A conversation's media and labels. K units.

    pcm: int16 [K * samples], what the microphone hears. camera: uint8 [4K, h, w, 3]. voice: float16 [K * samples], the
    guide. face: uint8 [4K, H, W, 3], the guide; [0, H, W, 3] where only listening is trained. states: [K].
    texts: [K, slots]. quiet: [K], nothing is being said or is still to be answered. world: [P].
    """

    pcm: NDArray[np.int16]
    camera: NDArray[np.uint8]
    voice: NDArray[np.float16]
    face: NDArray[np.uint8]
    states: NDArray[np.int64]
    texts: NDArray[np.int64]
    quiet: NDArray[np.bool_]
    world: NDArray[np.int64]


@dataclass(frozen=True)
class Encoded:
    """The same as the backbone meets it, float16 where not an id.

    heard: [K, Na, D]. seen: [K, Nv, D]. audio: [K, Na, La] and video: [K, Nv, Lv], the guide's latents, or [0, ...].
    """

    heard: NDArray[np.float16]
    seen: NDArray[np.float16]
    audio: NDArray[np.float16]
    video: NDArray[np.float16]
    states: NDArray[np.int64]
    texts: NDArray[np.int64]
    quiet: NDArray[np.bool_]
    world: NDArray[np.int64]

    @classmethod
    def read(cls, path: Path) -> Self:
        with np.load(path) as stored:
            return cls(**{f.name: stored[f.name] for f in fields(cls)})


def script_of(number: int) -> Script:
    """The dataset's conversation `number`, with training's voices."""
    split: Heard = "train" if number < NATURAL_FROM else "natural"
    return write_script(split, number, UNITS, MIX[number % len(MIX)])


def drawn(script: Script, tokenizer: Tokenizer, config: ModelConfig, face: bool) -> Drawn:
    """Everything of a script, drawn."""
    camera, truth = visitor_video(script, config.user_video.height, config.user_video.width)
    states, texts = guide_thoughts(script, truth, tokenizer, config.text.agent_slots)
    shape = (0, config.agent_video.height, config.agent_video.width, 3)
    return Drawn(
        pcm=as_int16(_microphone(script)),
        camera=camera,
        voice=guide_audio(script).astype(np.float16),
        face=guide_video(script, truth) if face else np.zeros(shape, np.uint8),
        states=states,
        texts=texts,
        quiet=quiet_units(script),
        world=np.array(tokenizer.encode_world(script.world.text, config.prefill)),
    )


def _microphone(script: Script) -> Samples:
    """Sound heard [K * samples]; natural voices through all kinds of microphones, as the audio encoder met them."""
    pcm = visitor_audio(script)
    rng = script_stream(script.split, script.seed, script.kind, "microphone")
    coloured = script.split == "natural" and rng.random() < COLOURED_SHARE
    return np.clip(through_microphone(rng, pcm), -1, 1) if coloured else pcm


def quiet_units(script: Script) -> NDArray[np.bool_]:
    """[K]: where a crop may begin without losing what its labels depend on."""
    quiet = np.ones(script.units, dtype=np.bool_)
    for phrase in script.phrases:
        quiet[phrase.first_unit : phrase.last_unit + REPLY_DELAY_UNITS + 1] = False
    for reply in script.replies:
        asked = reply.text_unit if reply.phrase is None else script.phrases[reply.phrase].first_unit
        quiet[max(0, min(asked, reply.text_unit - REPLY_DELAY_UNITS)) : reply.end_unit + 1] = False
    return quiet


@torch.no_grad()
def encoded(model: ReferenceModel, media: Drawn) -> Encoded:
    """By the model's encoders; latents are the means."""
    config = model.config
    audio = torch.zeros(0, config.audio.tokens, config.audio.latent)
    video = torch.zeros(0, config.agent_video.tokens, config.agent_video.latent)
    if len(media.face):
        voice = torch.from_numpy(moved_forward(media.voice.astype(np.float32), config.audio))[None]
        audio = model.audio_vae_encoder({"pcm": voice}, {})[0]["mean"]
        video = _by_parts(model.video_vae_encoder, media.face, "mean")

    return Encoded(
        heard=heard_by(model, media.pcm),
        seen=seen_by(model, media.camera),
        audio=_half(audio, config.audio.tokens),
        video=_half(video, config.agent_video.tokens),
        states=media.states,
        texts=media.texts,
        quiet=media.quiet,
        world=media.world,
    )


@torch.no_grad()
def heard_by(model: ReferenceModel, pcm: NDArray[np.int16]) -> NDArray[np.float16]:
    """The user audio tokens [K, Na, D] of a conversation's pcm [K * samples]."""
    samples = torch.from_numpy(pcm.astype(np.float32) / 32768.0)[None]
    return _half(hear(model.audio_encoder, model.config, samples), model.config.audio.tokens)


@torch.no_grad()
def seen_by(model: ReferenceModel, camera: NDArray[np.uint8]) -> NDArray[np.float16]:
    """The user video tokens [K, Nv, D] of a conversation's pictures [4K, h, w, 3]."""
    return _half(_by_parts(model.video_encoder, camera, "tokens"), model.config.user_video.tokens)


def _half(x: torch.Tensor, tokens: int) -> NDArray[np.float16]:
    return np.asarray(x.reshape(-1, tokens, x.shape[-1]).half().numpy())


def _by_parts(reader: torch.nn.Module, frames: NDArray[np.uint8], name: str) -> torch.Tensor:
    """A frame reader over a whole clip, some units at a time with its state: [1, K * tokens, width]."""
    state: dict[str, torch.Tensor] = {}
    parts = []
    for first in range(0, len(frames), 4 * ENCODED_AT_ONCE):
        some = torch.from_numpy(frames[first : first + 4 * ENCODED_AT_ONCE])[None]
        out, state = reader({"frames": some}, state)
        parts.append(out[name])
    return torch.cat(parts, dim=1)


@app.command()
def draw(
    first: Annotated[int, typer.Option(help="Number of the first conversation.")] = 0,
    count: Annotated[int, typer.Option(help="How many.")] = 300,
    face: Annotated[bool, typer.Option(help="Draw the guide too; without, only listening can be trained.")] = True,
) -> None:
    """Draw conversations."""
    tokenizer = Tokenizer(LOBBY, TINY)
    for number in track(range(first, first + count), "draw"):
        path = DATASET / f"{number:06d}.drawn.npz"
        if not path.exists():
            _write(path, drawn(script_of(number), tokenizer, TINY, face))


@app.command()
def encode(
    weights: Annotated[Path, typer.Argument(help="The assembled encoders, safetensors.")] = OUT
    / "encoders.safetensors",
    first: Annotated[int, typer.Option(help="Number of the first conversation.")] = 0,
    count: Annotated[int, typer.Option(help="How many; several processes can share the work.")] = 1_000_000,
    heard_only: Annotated[
        bool, typer.Option(help="Only what is heard, again: the audio encoder was trained further.")
    ] = False,
) -> None:
    """Encode every drawn conversation that is not encoded yet."""
    model = ReferenceModel.load(TINY, weights)
    torch.set_num_threads(1)
    among = [path for path in sorted(DATASET.glob("*.drawn.npz")) if first <= int(path.name[:6]) < first + count]
    for path in track(among, "encode"):
        target = path.with_name(path.name.replace("drawn", "encoded"))
        if target.exists() and not heard_only:
            continue
        with np.load(path) as stored:
            if target.exists():
                _write(target, replace(Encoded.read(target), heard=heard_by(model, stored["pcm"])))
            else:
                _write(target, encoded(model, Drawn(**{f.name: stored[f.name] for f in fields(Drawn)})))


def conversations() -> Iterator[Encoded]:
    """Every encoded conversation, in order."""
    for path in sorted(DATASET.glob("*.encoded.npz")):
        yield Encoded.read(path)


def _write(path: Path, content: Drawn | Encoded) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **{f.name: getattr(content, f.name) for f in fields(content)})
    os.replace(part, path)  # noqa: PTH105  # atomic on every system


if __name__ == "__main__":
    app()
