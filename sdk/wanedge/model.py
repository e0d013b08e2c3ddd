"""A loaded model: graphs with their weights, and the tokenizer. Any number of streams share one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from wanedge.bundle import Bundle
from wanedge.config import ModelConfig
from wanedge.sizes import check_sizes
from wanedge.text import Tokenizer
from wanedge.variants import choose_variant
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Executable, RuntimeOptions

STREAMING_COMPONENTS = (
    "audio_encoder",
    "video_encoder",
    "text_embed",
    "backbone",
    "text_head",
    "flow_in",
    "flow_out",
    "audio_decoder",
    "video_decoder",
)

# What else a session uses on a device, where the bundle has it: decisions that then need not visit the host.
DEVICE_COMPONENTS = ("text_choice", "flow_step")

# Waking a second thread costs these more than it saves: about a tenth of a unit's time, measured with `tiny`.
_TOO_SMALL_TO_SPLIT = frozenset({"text_embed", "text_head", "flow_in", "flow_out"})


@dataclass(frozen=True)
class Model:
    """Executables by component name. Holds no state of any stream; safe to share between threads.

    name: of the model. weights: "trained" or "random". variant: what of the bundle was loaded, e.g. "fp32".
    runtime: what runs it, e.g. "onnxruntime (cpu)".
    """

    config: ModelConfig
    graphs: Mapping[str, Executable]
    tokenizer: Tokenizer
    weights: str = "random"
    variant: str = "fp32"
    runtime: str = "torch"

    @property
    def name(self) -> str:
        return self.config.name

    @classmethod
    def load(
        cls,
        source: str | Path | Bundle,
        runtime: str = "auto",
        variant: str | None = None,
        options: RuntimeOptions | None = None,
    ) -> Self:
        """Verify and load the graphs that streaming needs. Raises WanEdgeError; see `Session.open`.

        variant: by default an 8-bit one that passed its validation, else the float one (variants.py).
        """
        bundle = source if isinstance(source, Bundle) else Bundle.open(Path(source))
        manifest = bundle.manifest
        engine = open_runtime(runtime, options)
        provider = engine.options.provider
        chosen = choose_variant(bundle, variant, engine.name, provider, options or RuntimeOptions())
        config = bundle.model
        on_device = provider != "cpu" or engine.name != "onnxruntime"
        # On a device all graphs share one runtime and its memory.
        single = engine if on_device else open_runtime(runtime, replace(options or RuntimeOptions(), threads=1))
        names = [*STREAMING_COMPONENTS, *(n for n in DEVICE_COMPONENTS if on_device and n in chosen.graphs)]
        check_sizes(config, {n: bundle.spec(n, chosen) for n in STREAMING_COMPONENTS})
        with bundle.opening():  # the runtime opens by path what the bundle checks by path
            graphs = {
                name: (single if name in _TOO_SMALL_TO_SPLIT else engine).load(*bundle.graph(name, chosen))
                for name in names
            }
            tokenizer = Tokenizer(bundle.tokenizer(), config)
        return cls(
            config=config,
            graphs=graphs,
            tokenizer=tokenizer,
            weights=manifest.weights,
            variant=chosen.name,
            runtime=f"{engine.name} ({provider})",
        )
