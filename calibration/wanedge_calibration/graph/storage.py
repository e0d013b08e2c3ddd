"""Read a bundle's graph whole, and write one with its weights beside it: the same model gives the same bytes."""

import hashlib
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, numpy_helper

from wanedge.bundle.errors import disk_errors

PAGE = 4096  # a runtime maps weights only where they start on a page
INLINE_BELOW = 1024  # bytes; a page each would cost more than it saves


def read_graph(path: Path) -> ModelProto:
    """A graph with its weights in memory."""
    return onnx.load(str(path))


def write_graph(model: ModelProto, folder: Path, name: str) -> tuple[Path, ...]:
    """Write `name`.onnx and, if it has any large tensors, `name`.weights; returns the files written.

    The model's tensors are moved out in place, so it is spent afterwards. Raises BundleError when the disk refuses.
    """
    with disk_errors(folder / f"{name}.onnx"):
        return _write(model, folder, name)


def _write(model: ModelProto, folder: Path, name: str) -> tuple[Path, ...]:
    data, offsets, end = folder / f"{name}.weights", dict[str, int](), 0
    with data.open("wb") as file:
        for tensor in model.graph.initializer:
            content = _raw(tensor)
            if len(content) < INLINE_BELOW:
                continue
            digest = hashlib.sha256(content).hexdigest()
            if digest not in offsets:
                offsets[digest] = -(-end // PAGE) * PAGE
                file.write(bytes(offsets[digest] - end) + content)
                end = offsets[digest] + len(content)
            _point_to(tensor, data.name, offsets[digest], len(content))
    graph = folder / f"{name}.onnx"
    graph.write_bytes(model.SerializeToString(deterministic=True))
    if end:
        return graph, data
    data.unlink()
    return (graph,)


def _raw(tensor: TensorProto) -> bytes:
    return tensor.raw_data if tensor.HasField("raw_data") else numpy_helper.to_array(tensor).tobytes()


def _point_to(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    tensor.data_location = TensorProto.EXTERNAL
