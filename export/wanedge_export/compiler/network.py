"""The parsed network, read into plain values: its inputs and outputs, its kinds of layers, and its caches in place."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from wanedge_runtimes.tensorrt.library import enum_name

_CACHE_UPDATE = "KV_CACHE_UPDATE"


class NetworkTensor(NamedTuple):
    """dtype: as TensorRT calls it, e.g. "HALF". shape: -1 for a dynamic axis."""

    name: str
    mode: Literal["input", "output"]
    dtype: str
    shape: tuple[int, ...]


class NetworkFacts(NamedTuple):
    """tensors: inputs, then outputs, in the network's order. aliases: see `aliases`. layers: see `layer_kinds`."""

    tensors: tuple[NetworkTensor, ...]
    aliases: dict[str, str]
    layers: dict[str, int]


def facts(network: Any) -> NetworkFacts:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    tensors = (*(_tensor(each, "input") for each in inputs), *(_tensor(each, "output") for each in outputs))
    return NetworkFacts(tensors, aliases(network), layer_kinds(network))


def layer_kinds(network: Any) -> dict[str, int]:
    """Kinds of layers with their number, the most frequent first."""
    return dict(Counter(enum_name(layer.type) for layer in _layers(network)).most_common())


def aliases(network: Any) -> dict[str, str]:
    """Output -> the network input whose memory it must share, for every cache update [IKVCacheUpdateLayer]."""
    return {
        layer.get_output(0).name: layer.get_input(0).name
        for layer in _layers(network)
        if enum_name(layer.type) == _CACHE_UPDATE
    }


def engine_aliases(engine: Any) -> dict[str, str]:
    """The same of a loaded engine: what `get_aliased_input_tensor` says, which is the truth at run time."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: engine.get_aliased_input_tensor(name) for name in names}
    return {name: alias for name, alias in found.items() if alias}


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _tensor(value: Any, mode: Literal["input", "output"]) -> NetworkTensor:
    return NetworkTensor(value.name, mode, enum_name(value.dtype), tuple(value.shape))
