"""Edit graphs: read and write files, mark inner tensors as outputs, replace layers by those of another graph.

The same model always gives the same bytes.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from wanedge.bundle.errors import disk_errors
from wanedge_calibration.errors import CalibrationError
from wanedge_calibration.graph.sites import find_sites
from wanedge_runtimes.spec import Dim, DType, GraphSpec, TensorSpec

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


_DTYPES: dict[int, DType] = {1: "float32", 2: "uint8", 3: "int8", 7: "int64", 9: "bool", 10: "float16"}


def mark_outputs(source: Path, spec: GraphSpec, tensors: Sequence[str], target: Path) -> GraphSpec:
    """Write `source` to `target` with `tensors` as further outputs; returns its spec.

    A tensor that is an input, a state or an output already is left out. Raises CalibrationError when the shape of a
    tensor cannot be inferred.
    """
    model = onnx.load(str(source))
    known = {t.name for t in (*spec.inputs, *spec.outputs)} | {s.past for s in spec.states}
    known |= {s.present for s in spec.states}
    types = value_types(model)
    added: list[TensorSpec] = []
    for name in tensors:
        if name in known:
            continue
        if name not in types:
            raise CalibrationError(
                f"{spec.component}: the shape of tensor {name!r} cannot be inferred", hint="export the bundle again"
            )
        added.append(TensorSpec(name=name, dtype=types[name][0], shape=types[name][1]))
        model.graph.output.append(helper.make_tensor_value_info(name, _code(types[name][0]), list(types[name][1])))
    write_graph(model, target.parent, target.stem)
    return spec.model_copy(update={"outputs": (*spec.outputs, *added)})


def value_types(model: ModelProto) -> dict[str, tuple[DType, tuple[Dim, ...]]]:
    """dtype and shape of every tensor that has a known element type and rank."""
    inferred = shape_inference.infer_shapes(model, strict_mode=False, data_prop=True).graph
    types: dict[str, tuple[DType, tuple[Dim, ...]]] = {}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        tensor = value.type.tensor_type
        shape = tuple(d.dim_value or d.dim_param for d in tensor.shape.dim)
        if tensor.elem_type in _DTYPES and all(shape):
            types[value.name] = (_DTYPES[tensor.elem_type], shape)
    return types


def _code(dtype: DType) -> int:
    return next(code for code, name in _DTYPES.items() if name == dtype)


_NORMS = ("RMSNormalization", "LayerNormalization")
_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")
_PREFIX = "replaced."


def layer_groups(reference: ModelProto, candidate: ModelProto) -> dict[str, list[str]]:
    """Layers that can only be exchanged together: name -> nodes. The name is that of the first layer.

    Mostly one weighted operator. Where smoothing moved a factor from a norm into the matrices behind it, the norm and
    all its readers belong together. Layers that both graphs run alike are left out.
    """
    theirs = {node.name: node for node in candidate.graph.node}
    norms = {node.output[0]: node for node in reference.graph.node if node.op_type in _NORMS}
    groups: dict[str, list[str]] = {}
    by_norm: dict[str, str] = {}
    ours = {node.name: node for node in reference.graph.node}
    for site in find_sites(reference):
        if site.node not in theirs or list(ours[site.node].input) == list(theirs[site.node].input):
            continue
        norm = norms.get(site.reads)
        moved = norm is not None and norm.name in theirs and list(theirs[norm.name].input) != list(norm.input)
        if not moved or norm is None:
            groups[site.node] = [site.node]
        elif site.reads in by_norm:
            groups[by_norm[site.reads]].append(site.node)
        else:
            by_norm[site.reads] = site.node
            groups[site.node] = [norm.name, site.node]
    return groups


def replace_layers(host: ModelProto, donor: ModelProto, nodes: Sequence[str]) -> ModelProto:
    """A copy of `host` in which these nodes, with all that feeds them inside the donor, are the donor's.

    What a donated node reads is followed back to tensors that the host has by the same name; constants come along.
    """
    model = ModelProto()
    model.CopyFrom(host)
    existing = {o for node in host.graph.node for o in node.output} | {i.name for i in host.graph.input}
    makers = {o: node for node in donor.graph.node for o in node.output}
    constants = {i.name: i for i in donor.graph.initializer}
    brought: set[str] = set()
    replaced = set(nodes)
    theirs = {node.name: node for node in donor.graph.node}

    def is_constant(name: str) -> bool:
        return name in constants or (name in makers and all(map(is_constant, makers[name].input)))

    def is_added(name: str) -> bool:
        """Return whether quantization added the node that makes it: Q, DQ, or what widens a stored weight."""
        return name in makers and (makers[name].op_type in _QUANTIZATION or is_constant(name))

    def take(name: str, into: list[NodeProto]) -> str:
        """The name under which the host has the donor's tensor; what makes it is added to `into`."""
        if name in constants:
            if name not in brought:
                brought.add(name)
                model.graph.initializer.add().CopyFrom(constants[name])
                model.graph.initializer[-1].name = _PREFIX + name
            return _PREFIX + name
        if not name or (name in existing and not is_added(name)):
            return name
        if name not in brought:
            brought.add(name)
            node = NodeProto()
            node.CopyFrom(makers[name])
            node.name = _PREFIX + node.name
            for place, read in enumerate(node.input):
                node.input[place] = take(read, into)
            for place, output in enumerate(node.output):
                node.output[place] = _PREFIX + output
            into.append(node)
        return _PREFIX + name

    changed: list[NodeProto] = []
    for node in host.graph.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        if node.name in replaced:
            donated = theirs[node.name]
            copy.op_type = donated.op_type
            del copy.attribute[:], copy.input[:]
            copy.attribute.extend(donated.attribute)
            copy.input.extend(take(read, changed) for read in donated.input)
        changed.append(copy)
    nodes_kept, used = _reached(changed, {o.name for o in model.graph.output})
    del model.graph.node[:]
    model.graph.node.extend(nodes_kept)
    constants_kept = [i for i in model.graph.initializer if i.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants_kept)
    return model


def _reached(nodes: Sequence[NodeProto], outputs: set[str]) -> tuple[list[NodeProto], set[str]]:
    """The nodes that the outputs need, in order, and every tensor that they read."""
    used, reached = set(outputs), list[NodeProto]()
    for node in reversed(nodes):
        if used & set(node.output):
            reached.append(node)
            used |= set(node.input)
    return reached[::-1], used
