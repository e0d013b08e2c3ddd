"""The shapes that a configuration gives to its graphs, compared before anything is allocated or loaded.

A manifest comes from outside. A configuration that does not fit its graphs, or needs more memory than the machine has,
must be an error with a name in it, and not a process that the system kills.
"""

import math
import os
from collections.abc import Iterable, Mapping

from wanedge.config import FRAMES_PER_UNIT, ModelConfig, VideoConfig
from wanedge.layout import UnitLayout
from wanedge.ring import audio_encoder_ring, backbone_rings
from wanedge_runtimes.errors import GraphError
from wanedge_runtimes.spec import Dim, GraphSpec, itemsize

Shapes = dict[str, tuple[Dim, ...]]

_HINT = "the bundle contradicts itself: export it again with wanedge export, or get it again from its source"


def check_sizes(config: ModelConfig, specs: Mapping[str, GraphSpec]) -> None:
    """Raise GraphError when a component's tensors are not the configuration's, or exceed the machine's memory.

    specs: by component. Whether a graph is what its spec says is checked when it is loaded.
    """
    expected = shapes(config)
    for component, spec in specs.items():
        tensors: dict[str, tuple[Dim, ...]] = {t.name: t.shape for t in (*spec.inputs, *spec.outputs)}
        if component == "backbone":  # other components' states are their own business
            tensors |= {s.name: s.shape for s in spec.states}
        for name, shape in expected.get(component, {}).items():
            if name not in tensors:
                raise GraphError(f"{component} has no tensor {name!r}, which '{config.name}' needs", hint=_HINT)
            if not _agree(shape, tensors[name]):
                raise GraphError(
                    f"{component}: {name!r} is {list(tensors[name])}, and the configuration of '{config.name}' "
                    f"makes it {list(shape)}",
                    hint=_HINT,
                )
    needed, there = sum(map(_fixed_bytes, specs.values())), _memory_bytes()
    if needed > there:
        raise GraphError(
            f"one session of '{config.name}' needs {needed / 2**30:.0f} GiB, and this machine has "
            f"{there / 2**30:.0f} GiB",
            hint="use a smaller model, or get the bundle again from its source if it should be a small one",
        )


def shapes(config: ModelConfig) -> dict[str, Shapes]:
    """Return component -> tensor -> shape, for what the configuration fixes. "S" is any number of tokens."""
    audio, backbone, layout = config.audio, config.backbone, UnitLayout(config)
    width, pairs = backbone.width, backbone.head_dim // 2
    ring = audio_encoder_ring(config)
    latents: Shapes = {
        "audio": (1, audio.tokens, audio.latent),
        "video": (1, config.agent_video.tokens, config.agent_video.latent),
    }
    core: Shapes = {"embeddings": (1, "S", width), "hidden": (1, "S", width)}
    core |= {"cos": (1, "S", pairs), "sin": (1, "S", pairs)}
    for name, cache in backbone_rings(config).items():
        core[f"mask.{name}"] = (1, 1, "S", cache.capacity)
        for layer, window in enumerate(backbone.layout):
            if window == name:
                shape = (1, backbone.kv_heads, cache.capacity, backbone.head_dim)
                core |= {f"{layer}.key": shape, f"{layer}.value": shape}
    media = layout.media.stop - layout.media.start
    return {
        "audio_encoder": {
            "pcm": (1, audio.samples),
            "mask": (1, 1, audio.tokens, ring.capacity),
            "tokens": (1, audio.tokens, width),
        },
        "video_encoder": {"frames": _frames(config.user_video), "tokens": (1, config.user_video.tokens, width)},
        "backbone": core,
        "text_embed": {"embeddings": (1, "S", width)},
        "text_head": {"hidden": (1, "S", width), "logits": (1, "S", config.text.vocabulary)},
        "flow_in": {**latents, "embeddings": (1, media, width)},
        "flow_out": {
            "hidden": (1, media, width),
            "audio_velocity": latents["audio"],
            "video_velocity": latents["video"],
        },
        "audio_decoder": {"latents": latents["audio"], "pcm": (1, audio.samples)},
        "video_decoder": {"latents": latents["video"], "frames": _frames(config.agent_video)},
    }


def _frames(video: VideoConfig) -> tuple[Dim, ...]:
    return (1, FRAMES_PER_UNIT, video.height, video.width, 3)


def _agree(expected: tuple[Dim, ...], actual: tuple[Dim, ...]) -> bool:
    return len(expected) == len(actual) and all(
        e == a or (isinstance(e, str) and isinstance(a, str)) for e, a in zip(expected, actual, strict=True)
    )


def _fixed_bytes(spec: GraphSpec) -> int:
    """Bytes of one session's tensors, every dynamic axis counted as one element."""
    states = sum(_count(s.shape) * itemsize(s.dtype) * (2 if s.update == "swap" else 1) for s in spec.states)
    return states + sum(_count(t.shape) * itemsize(t.dtype) for t in (*spec.inputs, *spec.outputs))


def _count(shape: Iterable[Dim]) -> int:
    return math.prod(dim for dim in shape if isinstance(dim, int))  # Python's numbers do not overflow


def _memory_bytes() -> int:
    if not hasattr(os, "sysconf"):  # Windows
        return 1 << 40
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
