"""The linter against TensorRT-RTX on thousands of graphs, and the table of what was built.

python -m tests.acceptance.lint --out out/lint

The graphs are ONNX's own conformance tests, as they are and with their shape arguments as constants, the pairs of the
lint tests, and attentions, quantized products and pools in all combinations of their options. None of them was made
with the rules in mind except the pairs. `--table` writes the kinds of nodes that were built, for lint/tried.json.
"""

from __future__ import annotations

import json
import random
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import product as combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import typer
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.export import lint_graphs as small
from tests.repository import commit
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.commands import report_errors, stderr
from wanedge_calibration.results import Measure, Provenance, Results
from wanedge_export.engines.builder import profile_shapes
from wanedge_export.engines.probe import ProbeProcess
from wanedge_export.engines.sizing import block_profiles
from wanedge_export.lint import Finding, Graph, ask_tensorrt, lint_graph
from wanedge_export.lint.linter import REFUSALS
from wanedge_export.lint.tried import kinds_of
from wanedge_runtimes.targets import target_named
from wanedge_runtimes.tensorrt.library import import_library

SEED = 7
TARGET = target_named("rtx-40")
Answer = Literal["refused", "clean", "not tried"]


class Trap(NamedTuple):
    name: str
    model: ModelProto


class Record(NamedTuple):
    """One graph: what TensorRT-RTX did, what the rules say, what lint says after asking, and its kinds of nodes."""

    name: str
    builds: bool
    rules: bool  # the rules alone find no refusal
    asked: bool  # lint finds no refusal after asking
    kinds: frozenset[str]


def conformance() -> Iterator[Trap]:
    """ONNX's node tests: as they are, and with int64 arguments as the constants that they are in a real graph."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the cases overflow on purpose
        cases = collect_testcases(None)
    for case in cases:
        if case.model is None or not case.data_sets:
            continue
        yield Trap(case.name, case.model)
        model = ModelProto()
        model.CopyFrom(case.model)
        pairs = list(zip(model.graph.input, case.data_sets[0][0], strict=False))
        held = [
            (value, array)
            for index, (value, array) in enumerate(pairs)
            if index and isinstance(array, np.ndarray) and value.type.tensor_type.elem_type == TensorProto.INT64
        ]
        if held:
            names = {value.name for value, _ in held}
            model.graph.initializer.extend(numpy_helper.from_array(array, value.name) for value, array in held)
            inputs = [value for value in model.graph.input if value.name not in names]
            del model.graph.input[:]
            model.graph.input.extend(inputs)
            yield Trap(f"{case.name}-constant", model)


def combined() -> Iterator[Trap]:
    """Options of the operators that streaming models live on, in all combinations."""
    for pair in small.PAIRS:
        if pair.target == TARGET.name:
            yield Trap(f"{pair.rule}-bad", pair.bad)
            yield Trap(f"{pair.rule}-good", pair.good)
    types = (small.F16, small.F32, TensorProto.BFLOAT16)
    for dtype, rank, heads, size, tokens, mask in combinations(
        types, (3, 4), ((4, 4), (4, 2), (4, 1)), (8, 16, 72, 256, 288), (1, 3), (False, True)
    ):
        name = f"attention-{dtype}-{rank}-{heads}-{size}-{tokens}-{mask}"
        yield Trap(name, _attention(*heads, dtype, rank, size, tokens, mask))
    for quantized, scales, weights in combinations((small.I8, small.E4M3), (1, 64), (1, 32)):
        graph = small.product(quantized=quantized, activation_scales=scales, weight_scales=weights)
        yield Trap(f"product-{quantized}-{scales}-{weights}", graph)
    for dimensions in (1, 2, 3):
        yield Trap(f"upsampling-{dimensions}", small.upsampling(dimensions))
    for count in (1, 100, 3840, 3841, 4999):
        yield Trap(f"top-k-{count}", small.top_k(count))
    for mode, align, antialias in combinations(
        ("half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"), ("stretch", "not_larger"), (0, 1)
    ):
        options = {"coordinate_transformation_mode": mode, "keep_aspect_ratio_policy": align, "antialias": antialias}
        yield Trap(f"resize-{mode}-{align}-{antialias}", small.resize(**options))


def _attention(q: int, kv: int, dtype: int, rank: int, size: int, tokens: int, mask: bool) -> ModelProto:
    slots = 64
    options: dict[str, Any]
    if rank == 3:
        shapes, options = ([1, tokens, q * size], [1, slots, kv * size]), {"q_num_heads": q, "kv_num_heads": kv}
    else:
        shapes, options = ([1, q, tokens, size], [1, kv, slots, size]), {}
    inputs = [("q", dtype, shapes[0]), ("k", dtype, shapes[1]), ("v", dtype, shapes[1])]
    if mask:
        inputs.append(("m", small.BOOL, [1, 1, tokens, slots]))
    node = helper.make_node("Attention", [name for name, _, _ in inputs], ["y"], name="attend", **options)
    return small.model([node], inputs, [("y", dtype, shapes[0])])


def refuses(findings: Sequence[Finding]) -> bool:
    """Return whether lint says that no engine comes out; "computes something else" is no refusal."""
    return any(f.level == "error" and (f.rule in REFUSALS) for f in findings)


def take(traps: Sequence[Trap]) -> list[Record]:
    """Ask both about every graph."""
    library = TARGET.library_named("tensorrt-rtx")
    records: list[Record] = []
    with TemporaryDirectory() as folder, ProbeProcess() as ask, typer.progressbar(traps, file=sys.stderr) as shown:
        for trap in shown:
            path = Path(folder) / "graph.onnx"
            path.write_bytes(trap.model.SerializeToString())
            graph = Graph.load(path)
            findings = lint_graph(graph, TARGET, library=library)
            answered = ask_tensorrt(ask, path, None, TARGET, findings)
            builds = ask(path, TARGET).builds
            kinds = frozenset(kinds_of(graph))
            records.append(Record(trap.name, builds, not refuses(findings), not refuses(answered), kinds))
    return records


def kinds_built(records: Sequence[Record]) -> set[str]:
    """Kinds of nodes of graphs that were built, but for those that another graph was refused for, unexplained."""
    built = {kind for record in records if record.builds for kind in record.kinds}
    refused = {next(iter(r.kinds)) for r in records if not r.builds and r.rules and len(r.kinds) == 1}
    return {kind for kind in built - refused if _can_be_known(kind)}


def _can_be_known(kind: str) -> bool:
    """Return False where a graph's input gives a shape or an index: whether that builds depends on its values."""
    return " given" not in kind


