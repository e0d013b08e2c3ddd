"""What a build must promise: an engine's inputs and outputs, and its caches in place, are what the spec says."""

from wanedge_export.compiler.error import BuildError
from wanedge_export.compiler.network import NetworkFacts
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.tensorrt.engine import EngineTensor
from wanedge_runtimes.tensorrt.library import dtype_name


def engine_tensors(network: NetworkFacts) -> tuple[EngineTensor, ...]:
    """Inputs, then outputs, in the network's order. Raises BuildError for a type that no graph here has."""
    made: list[EngineTensor] = []
    for each in network.tensors:
        dtype = dtype_name(each.dtype)
        if dtype is None:
            raise BuildError(
                f"{each.mode} {each.name!r} is {each.dtype}, which the host cannot pass",
                hint="keep inputs, outputs and states in float16 or float32",
            )
        alias = network.aliases.get(each.name) if each.mode == "output" else None
        made.append(EngineTensor(name=each.name, mode=each.mode, dtype=dtype, shape=each.shape, alias=alias))
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
