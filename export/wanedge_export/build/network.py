"""The parsed network, read for what the build must promise: its inputs and outputs, and which caches are in place."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from wanedge_export.build.error import BuildError
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.tensorrt.engine import EngineTensor
from wanedge_runtimes.tensorrt.library import dtype_name, enum_name

_CACHE_UPDATE = "KV_CACHE_UPDATE"


def layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def layer_kinds(network: Any) -> dict[str, int]:
    """Kinds of layers with their number, the most frequent first."""
    return dict(Counter(enum_name(layer.type) for layer in layers(network)).most_common())


def aliases(network: Any) -> dict[str, str]:
    """Output -> the network input whose memory it must share, for every cache update [IKVCacheUpdateLayer]."""
    return {
        layer.get_output(0).name: layer.get_input(0).name
        for layer in layers(network)
        if enum_name(layer.type) == _CACHE_UPDATE
    }


def engine_aliases(engine: Any) -> dict[str, str]:
    """The same of a loaded engine: what `get_aliased_input_tensor` says, which is the truth at run time."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: engine.get_aliased_input_tensor(name) for name in names}
    return {name: alias for name, alias in found.items() if alias}


def tensors(network: Any, aliased: dict[str, str]) -> tuple[EngineTensor, ...]:
    """Inputs, then outputs, in the network's order. Raises BuildError for a type that no graph here has."""
    sides = (
        ("input", [network.get_input(index) for index in range(network.num_inputs)]),
        ("output", [network.get_output(index) for index in range(network.num_outputs)]),
    )
    made: list[EngineTensor] = []
    for mode, values in sides:
        for value in values:
            dtype = dtype_name(value.dtype)
            if dtype is None:
                raise BuildError(
                    f"{mode} {value.name!r} is {enum_name(value.dtype)}, which the host cannot pass",
                    hint="keep inputs, outputs and states in float16 or float32",
                )
            made.append(
                EngineTensor.model_validate(
                    {
                        "name": value.name,
                        "mode": mode,
                        "dtype": dtype,
                        "shape": tuple(value.shape),
                        "alias": aliased.get(value.name) if mode == "output" else None,
                    }
                )
            )
    return tuple(made)


def require_spec(spec: GraphSpec, found: tuple[EngineTensor, ...]) -> None:
    """Raises BuildError unless the engine's tensors and aliases are what the spec says."""
    given = {(t.name, t.dtype) for t in found}
    wanted = {(t.name, t.dtype) for t in (*spec.inputs, *spec.outputs)}
    wanted |= {(name, s.dtype) for s in spec.states for name in (s.past, s.present)}
    if different := sorted(given ^ wanted):
        name, dtype = different[0]
        has = "the network" if different[0] in given else "the spec"
        raise BuildError(
            f"{spec.component}: {name!r} as {dtype} is in {has} only",
            hint="graph and spec come from one export: wanedge verify BUNDLE, or export again",
        )
    require_aliases(spec, {t.name: t.alias for t in found if t.alias is not None})


def require_aliases(spec: GraphSpec, found: dict[str, str]) -> None:
    """Raises BuildError unless exactly the caches that are updated in place share memory."""
    wanted = {s.present: s.past for s in spec.states if s.update == "in_place"}
    if found != wanted:
        name = sorted(set(found.items()) ^ set(wanted.items()))[0][0]
        raise BuildError(
            f"{spec.component}: {name!r} is {found.get(name, 'a tensor of its own')!r} in the engine, "
            f"in place of {wanted.get(name, 'nothing')!r} in the spec",
            hint="the cache must go straight through one TensorScatter: wanedge lint BUNDLE --target TARGET",
        )
