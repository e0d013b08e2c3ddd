"""Moments of a roll-out: the phase of the unit and the fill level of the caches."""

from dataclasses import dataclass

from wanedge.config import ModelConfig
from wanedge.layout import UnitLayout
from wanedge.pipeline.config import Pipeline
from wanedge_runtimes.runtime import Call

WHOLE_UNIT = "unit"  # components that run once per unit
STREAM = "stream"  # the one level of a pipeline, whose states fill as they like
SPEECH_RMS = 0.01  # -40 dB below full scale: louder than a room, quieter than a visitor


def fill_level(config: ModelConfig, unit: int) -> str:
    """ "cold" until the first window is full, "wrapped" once every ring has wrapped, the windows' names between."""
    wrapped = sorted({name for name in config.backbone.layout if unit >= config.backbone.windows[name]})
    if not wrapped:
        return "cold"
    return "wrapped" if len(wrapped) == len(set(config.backbone.layout)) else f"{'+'.join(wrapped)} wrapped"


def fill_levels(config: ModelConfig | Pipeline) -> list[str]:
    """Every level, in the order in which a stream reaches them."""
    if isinstance(config, Pipeline):
        return [STREAM]
    longest = max(config.backbone.windows[name] for name in config.backbone.layout)
    return list(dict.fromkeys(fill_level(config, unit) for unit in range(longest + 1)))


@dataclass
class PipelineMoment:
    """As `Moment`, for a pipeline: every component runs once per unit."""

    unit: int = -1
    fill: str = STREAM

    def phase(self, component: str, call: Call) -> str:  # noqa: ARG002  # as of Moment
        """The phase of the run that `call` just made."""
        return WHOLE_UNIT


@dataclass
class Moment:
    """Follows a Streamer by what its graphs are given.

    unit: the current one, -1 during the prefill. phase: "prefill", "user", "thought", "flow t=1.00", ..., "clean".
    """

    config: ModelConfig
    unit: int = -1
    _media: str = "clean"

    @property
    def fill(self) -> str:
        return fill_level(self.config, max(self.unit, 0))

    def phase(self, component: str, call: Call) -> str:
        """The phase of the run that `call` just made. Must be asked for every run, in order."""
        if component == "flow_in":
            t = float(call.inputs["t"][0, 0])
            self._media = f"flow t={t:.2f}" if t else "clean"
        if component in ("flow_in", "flow_out"):
            return self._media
        if component == "backbone":
            return self._backbone(call.inputs["embeddings"].shape[1])
        return WHOLE_UNIT

    def _backbone(self, tokens: int) -> str:
        layout = UnitLayout(self.config)
        if self.unit < 0:
            return "prefill"
        if tokens == 1:
            return "thought"
        return "user" if tokens == layout.user.stop else self._media
