"""Rewrite a float graph in 8 bits, in the form that its runtime takes.

tensorrt: Q/DQ pairs on the inputs of MatMul, Gemm, Conv and ConvTranspose; symmetric; activations per tensor, weights
    per output channel (TensorRT's explicit quantization). The same file runs in ONNX Runtime, exactly.
cpu: unsigned activations with a zero-point and unsigned weights: ONNX Runtime's kernels for these accumulate without
    saturating on processors without VNNI, and are as fast as any. Weights of layers that stay float are stored in
    8 or 16 bits behind a Cast that is folded when the graph is loaded.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from wanedge_calibration.eight_bits import Format, Range, activation_scale, broadcast, quantize_weight
from wanedge_calibration.errors import QuantizationError
from wanedge_calibration.graph.sites import Site, attribute, weights
from wanedge_calibration.recipe import Form, Mode
from wanedge_runtimes.runtime import Array

RangeOf = Callable[[str], Range]

Q_SUFFIX, DQ_SUFFIX = ".quantized", ".dequantized"


def rewrite(model: ModelProto, sites: list[Site], modes: Mapping[str, Mode], form: Form, range_of: RangeOf) -> None:
    """Rewrite in place: every site as `modes` says by node name; a site that is not named stays fp32.

    range_of: the range of an activation tensor. Raises QuantizationError for a mode that the site cannot have.
    """
    by_node = {site.node: site for site in sites}
    if unknown := sorted(modes.keys() - by_node.keys()):
        raise QuantizationError(
            f"the recipe names a layer {unknown[0]!r} that the graph does not have",
            hint=f"its layers begin with: {', '.join(list(by_node)[:3])}",
        )
    writer = _Writer(model, form, range_of)
    for node in list(model.graph.node):
        site, mode = by_node.get(node.name), modes.get(node.name, "fp32")
        if site is not None and mode != "fp32":
            writer.change(node, site, mode)
        writer.nodes.append(node)
    writer.finish()


def _names_read(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Every tensor that nodes read, those of inner graphs (If, Loop) included: they see the weights outside."""
    for node in nodes:
        yield from node.input
        for held in node.attribute:
            for body in (*([held.g] if held.HasField("g") else []), *held.graphs):
                yield from _names_read(body.node)
                yield from (output.name for output in body.output)


