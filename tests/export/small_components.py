"""Small components, each with one mechanism of the real ones, and some that must be refused."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanedge_export.component import Tensors, initial_state
from wanedge_export.operators import attention, cache_write, tied_linear
from wanedge_runtimes.spec import DType, GraphSpec, StateSpec, TensorSpec


def f32(name: str, *shape: int | str, dtype: DType = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def tail(name: str, *shape: int) -> StateSpec:
    return StateSpec(
        name=name,
        past=f"past_states.{name}",
        present=f"present_states.{name}",
        dtype="float32",
        shape=shape,
        update="swap",
    )


class Small(nn.Module):
    """Base of every small component: a seed, a fresh state from the spec, normal inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)

    def spec(self) -> GraphSpec:
        raise NotImplementedError

    def init_state(self) -> Tensors:
        return initial_state(self.spec())

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:
        return {t.name: torch.randn(t.concrete(dims), generator=generator) for t in self.spec().inputs}


class CausalConv(Small):
    """x [1, 4, 10] -> y [1, 8, 10] and a picture uint8 [1, 10]; the tail holds kernel - 1 frames."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 16)
        self.eval()

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        whole = torch.cat([state["tail"], inputs["x"]], dim=2)
        y = self.conv(whole)
        levels = (y.mean(dim=1) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
        return {"y": y, "levels": levels}, {"tail": whole[:, :, -15:]}

    def spec(self) -> GraphSpec:
        outputs = (f32("y", 1, 8, 10), f32("levels", 1, 10, dtype="uint8"))
        return GraphSpec(
            component="conv", opset=24, inputs=(f32("x", 1, 4, 10),), outputs=outputs, states=(tail("tail", 1, 4, 15),)
        )


class CachedAttention(Small):
    """One grouped-query attention block, 4 heads on 2, over a cache of 24 slots; S new tokens."""

    CAPACITY = 24

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(32)
        self.q, self.k, self.v = nn.Linear(32, 32, bias=False), nn.Linear(32, 16, bias=False), nn.Linear(32, 16)
        self.o = nn.Linear(32, 32)
        self.eval()

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        x = inputs["x"]
        tokens = x.shape[1]
        h = self.norm(x)
        q, k, v = (p(h).view(1, tokens, -1, 8).transpose(1, 2) for p in (self.q, self.k, self.v))
        key = cache_write(state["key"], k, inputs["write_index"])
        value = cache_write(state["value"], v, inputs["write_index"])
        y = attention(q, key, value, inputs["mask"]).transpose(1, 2).reshape(1, tokens, 32)
        return {"y": x + self.o(y)}, {"key": key, "value": value}

    def spec(self) -> GraphSpec:
        states = tuple(
            StateSpec(
                name=kind,
                past=f"past_key_values.0.{kind}",
                present=f"present.0.{kind}",
                dtype="float32",
                shape=(1, 2, self.CAPACITY, 8),
                update="in_place",
            )
            for kind in ("key", "value")
        )
        return GraphSpec(
            component="attention",
            opset=24,
            inputs=(
                f32("x", 1, "S", 32),
                f32("mask", 1, 1, "S", self.CAPACITY, dtype="bool"),
                f32("write_index", 1, dtype="int64"),
            ),
            outputs=(f32("y", 1, "S", 32),),
            states=states,
        )

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:
        start = torch.randint(0, self.CAPACITY - dims["S"] + 1, (1,), generator=generator)
        mask = torch.rand(1, 1, dims["S"], self.CAPACITY, generator=generator) < 0.5
        own = torch.arange(dims["S"])
        mask[0, 0, own, start + own] = True
        return {"x": torch.randn(1, dims["S"], 32, generator=generator), "mask": mask, "write_index": start}


class Embed(Small):
    """ids [1, S] -> embeddings [1, S, 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 32)
        self.eval()

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        return {"embeddings": self.table(inputs["ids"])}, state

    def spec(self) -> GraphSpec:
        return GraphSpec(
            component="embed",
            opset=24,
            inputs=(f32("ids", 1, "S", dtype="int64"),),
            outputs=(f32("embeddings", 1, "S", 32),),
        )

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:
        return {"ids": torch.randint(0, 100, (1, dims["S"]), generator=generator)}


