"""Summary of a manifest, with totals, in reading order. Pure: manifest in, summary out."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from wanedge.bundle import BundleError, Manifest, Provenance, Variant
from wanedge.commands import require_variant
from wanedge.config import UNIT_MS, ModelConfig
from wanedge.layout import UnitLayout
from wanedge.model import STREAMING_COMPONENTS
from wanedge.pipeline.config import Pipeline
from wanedge.ring import backbone_rings
from wanedge_runtimes.spec import GraphSpec, Profile, StateSpec, TensorSpec, Update, itemsize
from wanedge_runtimes.strict import Strict

_KV = ("key", "value")


class StateGroup(Strict):
    """States of one component that are alike. bytes: in memory, all of them; a swapped state is two buffers."""

    names: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    update: Update
    initial: float
    bytes: int

    @property
    def count(self) -> int:
        return len(self.names)


class Component(Strict):
    """One graph of the variant. graph_bytes: the ONNX file or engine. weight_bytes: its external weights.

    shares_weights_with: components that name one of the same weight files.
    streams: a session loads it; the others serve training and validation.
    state_bytes: memory of its state, swapped states counted twice.
    """

    name: str
    spec: str
    profile: Profile
    opset: int
    graph_bytes: int
    weight_bytes: int
    shares_weights_with: tuple[str, ...]
    streams: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[StateGroup, ...]
    state_bytes: int


class Part(Strict):
    """A run of slots of the unit."""

    name: str
    first: int
    slots: int


class Unit(Strict):
    ms: int
    slots: int
    parts: tuple[Part, ...]


class Cache(Strict):
    """The ring of all backbone layers with one window, in slots. seconds: what the window looks back on.

    bytes: keys and values of all `layers` of one session; None when the backbone's states are not named as keys and
        values of layers.
    """

    window: str
    layers: int
    prefill: int
    slots_per_unit: int
    units: int
    seconds: float
    capacity: int
    bytes: int | None


class VariantLine(Strict):
    """One variant. components: how many graphs it has."""

    name: str
    precision: str
    runtime: str
    target: str
    profile: Profile
    components: int


class FileLine(Strict):
    path: str
    bytes: int
    sha256: str


class Summary(Strict):
    """Summary of the bundle, and of one variant in detail.

    graph_bytes, weight_bytes: of the described variant, every file once. session_state_bytes: memory that every
    session holds for its state. total_bytes: of all listed files, of all variants.
    unit, caches: of a Wan-Streamer model. pipeline: in their place.
    """

    model: str
    weights: str
    weights_note: str
    made: Provenance
    variant: str
    variants: tuple[VariantLine, ...]
    components: tuple[Component, ...]
    graph_bytes: int
    weight_bytes: int
    session_state_bytes: int
    unit: Unit | None
    caches: tuple[Cache, ...]
    pipeline: Pipeline | None
    files: tuple[FileLine, ...]
    total_bytes: int


def summarise(manifest: Manifest, variant: str | None, where: Path) -> Summary:
    """Describe `variant` (by default the first) of the bundle at `where`. Raises Misuse when it is not there."""
    chosen = require_variant(manifest, variant, where) or _first(manifest, where)
    files = chosen.graphs.values()
    specs = {name: manifest.components[name][f.spec] for name, f in chosen.graphs.items()}
    components = tuple(_component(name, spec, chosen, manifest) for name, spec in specs.items())
    model = manifest.model
    pipeline = model if isinstance(model, Pipeline) else None
    return Summary(
        model=manifest.model.name,
        weights=manifest.weights,
        weights_note=manifest.weights_note,
        made=manifest.made,
        variant=chosen.name,
        variants=tuple(map(_line, manifest.variants)),
        components=components,
        graph_bytes=_bytes(manifest, (f.graph for f in files)),
        weight_bytes=_bytes(manifest, (path for f in files for path in f.data)),
        session_state_bytes=sum(c.state_bytes for c in components if c.streams),
        unit=None if isinstance(model, Pipeline) else _unit(model),
        caches=() if isinstance(model, Pipeline) or "backbone" not in specs else _caches(model, specs["backbone"]),
        pipeline=pipeline,
        files=tuple(FileLine(path=path, bytes=f.bytes, sha256=f.sha256) for path, f in manifest.files.items()),
        total_bytes=manifest.total_bytes,
    )


def memory_of(state: StateSpec) -> int:
    """Bytes that one session holds for `state`: two buffers when it is swapped."""
    size = itemsize(state.dtype)
    for axis in state.shape:
        size *= axis
    return 2 * size if state.update == "swap" else size


def _first(manifest: Manifest, where: Path) -> Variant:
    if not manifest.variants:
        raise BundleError(f"{where} has no variant at all", hint="make one: wanedge export --help")
    return manifest.variants[0]


def _line(v: Variant) -> VariantLine:
    return VariantLine(
        name=v.name,
        precision=v.precision,
        runtime=v.runtime,
        target=v.target,
        profile=v.profile,
        components=len(v.graphs),
    )


def _component(name: str, spec: GraphSpec, variant: Variant, manifest: Manifest) -> Component:
    files = variant.graphs[name]
    others = [other for other, f in variant.graphs.items() if other != name and set(f.data) & set(files.data)]
    return Component(
        name=name,
        spec=files.spec,
        profile=spec.profile,
        opset=spec.opset,
        graph_bytes=_bytes(manifest, [files.graph]),
        weight_bytes=_bytes(manifest, files.data),
        shares_weights_with=tuple(others),
        streams=name in (manifest.model.components if isinstance(manifest.model, Pipeline) else STREAMING_COMPONENTS),
        inputs=spec.inputs,
        outputs=spec.outputs,
        states=_groups(spec.states),
        state_bytes=sum(map(memory_of, spec.states)),
    )


def _bytes(manifest: Manifest, paths: Iterable[str]) -> int:
    return sum(manifest.files[path].bytes for path in set(paths))


def _groups(states: Iterable[StateSpec]) -> tuple[StateGroup, ...]:
    alike: dict[tuple[object, ...], list[StateSpec]] = {}
    for state in states:
        alike.setdefault((state.dtype, state.shape, state.update, state.initial), []).append(state)
    return tuple(
        StateGroup(
            names=tuple(s.name for s in group),
            dtype=group[0].dtype,
            shape=group[0].shape,
            update=group[0].update,
            initial=group[0].initial,
            bytes=sum(map(memory_of, group)),
        )
        for group in alike.values()
    )


def _unit(config: ModelConfig) -> Unit:
    layout = UnitLayout(config)
    parts = tuple(Part(name=name, first=s.start, slots=s.stop - s.start) for name, s in layout.parts.items())
    return Unit(ms=UNIT_MS, slots=layout.slots, parts=parts)


def _caches(config: ModelConfig, backbone: GraphSpec) -> tuple[Cache, ...]:
    held = {state.name: memory_of(state) for state in backbone.states}
    windows = config.backbone.layout
    return tuple(
        Cache(
            window=name,
            layers=windows.count(name),
            prefill=ring.prefill,
            slots_per_unit=ring.slots,
            units=ring.units,
            seconds=ring.units * UNIT_MS / 1000,
            capacity=ring.capacity,
            bytes=_sum_all(held, (f"{i}.{kind}" for i, w in enumerate(windows) if w == name for kind in _KV)),
        )
        for name, ring in backbone_rings(config).items()
    )


def _sum_all(amounts: Mapping[str, int], names: Iterable[str]) -> int | None:
    values = [amounts.get(name) for name in names]
    return None if None in values else sum(n for n in values if n is not None)
