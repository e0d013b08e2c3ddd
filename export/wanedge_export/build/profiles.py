"""Optimization profiles: the block sizes at which a component with a dynamic axis runs.

Sizes that a unit really has get a profile each, so that TensorRT chooses kernels for exactly them; the prefill, whose
length is the world text's, gets one range.
"""

from wanedge.config import ModelConfig
from wanedge.layout import UnitLayout, backbone_rings
from wanedge_export.compiler.error import BuildError
from wanedge_runtimes.spec import GraphSpec

# Measured with TensorRT-RTX 1.7.1: where two Attention layers share a mask, a range of block sizes that ends at 64 or
# below and near its best size fails in the compiler ("Graph contains more than one op named ..._iota"); 65 and above
# builds.
_SHORTEST_RANGE = 65

Range = tuple[int, int, int]  # smallest, best, largest
Profile = dict[str, Range]


def block_profiles(config: ModelConfig, spec: GraphSpec, *, as_range: bool = False) -> tuple[Profile, ...]:
    """The profiles of one component; none where every axis is fixed. as_range: one profile over all sizes.

    Raises BuildError for a dynamic component that the model's rhythm says nothing about.
    """
    axes = spec.dynamic_dims
    if not axes:
        return ()
    layout = UnitLayout(config)
    user, media = (part.stop - part.start for part in (layout.user, layout.media))
    sizes: dict[str, tuple[Range, ...]] = {
        "backbone": (*map(_exactly, (1, user, media)), (1, config.prefill, _longest(config))),
        "text_embed": (*map(_exactly, (1, config.text.user_slots)), (1, config.prefill, config.prefill)),
        "text_head": (_exactly(1),),
    }
    if spec.component not in sizes or len(axes) != 1:
        raise BuildError(
            f"{spec.component} has the dynamic axes {list(axes)}, and nothing says at which sizes it runs",
            hint="pass them: build_engine(..., profiles=({'S': (1, 4, 16)},))",
        )
    distinct = tuple(dict.fromkeys(sizes[spec.component]))
    if as_range:
        # The best size is the media block's: it runs once per flow step and again when a unit is committed.
        best = media if spec.component == "backbone" else 1
        distinct = ((min(low for low, _, _ in distinct), best, max(high for _, _, high in distinct)),)
    return tuple({axes[0]: each} for each in distinct)


def _longest(config: ModelConfig) -> int:
    """The prefill, or more where the compiler asks for it; never more than the smallest cache holds."""
    capacity = min(ring.capacity for ring in backbone_rings(config).values())
    return max(config.prefill, min(_SHORTEST_RANGE, capacity))


def _exactly(size: int) -> Range:
    return (size, size, size)
