"""One Transformer layer after Qwen3: RMSNorm, grouped-query attention with q/k norm and RoPE, SwiGLU.

Used by the backbone and by the user's audio encoder. With a cache the new keys and values are written to it and
attention runs over the whole cache; without one it runs over the sequence itself. The mask decides in both cases.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wanedge.config import BackboneConfig
from wanedge_export.operators import attention, cache_write, rotary
from wanedge_runtimes.spec import StateSpec


class RMSNorm(nn.RMSNorm):
    """torch's own, with Qwen3's argument order."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps=eps)


class Attention(nn.Module):
    """x [1, S, D] -> [1, S, D], and the present key and value caches [1, Hkv, C, Dh]."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        query, key_value = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, query, bias=False)
        self.k_proj = nn.Linear(config.width, key_value, bias=False)
        self.v_proj = nn.Linear(config.width, key_value, bias=False)
        self.o_proj = nn.Linear(query, config.width, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        write_index: Tensor | None,
        past_key: Tensor | None,
        past_value: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        c, (batch, tokens, _) = self.config, x.shape
        query = self.q_norm(self.q_proj(x).view(batch, tokens, c.heads, c.head_dim)).transpose(1, 2)
        key = self.k_norm(self.k_proj(x).view(batch, tokens, c.kv_heads, c.head_dim)).transpose(1, 2)
        value = self.v_proj(x).view(batch, tokens, c.kv_heads, c.head_dim).transpose(1, 2)
        query, key = rotary(query, cos, sin), rotary(key, cos, sin)
        if past_key is not None and past_value is not None and write_index is not None:
            key = cache_write(past_key, key, write_index)
            value = cache_write(past_value, value, write_index)
        out = attention(query, key, value, mask).transpose(1, 2)
        return self.o_proj(out.reshape(batch, tokens, c.heads * c.head_dim)), key, value


class SwiGLU(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward; parameter names are Qwen3's, so its weights load by name."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = SwiGLU(config.width, config.ffn)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        write_index: Tensor | None,
        past_key: Tensor | None,
        past_value: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        attended, key, value = self.self_attn(
            self.input_layernorm(x), cos, sin, mask, write_index, past_key, past_value
        )
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), key, value


def cache_states(config: BackboneConfig, capacities: Sequence[int]) -> tuple[StateSpec, ...]:
    """Key and value caches of each layer, [1, Hkv, C, Dh], updated in place."""
    return tuple(
        StateSpec(
            name=f"{i}.{kind}",
            past=f"past_key_values.{i}.{kind}",
            present=f"present.{i}.{kind}",
            dtype="float32",
            shape=(1, config.kv_heads, capacity, config.head_dim),
            update="in_place",
        )
        for i, capacity in enumerate(capacities)
        for kind in ("key", "value")
    )


def attention_inputs(
    config: BackboneConfig, tokens: int, capacity: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random but valid cos, sin [1, S, Dh / 2], mask [1, 1, S, C] and write index [1]."""
    angle = torch.rand(1, tokens, config.head_dim // 2, generator=generator) * 6.28
    write_index = torch.randint(0, capacity - tokens + 1, (1,), generator=generator)
    mask = torch.rand(1, 1, tokens, capacity, generator=generator) < 0.5
    own = torch.arange(tokens)
    mask[0, 0, own, write_index + own] = True  # every row sees at least itself
    return angle.cos(), angle.sin(), mask, write_index