class Head(Small):
    """hidden [1, S, 32] -> logits [1, S, 100] through the embedding's own table."""

    def __init__(self, embed: Embed) -> None:
        super().__init__()
        self.embed = embed
        self.eval()

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        return {"logits": tied_linear(inputs["hidden"], self.embed.table.weight)}, state

    def spec(self) -> GraphSpec:
        return GraphSpec(
            component="head", opset=24, inputs=(f32("hidden", 1, "S", 32),), outputs=(f32("logits", 1, "S", 100),)
        )


class Sum(Small):
    """The smallest component: y = x + total, and total = y. Broken ones differ from it in one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.eval()

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        y = inputs["x"] + state["total"]
        return {"y": y}, {"total": y}

    def spec(self) -> GraphSpec:
        return GraphSpec(
            component="sum",
            opset=24,
            inputs=(f32("x", 1, 3),),
            outputs=(f32("y", 1, 3),),
            states=(tail("total", 1, 3),),
        )


class UnusedInput(Sum):
    def spec(self) -> GraphSpec:
        spec = super().spec()
        return spec.model_copy(update={"inputs": (*spec.inputs, f32("gain", 1))})


class UnchangedState(Sum):
    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        return {"y": inputs["x"] * 2}, state


class GrowingState(Sum):
    """Appends, as a concatenated cache does, instead of keeping its shape."""

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        return {"y": inputs["x"]}, {"total": torch.cat([state["total"], inputs["x"]], dim=1)}


class WrongFreshState(Sum):
    def init_state(self) -> Tensors:
        return {"total": torch.ones(1, 3)}


class MissingOutput(Sum):
    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        outputs, state = super().forward(inputs, state)
        return {"result": outputs["y"]}, state


class NaNInput(Sum):
    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:  # noqa: ARG002
        return {"x": torch.full((1, 3), float("nan"))}


class CustomOperator(Sum):
    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        y = super().forward(inputs, state)[0]["y"]
        if torch.compiler.is_exporting():
            y = torch.onnx.ops.symbolic("acme::Fancy", (y,), dtype=y.dtype, shape=y.shape, version=1)
        return {"y": y}, {"total": y}


class NewerOperator(Sum):
    """An operator that opset 20 does not have, and no decomposed face. since: the opset it claims to be from."""

    def __init__(self, since: int) -> None:
        super().__init__()
        self.since = since

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        y = F.rms_norm(super().forward(inputs, state)[0]["y"], (3,))
        if torch.compiler.is_exporting():
            operands = (y, torch.ones(3))
            y = torch.onnx.ops.symbolic("RMSNormalization", operands, dtype=y.dtype, shape=y.shape, version=self.since)
        return {"y": y}, {"total": y}


class HiddenCounter(Sum):
    """Keeps memory of its own: every second step has the other sign, and tracing sees only one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        self.calls += 1
        y = inputs["x"] * (-1) ** self.calls + state["total"]
        return {"y": y}, {"total": y}


class BranchOnValue(Sum):
    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        sign = 1 if inputs["x"].sum() > 0 else -1
        y = inputs["x"] * sign + state["total"]
        return {"y": y}, {"total": y}


class FrozenSize(Embed):
    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        rows = [self.table(inputs["ids"][:, i]) for i in range(inputs["ids"].shape[1])]
        return {"embeddings": torch.stack(rows, dim=1)}, state


class CastBeforeCache(CachedAttention):
    """The cache is scaled on its way in, so it is no longer the graph's own memory."""

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        scaled: dict[str, Tensor] = {name: tensor * 0.5 for name, tensor in state.items()}
        return super().forward(inputs, scaled)
