"""Give a traced model readable axis, node and weight names, and remove every trace of the machine."""

import ast
from collections.abc import Iterable

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from wanedge_export.component import ExportError
from wanedge_runtimes.spec import Dim, GraphSpec

_WRAPPER = "component"  # the attribute under which the traced wrapper holds the component


def tidy(model: ir.Model, spec: GraphSpec) -> None:
    """Tidy in place: the spec's axis names everywhere, nodes named after their module, no metadata.

    Raises ExportError when the trace froze an axis that the spec calls dynamic.
    """
    _name_axes(model, spec)
    _name_folded_weights(model)
    _make_names_unique(model)
    _name_nodes(model)
    _strip(model)


def _name_axes(model: ir.Model, spec: GraphSpec) -> None:
    names: dict[str, str] = {}  # torch's symbol -> the spec's axis
    for value, tensor in zip(model.graph.inputs, spec.inputs, strict=False):
        for traced, axis in zip(_dims(value), tensor.shape, strict=True):
            if isinstance(axis, str) and not isinstance(traced, str):
                raise _frozen(spec, tensor.name, axis, traced)
            if isinstance(axis, str) and names.setdefault(str(traced), axis) != axis:
                raise ExportError(
                    f"{spec.component}: axes '{names[str(traced)]}' and '{axis}' of input '{tensor.name}' "
                    "always have the same size, torch found",
                    hint="give them one name in spec()",
                )
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(d, names) for d in _dims(value)])
    for value, tensor in zip(model.graph.outputs, spec.outputs, strict=False):
        for traced, axis in zip(_dims(value), tensor.shape, strict=True):
            if isinstance(axis, str) and isinstance(traced, int):
                raise _frozen(spec, tensor.name, axis, traced)
        value.shape = ir.Shape(tensor.shape)


def _frozen(spec: GraphSpec, tensor: str, axis: str, size: int | str | None) -> ExportError:
    return ExportError(
        f"{spec.component}: axis '{axis}' of '{tensor}' was frozen at {size} by tracing",
        hint="take sizes from tensor.shape without int(), and compare no size with a constant",
    )


def _dims(value: ir.Value) -> list[int | str | None]:
    assert value.shape is not None
    return [d if isinstance(d, int) else d.value for d in value.shape]


def _renamed(dim: int | str | None, names: dict[str, str]) -> Dim | None:
    """A symbol by its axis; an expression of symbols becomes unknown, which every runtime infers by itself."""
    return names.get(dim) if isinstance(dim, str) else dim


def _values(model: ir.Model) -> Iterable[ir.Value]:
    yield from model.graph.inputs
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        yield from node.outputs


def _name_folded_weights(model: ir.Model) -> None:
    """'layers.0.q_proj.weight.transposed' instead of 'val_12', so that a layer can be found by its name."""
    graph = model.graph
    for value in list(graph.initializers.values()):
        sources = ast.literal_eval(value.metadata_props.get("pkg.onnxscript.optimizer.folded_from", "[]"))
        name = str(value.name).removeprefix(f"{_WRAPPER}.")
        if len(sources) == 1 and str(sources[0]).startswith(f"{_WRAPPER}."):
            name = f"{str(sources[0]).removeprefix(f'{_WRAPPER}.')}.transposed"
        if name not in graph.initializers:
            value.name = name


def _make_names_unique(model: ir.Model) -> None:
    """Rename what is computed where a buffer, a parameter, an input or an output has its name, e.g. 'mean' or 'add'."""
    graph = model.graph
    outputs = {id(value) for value in graph.outputs}
    used = {str(value.name) for value in (*graph.inputs, *graph.outputs, *graph.initializers.values())}
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for value in node.outputs:
            if id(value) in outputs:
                continue
            name, number = str(value.name), 1
            while value.name in used:
                number += 1
                value.name = f"{name}_{number}"
            used.add(str(value.name))


def _name_nodes(model: ir.Model) -> None:
    """'layers.0.q_proj/MatMul': the module that a node came from, and its operator."""
    used: dict[str, int] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        module = _weights_module(node) or (str(scopes[-2]) if len(scopes) > 1 else "")
        inside = module.startswith(f"{_WRAPPER}.")  # torch names nodes that belong to no module by itself
        name = f"{module.removeprefix(f'{_WRAPPER}.')}/{node.op_type}" if inside else node.op_type
        used[name] = used.get(name, 0) + 1
        node.name = name if used[name] == 1 else f"{name}_{used[name]}"


def _weights_module(node: ir.Node) -> str:
    """The module whose weight a convolution holds; a norm that the optimizer folds into it leaves its own name."""
    if node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) < 2 or node.inputs[1] is None:
        return ""
    module, _, parameter = str(node.inputs[1].name).rpartition(".")
    return f"{_WRAPPER}.{module}" if parameter == "weight" else ""


def _strip(model: ir.Model) -> None:
    """Stack traces hold the paths of this machine, and would make the same graph differ between two."""
    ClearMetadataAndDocStringPass()(model)
    model.doc_string = None
    model.metadata_props.clear()
    model.graph.doc_string = None
    model.graph.metadata_props.clear()
    for value in (*_values(model), *model.graph.initializers.values()):
        value.doc_string = None
        value.metadata_props.clear()
