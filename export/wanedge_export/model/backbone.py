"""The backbone: the one Transformer, over embeddings of any modality."""

import torch
from torch import Tensor, nn

from wanedge.config import ModelConfig
from wanedge.ring import backbone_rings
from wanedge_export.component import Tensors, initial_state
from wanedge_export.model.transformer import RMSNorm, TransformerLayer, attention_inputs, cache_states
from wanedge_runtimes.spec import GraphSpec, TensorSpec


class Backbone(nn.Module):
    """Embeddings [1, S, D] of a block -> hidden [1, S, D]; the block's keys and values join the caches.

    One graph serves every block size: the user block, single text tokens, the flow steps, the prefill. Masks
    and write indices come in once per distinct window. Without state (offline) the masks are [1, 1, T, T].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.rings = backbone_rings(config)
        self.layers = nn.ModuleList(TransformerLayer(config.backbone) for _ in config.backbone.layout)
        self.norm = RMSNorm(config.backbone.width, config.backbone.norm_eps)

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        x: Tensor = inputs["embeddings"]
        present: Tensors = {}
        for i, (layer, window) in enumerate(zip(self.layers, self.config.backbone.layout, strict=True)):
            x, present[f"{i}.key"], present[f"{i}.value"] = layer(
                x,
                inputs["cos"],
                inputs["sin"],
                inputs[f"mask.{window}"],
                inputs.get(f"write_index.{window}"),
                state.get(f"{i}.key"),
                state.get(f"{i}.value"),
            )
        return {"hidden": self.norm(x)}, present

    def spec(self) -> GraphSpec:
        b = self.config.backbone
        per_window = [
            tensor
            for name, ring in self.rings.items()
            for tensor in (
                TensorSpec(name=f"mask.{name}", dtype="bool", shape=(1, 1, "S", ring.capacity)),
                TensorSpec(name=f"write_index.{name}", dtype="int64", shape=(1,)),
            )
        ]
        return GraphSpec(
            component="backbone",
            opset=24,
            inputs=(
                TensorSpec(name="embeddings", dtype="float32", shape=(1, "S", b.width)),
                TensorSpec(name="cos", dtype="float32", shape=(1, "S", b.head_dim // 2)),
                TensorSpec(name="sin", dtype="float32", shape=(1, "S", b.head_dim // 2)),
                *per_window,
            ),
            outputs=(TensorSpec(name="hidden", dtype="float32", shape=(1, "S", b.width)),),
            states=cache_states(b, [self.rings[window].capacity for window in b.layout]),
        )

    def init_state(self) -> Tensors:
        return initial_state(self.spec())

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:
        b, tokens = self.config.backbone, dims["S"]
        inputs = {"embeddings": torch.randn(1, tokens, b.width, generator=generator)}
        for name, ring in self.rings.items():
            inputs["cos"], inputs["sin"], inputs[f"mask.{name}"], inputs[f"write_index.{name}"] = attention_inputs(
                b, tokens, ring.capacity, generator
            )
        return inputs
