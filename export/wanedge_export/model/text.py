"""Text and state tokens: ids to embeddings, hidden to logits. Both share one embedding table."""

import torch
from torch import Tensor, nn

from wanedge.config import ModelConfig
from wanedge_export.component import Tensors
from wanedge_export.operators import tied_linear
from wanedge_runtimes.spec import GraphSpec, TensorSpec

ROLES = ("world", "user", "agent")


class TextEmbed(nn.Module):
    """ids [1, S] and who says them -> embeddings [1, S, D]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.text.vocabulary, config.backbone.width)
        self.roles = nn.Embedding(len(ROLES), config.backbone.width)

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        return {"embeddings": self.table(inputs["ids"]) + self.roles(inputs["roles"])}, state

    def spec(self) -> GraphSpec:
        return GraphSpec(
            component="text_embed",
            opset=24,
            inputs=(
                TensorSpec(name="ids", dtype="int64", shape=(1, "S")),
                TensorSpec(name="roles", dtype="int64", shape=(1, "S")),
            ),
            outputs=(TensorSpec(name="embeddings", dtype="float32", shape=(1, "S", self.config.backbone.width)),),
        )

    def init_state(self) -> Tensors:
        return {}

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:
        shape = (1, dims["S"])
        return {
            "ids": torch.randint(0, self.config.text.vocabulary, shape, generator=generator),
            "roles": torch.randint(0, len(ROLES), shape, generator=generator),
        }


class TextHead(nn.Module):
    """hidden [1, S, D] -> logits [1, S, V] over text and state tokens, through the embedding table."""

    def __init__(self, config: ModelConfig, table: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        self.table = table

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        logits: Tensor = tied_linear(inputs["hidden"], self.table.weight)
        return {"logits": logits}, state

    def spec(self) -> GraphSpec:
        c = self.config
        return GraphSpec(
            component="text_head",
            opset=24,
            inputs=(TensorSpec(name="hidden", dtype="float32", shape=(1, "S", c.backbone.width)),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=(1, "S", c.text.vocabulary)),),
        )

    def init_state(self) -> Tensors:
        return {}

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:
        return {"hidden": torch.randn(1, dims["S"], self.config.backbone.width, generator=generator)}
