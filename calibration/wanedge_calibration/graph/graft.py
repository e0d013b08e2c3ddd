"""One layer of one graph in the place of the same layer of another: to find out what that layer alone does."""

from collections.abc import Sequence

from onnx import ModelProto, NodeProto

from wanedge_calibration.graph.sites import find_sites

_NORMS = ("RMSNormalization", "LayerNormalization")
_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")
_PREFIX = "graft."


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


def grafted(host: ModelProto, donor: ModelProto, nodes: Sequence[str]) -> ModelProto:
    """A copy of `host` in which these nodes, with all that feeds them inside the donor, are the donor's.

    What a donated node reads is followed back to tensors that the host has by the same name; constants come along.
    """
    model = ModelProto()
    model.CopyFrom(host)
    made = {o for node in host.graph.node for o in node.output} | {i.name for i in host.graph.input}
    makers = {o: node for node in donor.graph.node for o in node.output}
    constants = {i.name: i for i in donor.graph.initializer}
    brought: set[str] = set()
    wanted = set(nodes)
    theirs = {node.name: node for node in donor.graph.node}

    def is_constant(name: str) -> bool:
        return name in constants or (name in makers and all(map(is_constant, makers[name].input)))

    def is_added(name: str) -> bool:
        """Whether quantization put its maker there: Q or DQ, or what widens a stored weight."""
        return name in makers and (makers[name].op_type in _QUANTIZATION or is_constant(name))

    def take(name: str, into: list[NodeProto]) -> str:
        """The name under which the host has the donor's tensor; what makes it is added to `into`."""
        if name in constants:
            if name not in brought:
                brought.add(name)
                model.graph.initializer.add().CopyFrom(constants[name])
                model.graph.initializer[-1].name = _PREFIX + name
            return _PREFIX + name
        if not name or (name in made and not is_added(name)):
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
        if node.name in wanted:
            given = theirs[node.name]
            copy.op_type = given.op_type
            del copy.attribute[:], copy.input[:]
            copy.attribute.extend(given.attribute)
            copy.input.extend(take(read, changed) for read in given.input)
        changed.append(copy)
    kept, used = _reached(changed, {o.name for o in model.graph.output})
    del model.graph.node[:]
    model.graph.node.extend(kept)
    constants_kept = [i for i in model.graph.initializer if i.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants_kept)
    return model


def _reached(nodes: Sequence[NodeProto], outputs: set[str]) -> tuple[list[NodeProto], set[str]]:
    """The nodes that the outputs need, in order, and every tensor that they read."""
    used, kept = set(outputs), list[NodeProto]()
    for node in reversed(nodes):
        if used & set(node.output):
            kept.append(node)
            used |= set(node.input)
    return kept[::-1], used
