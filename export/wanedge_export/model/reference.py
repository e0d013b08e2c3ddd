"""The reference model: every component, one seed, one weights file."""

from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from wanedge.config import ModelConfig
from wanedge.ring import audio_encoder_ring
from wanedge_export.component import Component
from wanedge_export.model.audio import AudioDecoder, AudioEncoder, AudioVaeEncoder
from wanedge_export.model.backbone import Backbone
from wanedge_export.model.flow import FlowIn, FlowOut
from wanedge_export.model.text import TextEmbed, TextHead
from wanedge_export.model.video import VideoDecoder, VideoEncoder, VideoVaeEncoder
from wanedge_runtimes.errors import WanEdgeError


class WeightsError(WanEdgeError):
    """A weights file does not belong to this model configuration."""


class ReferenceModel(nn.Module):
    """All components of one configuration, seeded.

    Args:
        config: see wanedge.config.PRESETS.
        seed: of the initialisation; the same seed gives the same bytes.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.audio_encoder = AudioEncoder(config.audio, config.backbone, audio_encoder_ring(config))
            self.video_encoder = VideoEncoder(config.user_video, config.backbone.width)
            self.text_embed = TextEmbed(config)
            self.backbone = Backbone(config)
            self.text_head = TextHead(config, self.text_embed.table)
            self.flow_in = FlowIn(config)
            self.flow_out = FlowOut(config)
            self.audio_decoder = AudioDecoder(config.audio)
            self.video_decoder = VideoDecoder(config.agent_video)
            self.audio_vae_encoder = AudioVaeEncoder(config.audio)
            self.video_vae_encoder = VideoVaeEncoder(config.agent_video)
            for module in self.modules():
                if isinstance(module, nn.Embedding):
                    nn.init.normal_(module.weight, std=config.backbone.width**-0.5)
        self.eval()

    def components(self) -> dict[str, Component]:
        """Every component by the name it has in a bundle."""
        parts = {name: child for name, child in self.named_children() if isinstance(child, Component)}
        return {child.spec().component: child for child in parts.values()}

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the weights as safetensors, tied tensors once."""
        tensors = {
            name: tensor.detach().to(dtype).contiguous()
            for name, tensor in self.state_dict().items()
            if not name.startswith("text_head.")
        }
        save_file(tensors, path, metadata={"model": self.config.name})

    @classmethod
    def load(cls, config: ModelConfig, path: Path) -> Self:
        """Read weights written by `save`; they are widened to float32. Raises WeightsError."""
        hint = "check that the weights were saved from this model configuration"
        try:
            tensors = load_file(path)
        except Exception as error:  # safetensors raises what it likes for a header or an element type it cannot read
            raise WeightsError(f"{path} is not a readable safetensors file ({error})", hint=hint) from error
        model = cls(config)
        tensors["text_head.table.weight"] = tensors.get("text_embed.table.weight", torch.empty(0))
        expected = {name: t.shape for name, t in model.state_dict().items()}
        actual = {name: t.shape for name, t in tensors.items()}
        wrong = [n for n in expected.keys() | actual.keys() if expected.get(n) != actual.get(n)]
        if wrong:
            first = sorted(wrong)[0]
            raise WeightsError(
                f"{path} does not fit model '{config.name}': {len(wrong)} tensors differ, first {first} "
                f"(expected {expected.get(first)}, found {actual.get(first)})",
                hint=hint,
            )
        model.load_state_dict({name: t.float() for name, t in tensors.items()})
        return model
