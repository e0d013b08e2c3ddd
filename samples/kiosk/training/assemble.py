"""From the stages' checkpoints to one model: averaged weights, and latents of mean 0 and spread 1.

    python -m samples.kiosk.training.assemble encoders out/kiosk/encoders.safetensors    # before the backbone's stage
    python -m samples.kiosk.training.assemble ship                                       # after it
    python -m samples.kiosk.training.assemble mean ONE OTHER                             # of two rounds

The flow starts from noise of spread 1, so each latent channel is brought to that scale by changing the encoder's last
and the decoder's first layer; the graphs stay as they are.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import typer
from torch import Tensor, nn

from samples.kiosk.tools import OUT
from samples.kiosk.training.audio_encoder import AudioEncoderWithHeads
from samples.kiosk.training.audio_vae import AudioVae, load_voices
from samples.kiosk.training.duplex import MOVED
from samples.kiosk.training.guide_media import HELD_OUT_CLIPS, guide_clip
from samples.kiosk.training.loop import take_average
from samples.kiosk.training.video_encoder import VideoEncoderWithHead
from samples.kiosk.training.video_vae import VideoVae
from wanedge.commands import report_errors
from wanedge.config import TINY
from wanedge_export.model import ReferenceModel

SHIPPED: Final = Path(__file__).parents[1] / "weights"
SPEECH_S: Final = 120  # of the guide's voice, for the latents' scale
CLIPS: Final = 40


app = typer.Typer(add_completion=False, help=__doc__)
Folder = Annotated[Path, typer.Option(help="The stages' checkpoints.")]
CHECKPOINTS: Final = OUT / "training"


@app.command()
def encoders(
    path: Annotated[Path, typer.Argument(help="Where the weights go.")] = OUT / "encoders.safetensors",
    folder: Folder = CHECKPOINTS,
) -> None:
    """Codecs and senses as the backbone's stage meets them, float32; the backbone is seeded."""
    with report_errors():
        model = ReferenceModel(TINY)
        with torch.no_grad():
            take_codecs(model, folder)
        take_senses(model, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@app.command()
def senses(
    path: Annotated[Path, typer.Argument(help="Where the weights go.")] = OUT / "encoders.safetensors",
    weights: Annotated[Path, typer.Option(help="A whole model, as shipped.")] = SHIPPED / "kiosk-tiny.safetensors",
    stage: Annotated[
        str, typer.Option(help="The stage that trained the audio encoder last.")
    ] = "audio-encoder-further",
    folder: Folder = CHECKPOINTS,
) -> None:
    """A whole model with an audio encoder that was trained further, float32: its backbone goes on from where it was."""
    with report_errors():
        model = ReferenceModel.load(TINY, weights)
        take_audio_encoder(model, folder, stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@app.command()
def ship(
    weights: Annotated[Path, typer.Option(help="What `encoders` wrote, on which the backbone was trained.")] = OUT
    / "encoders.safetensors",
    folder: Folder = CHECKPOINTS,
    stage: Annotated[str, typer.Option(help="The stage that trained the backbone last.")] = "duplex-further",
    out: Annotated[Path, typer.Option(help="Where the shipped files go.")] = SHIPPED,
) -> None:
    """The whole model in float16 with its SHA-256 beside it."""
    with report_errors():
        model = ReferenceModel.load(TINY, weights)
        take_backbone(model, folder, stage)
        _ship(model, out)


@app.command()
def mean(
    one: Annotated[Path, typer.Argument(help="A whole model.")],
    other: Annotated[Path, typer.Argument(help="One that was trained further from it.")],
    out: Annotated[Path, typer.Option(help="Where the shipped files go.")] = SHIPPED,
) -> None:
    """The mean of two models' weights, in float16: what both know, and less of what each has by chance.

    As model soups (Wortsman et al., 2022): it needs networks that are still near each other.
    """
    with report_errors():
        model, second = ReferenceModel.load(TINY, one), ReferenceModel.load(TINY, other).state_dict()
        # Apart from the model first: tied tensors have two names, and would take half of the other twice.
        model.load_state_dict({name: (tensor + second[name]) / 2 for name, tensor in model.state_dict().items()})
        _ship(model, out)


def _ship(model: ReferenceModel, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "kiosk-tiny.safetensors"
    model.save(path, torch.float16)
    about = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "model": TINY.name, "dtype": "float16"}
    path.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {about['sha256']}")


def averaged(module: nn.Module, checkpoint: Path) -> nn.Module:
    """`module` with the averaged weights of a stage. Raises InputError when the stage was not trained."""
    take_average(module, checkpoint)
    return module.eval()


def take_codecs(model: ReferenceModel, folder: Path) -> None:
    """Both VAEs, their latents scaled. Not to be differentiated."""
    audio = AudioVae(model.config.audio)
    averaged(audio, folder / "audio-vae" / "last.pt")
    video = VideoVae(model.config.agent_video)
    averaged(video, folder / "video-vae" / "last.pt")
    scale_latents(audio.encoder.out, audio.decoder.inp, _audio_means(audio))
    scale_latents(video.encoder.out, video.decoder.inp, _video_means(video))
    model.audio_vae_encoder.load_state_dict(audio.encoder.state_dict())
    model.audio_decoder.load_state_dict(audio.decoder.state_dict())
    model.video_vae_encoder.load_state_dict(video.encoder.state_dict())
    model.video_decoder.load_state_dict(video.decoder.state_dict())


def take_senses(model: ReferenceModel, folder: Path) -> None:
    """The audio and the video encoder, without the heads that taught them."""
    take_audio_encoder(model, folder)
    video_encoder = VideoEncoderWithHead(model.config)
    averaged(video_encoder, folder / "video-encoder" / "last.pt")
    model.video_encoder.load_state_dict(video_encoder.encoder.state_dict())


def take_audio_encoder(model: ReferenceModel, folder: Path, stage: str = "audio-encoder") -> None:
    audio_encoder = AudioEncoderWithHeads(model.config)
    averaged(audio_encoder, folder / stage / "last.pt")
    model.audio_encoder.load_state_dict(audio_encoder.encoder.state_dict())


def take_backbone(model: ReferenceModel, folder: Path, stage: str = "duplex") -> None:
    """Take the parts that the duplex stages train."""
    parts = nn.ModuleDict({name: getattr(model, name) for name in MOVED})
    averaged(parts, folder / stage / "last.pt")


def scale_latents(out: nn.Linear | nn.Conv2d, inp: nn.Linear | nn.Conv2d, latents: Tensor) -> None:
    """Change an encoder's last layer so that `latents` [n, L] would have mean 0 and spread 1, and the decoder's first
    so that nothing else changes. The encoder's second half of outputs is the log-variance; a decoder may take several
    units' latents side by side, each L wide. A convolution that pads sees zeros beyond the picture's edge, which after
    the change mean the channels' average instead of zero: the edge's few tokens are made slightly otherwise.
    """
    centre, spread = latents.mean(dim=0), latents.std(dim=0)
    width = len(centre)
    shape = (-1,) + (1,) * (out.weight.ndim - 1)
    assert out.bias is not None
    assert inp.bias is not None
    out.weight[:width] /= spread.view(shape)
    out.bias[:width] = (out.bias[:width] - centre) / spread
    out.bias[width:] -= 2 * spread.log()
    times = inp.weight.shape[1] // width
    across = (1, -1) + (1,) * (inp.weight.ndim - 2)
    inp.bias += (inp.weight * centre.repeat(times).view(across)).flatten(1).sum(dim=1)
    inp.weight *= spread.repeat(times).view(across)


def _audio_means(vae: AudioVae) -> Tensor:
    pcm = _joined(load_voices().train["guide"])
    return vae.encode(torch.from_numpy(pcm)[None])[0][0]


def _joined(clips: Iterable[np.ndarray[Any, np.dtype[np.float32]]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """SPEECH_S seconds of clips, a fifth of a second of silence between them, in whole units."""
    gap = np.zeros(3200, np.float32)
    parts = [part for clip in clips for part in (clip, gap)]
    return np.concatenate(parts)[: SPEECH_S * 16_000 // 2560 * 2560]


def _video_means(vae: VideoVae) -> Tensor:
    frames = [guide_clip(HELD_OUT_CLIPS + number) for number in range(CLIPS)]
    return torch.cat([vae.encode(torch.from_numpy(clip)[None])[0][0] for clip in frames])


if __name__ == "__main__":
    app()