def answer(record: Record, known: set[str]) -> Answer:
    """Answer of lint without TensorRT-RTX."""
    if not record.rules:
        return "refused"
    return "clean" if record.kinds <= known else "not tried"


def disagrees(record: Record, known: set[str]) -> bool:
    said = answer(record, known)
    return said != "not tried" and (said == "clean") != record.builds


def of_bundle(bundle: Bundle) -> Iterator[set[str]]:
    """Kinds of nodes of a bundle's graphs that TensorRT-RTX builds."""
    with ProbeProcess() as ask:
        for variant in bundle.manifest.variants:
            if variant.engines or variant.profile != TARGET.profile or variant.runtime != "tensorrt":
                continue
            for component in variant.graphs:
                path, spec = bundle.graph(component, variant)
                shapes = [profile_shapes(spec, sizes) for sizes in block_profiles(bundle.model, spec)]
                if ask(path, TARGET, shapes).builds:
                    yield kinds_of(Graph.load(path))


def _without_folders() -> list[str]:
    """The arguments without this machine's folders."""
    return [Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]]


def lint(
    out: Annotated[Path, typer.Option(help="Where lint.json goes.")] = Path("out/lint"),
    bundles: Annotated[list[Path] | None, typer.Option("--bundle", help="Its engines' graphs join the table.")] = None,
    table: Annotated[Path | None, typer.Option(help="Write the kinds of nodes that were built there.")] = None,
) -> None:
    """Compare the linter with TensorRT-RTX, which needs no GPU, and write the figures."""
    with report_errors():
        traps = [*conformance(), *combined()]
        records = take(traps)
        order = list(records)
        random.Random(SEED).shuffle(order)
        halves = order[::2], order[1::2]
        # Each half is answered with the table that the other half gave.
        tables = kinds_built(halves[1]), kinds_built(halves[0])
        pairs = [(record, known) for half, known in zip(halves, tables, strict=True) for record in half]
        wrong = [record.name for record, known in pairs if disagrees(record, known)]
        untried = sum(answer(record, known) == "not tried" for record, known in pairs)
        asked = [record.name for record in records if record.asked != record.builds]
        for name in (*wrong, *asked):
            stderr().print(f"disagreement: {name}")
        n = len(records)
        command = shlex.join(["python", "-m", "tests.acceptance.lint", *_without_folders()])
        results = Results(
            machine=machine_facts(),
            made=Provenance.now(command, commit(), None),
            measures={
                "graphs": Measure(value=n, unit="graphs", n=n, threshold=">= 150"),
                "graphs_built": Measure(value=sum(r.builds for r in records), unit="graphs", n=n),
                "disagreements_asked": Measure(value=len(asked), unit="graphs", n=n, threshold="== 0"),
                "disagreements_rules_only": Measure(value=len(wrong), unit="graphs", n=n, threshold="== 0"),
                "not_tried_rules_only": Measure(value=untried, unit="graphs", n=n),
            },
        )
        results.write(out / "lint.json")
        for name, measure in results.measures.items():
            typer.echo(f"{name}: {measure.value:g} of {measure.n}")
        if table is not None:
            kinds = kinds_built(records)
            for bundle in bundles or ():
                kinds = kinds.union(*of_bundle(Bundle.open(bundle)))
            version = str(import_library("tensorrt-rtx").__version__)
            document = {"tensorrt-rtx": {"version": ".".join(version.split(".")[:3]), "kinds": sorted(kinds)}}
            table.write_text(json.dumps(document, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(lint)
