"""Whatever a bundle holds, a Wan-Streamer model or a pipeline: its components, its graphs, and a stream over them."""

from pathlib import Path

from wanedge.bundle import Bundle
from wanedge.model import STREAMING_COMPONENTS, Model
from wanedge.pipeline.streamer import PipelineModel, PipelineStreamer
from wanedge.streaming import AnyStreamer, Streamer
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.runtime import RuntimeOptions

AnyModel = Model | PipelineModel


def streaming_components(bundle: Bundle) -> tuple[str, ...]:
    """The components that a session runs; a bundle may hold others, for training and validation."""
    return STREAMING_COMPONENTS if bundle.pipeline is None else bundle.pipeline.components


def load_any(
    source: str | Path | Bundle,
    runtime: str = "auto",
    variant: str | None = None,
    options: RuntimeOptions | None = None,
) -> AnyModel:
    """Load whatever a bundle holds. Raises WanEdgeError."""
    bundle = source if isinstance(source, Bundle) else Bundle.open(Path(source))
    loader = Model if bundle.pipeline is None else PipelineModel
    return loader.load(bundle, runtime, variant, options)


def open_streamer(model: AnyModel, world: str = "", *, seed: int = 0, temperature: float = 0.0) -> AnyStreamer:
    """A stream over a loaded model; see `Streamer` for the other arguments. InputError where a pipeline has none."""
    if isinstance(model, Model):
        return Streamer(model, world, seed=seed, temperature=temperature)
    if world or temperature:
        raise InputError("a pipeline takes no world text and no temperature", hint="leave them out")
    return PipelineStreamer(model)