@dataclass
class _Writer:
    model: ModelProto
    form: Form
    range_of: RangeOf
    nodes: list[NodeProto] = field(default_factory=list)
    added: dict[str, TensorProto] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.values: dict[str, Array] = weights(self.model)
        self.axes: dict[str, int] = {}  # of the scales that were written for a weight first
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def change(self, node: NodeProto, site: Site, mode: Mode) -> None:
        if mode in ("int8", "fp8"):
            self._quantize(node, site, mode)
        elif mode == "fp16-weights":
            self._narrow(node, site)
        else:
            self._store_int8(node, site)

    def finish(self) -> None:
        """Nodes and initializers into the graph; what nothing reads any more is left out."""
        graph = self.model.graph
        used = set(_names_read(self.nodes)) | {o.name for o in graph.output}
        initializers = [i for i in graph.initializer if i.name in used and i.name not in self.added]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend([*initializers, *self.added.values()])
        known = {v.name for v in graph.value_info} - used
        stale = [v for v in graph.value_info if v.name not in known]
        del graph.value_info[:]
        graph.value_info.extend(stale)

    def _quantize(self, node: NodeProto, site: Site, mode: Mode) -> None:
        if site.op == "Gather" or (self.form == "cpu" and (mode == "fp8" or site.op not in ("MatMul", "Gemm"))):
            raise QuantizationError(
                f"layer {site.node!r} ({site.op}) cannot be {mode} in the {self.form} form",
                hint="choose int8-weights or fp32 for it",
            )
        kind: Format = "fp8" if mode == "fp8" else "uint8" if self.form == "cpu" else "int8"
        if self.form == "cpu":
            site = self._as_matmul(node, site)
        activation = self._activation(site.reads, kind, self.values[site.weight].dtype)
        node.input[0], node.input[1] = activation, self._weight(site, kind)

    def _activation(self, tensor: str, kind: Format, computed: np.dtype[Any]) -> str:
        """Q and DQ after `tensor`, once for all its readers of one kind; scales are of the type it is computed in."""
        base = f"{tensor}.{kind}"
        if base not in self.written:
            self.written.add(base)
            scale, zero = activation_scale(self.range_of(tensor), kind)
            self._add(f"{base}.scale", scale.astype(computed))
            self._add(f"{base}.zero_point", zero)
            self._pair(tensor, base)
        return base + DQ_SUFFIX

    def _weight(self, site: Site, kind: Format) -> str:
        """Stored weight and DQ, once for all its readers whose output channels lie along one axis."""
        base = f"{site.weight}.{kind}"
        if self.axes.setdefault(base, site.axis) != site.axis:
            base = f"{site.weight}.{kind}.axis{site.axis}"
        if base not in self.written:
            self.written.add(base)
            parts = quantize_weight(self.values[site.weight], site.axis, kind)
            for name, part in zip((Q_SUFFIX, ".scale", ".zero_point"), parts, strict=True):
                self._add(base + name, part)
            names = [base + Q_SUFFIX, f"{base}.scale", f"{base}.zero_point"]
            self._node("DequantizeLinear", names, base + DQ_SUFFIX, axis=site.axis)
        return base + DQ_SUFFIX

    def _pair(self, tensor: str, base: str) -> None:
        names = [f"{base}.scale", f"{base}.zero_point"]
        self._node("QuantizeLinear", [tensor, *names], base + Q_SUFFIX)
        self._node("DequantizeLinear", [base + Q_SUFFIX, *names], base + DQ_SUFFIX)

    def _as_matmul(self, node: NodeProto, site: Site) -> Site:
        """A Gemm as MatMul (and Add); and a bias in a shape that ONNX Runtime does not fuse back into a Gemm.

        It fuses MatMul and Add of a vector into Gemm, and a quantized Gemm runs 4 to 5 times slower than a float one.
        """
        if node.op_type == "Gemm":
            if attribute(node, "transB", 0):
                name = f"{site.weight}.transposed"
                self.values[name] = np.ascontiguousarray(self.values[site.weight].T)
                site = Site(site.node, site.op, site.reads, name, 1, 0, site.size)
            if len(node.input) > 2 and node.input[2]:
                raise QuantizationError(
                    f"layer {site.node!r} is a Gemm with a bias, which the cpu form has no fast kernel for",
                    hint="choose int8-weights for it",
                )
            del node.attribute[:], node.input[2:]
            node.op_type = "MatMul"
            return site
        for reader in self.readers.get(node.output[0], []):
            for place, name in enumerate(reader.input):
                bias = self.values.get(name)
                if reader.op_type == "Add" and bias is not None and bias.ndim == 1:
                    wide = f"{name}.wide"
                    self._add(wide, bias[None, None])
                    reader.input[place] = wide
        return site

    def _store_int8(self, node: NodeProto, site: Site) -> None:
        stored, scale, _ = quantize_weight(self.values[site.weight], site.axis, "int8")
        name, rank = f"{site.weight}.int8", stored.ndim
        if name not in self.written:
            self.written.add(name)
            self._add(f"{name}.stored", stored)
            computed = self.values[site.weight].dtype
            self._add(f"{name}.scale", broadcast(scale, rank, site.axis).astype(computed))
            kind = helper.np_dtype_to_tensor_dtype(computed)
            self._node("Cast", [f"{name}.stored"], f"{name}.cast", to=kind)
            self._node("Mul", [f"{name}.cast", f"{name}.scale"], f"{name}.widened")
        node.input[list(node.input).index(site.weight)] = f"{name}.widened"

    def _narrow(self, node: NodeProto, site: Site) -> None:
        if self.values[site.weight].dtype == np.float16:
            return  # it is stored so already
        name = f"{site.weight}.fp16"
        if name not in self.written:
            self.written.add(name)
            self._add(f"{name}.stored", self.values[site.weight].astype(np.float16))
            self._node("Cast", [f"{name}.stored"], f"{name}.widened", to=TensorProto.FLOAT)
        node.input[list(node.input).index(site.weight)] = f"{name}.widened"

    def _add(self, name: str, values: Array) -> None:
        self.added[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)

    def _node(self, op: str, inputs: list[str], output: str, **attributes: int) -> None:
        node = helper.make_node(op, inputs, [output], name=f"{output}/{op}")
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
