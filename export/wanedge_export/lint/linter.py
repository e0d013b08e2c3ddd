"""Lint a graph, or the graphs of a bundle, for one target.

The rules explain; where TensorRT-RTX is installed in the target's release, it decides. Without it, a graph in which no
rule finds an error is clean only when every kind of node in it was built before (see tried.py).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import computed_field

from wanedge.bundle import Bundle, Variant
from wanedge.config import ModelConfig
from wanedge.pipeline.config import Pipeline
from wanedge_export.engines.builder import profile_shapes
from wanedge_export.engines.probe import Probe, ProbeProcess
from wanedge_export.engines.sizing import Profile, block_profiles
from wanedge_export.engines.worker.compile import BuildError, Shapes
from wanedge_export.lint import attention, operators, quantization
from wanedge_export.lint.graph import Graph
from wanedge_export.lint.rule import NONE_KNOWN, Finding, Rule
from wanedge_export.lint.tried import untried
from wanedge_runtimes.errors import GraphError, InputError, MissingExtra
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.strict import Strict
from wanedge_runtimes.targets import Library, LibraryName, Target, same_release
from wanedge_runtimes.tensorrt.library import import_library

RULES: tuple[Rule, ...] = (*operators.RULES, *attention.RULES, *quantization.RULES)
# Name of the finding that is TensorRT's own refusal, which no rule explains.
ASKED = "tensorrt"
_LIBRARY: LibraryName = "tensorrt-rtx"
# Findings of these rules, as errors, say that no engine comes out; other errors, that it computes something else.
REFUSALS = {ASKED, *(rule.name for rule in RULES if rule.level == "error" and rule.refuses)}
_ANY_SIZE = 16  # of an axis about whose sizes nothing is known


class Ask(Protocol):
    """How TensorRT-RTX is asked, see `ProbeProcess`."""

    def __call__(self, graph: Path, target: Target, profiles: Sequence[Shapes] = ()) -> Probe: ...


class LintReport(Strict):
    """findings: errors first. graphs: number of linted graphs. asked: graphs about which TensorRT-RTX was asked.

    not_tried: "COMPONENT: KIND OF NODE" where neither a rule nor TensorRT-RTX says whether it builds.
    """

    target: str
    library: str
    variants: tuple[str, ...]
    graphs: int
    findings: tuple[Finding, ...]
    asked: int = 0
    not_tried: tuple[str, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ok(self) -> bool:
        """No finding of level "error"."""
        return all(finding.level != "error" for finding in self.findings)


def lint_graph(
    graph: Graph, target: Target, component: str = "graph", library: Library | None = None
) -> tuple[Finding, ...]:
    """Return what `target` would refuse, ignore or do badly in `graph` by the rules, errors first.

    library: one of the target's, its first by default. component: for the findings.
    """
    chosen = library or target.library
    findings = [
        finding for rule in RULES if rule.applies(chosen) for finding in rule.findings(component, graph, target, chosen)
    ]
    return tuple(sorted(findings, key=lambda finding: finding.level))  # "error" before "warning"


def ask_tensorrt(
    ask: Ask,
    path: Path,
    spec: GraphSpec | None,
    target: Target,
    findings: Sequence[Finding],
    component: str = "graph",
    profiles: Sequence[Profile] = (),
) -> tuple[Finding, ...]:
    """Build the graph with TensorRT-RTX, which needs no GPU, and correct the rules' findings by its answer.

    ask: usually a `ProbeProcess`. spec: the graph's, where it has dynamic axes. profiles: their sizes; without them
    every axis gets one size.
    """
    axes = spec.dynamic_dims if spec is not None else ()
    sizes = profiles or ([dict.fromkeys(axes, (_ANY_SIZE,) * 3)] if axes else [])
    answer = ask(path, target, [profile_shapes(spec, each) for each in sizes] if spec is not None else ())
    refused = [finding for finding in findings if finding.level == "error" and finding.rule in REFUSALS]
    if answer.builds:
        corrected = [
            f.model_copy(update={"level": "warning", "what": f"{f.what}; {target.library_named(_LIBRARY)} builds it"})
            if f in refused
            else f
            for f in findings
        ]
    else:
        own = Finding(
            component=component,
            node="the graph",
            rule=ASKED,
            level="error",
            what=f"{target.library_named(_LIBRARY)} refuses it: {answer.reason}",
            lifted=NONE_KNOWN,
            hint="rewrite the node that it names, or run this component in ONNX Runtime",
        )
        corrected = [*findings, *([] if refused else [own])]
    return tuple(sorted(corrected, key=lambda finding: finding.level))


def can_ask(library: Library) -> bool:
    """Return whether this machine has the library's release of TensorRT-RTX. TensorRT builds for the GPU at hand."""
    if library.name != _LIBRARY:
        return False
    try:
        return same_release(library.version, import_library(_LIBRARY).__version__)
    except MissingExtra:
        return False


def lint_bundle(
    bundle: Bundle, target: Target, *, library: Library | None = None, variant: str | None = None, ask: bool = True
) -> LintReport:
    """Lint every graph of one variant, or of all variants for this kind of target.

    ask: build each graph with TensorRT-RTX where it is installed; otherwise the rules alone decide.

    Raises InputError when no variant has graphs for it, GraphError for a file that is no graph or not of its spec's
    opset.
    """
    chosen = library or target.library
    variants = (bundle.variant(variant),) if variant else graph_variants(bundle, target)
    asked = ask and can_ask(chosen)
    seen: set[str] = set()
    findings: list[Finding] = []
    not_tried: list[str] = []
    with ProbeProcess() as tensorrt:
        for each in variants:
            for component, files in each.graphs.items():
                if files.graph in seen:
                    continue
                seen.add(files.graph)
                path, spec = bundle.graph(component, each)
                graph, name = Graph.load(path), f"{each.name}/{component}"
                if graph.opset != spec.opset:
                    raise GraphError(
                        f"{name}: the graph is opset {graph.opset}, its spec says {spec.opset}",
                        hint="wanedge verify BUNDLE, or make the variant again from the float graphs",
                    )
                own = lint_graph(graph, target, name, chosen)
                if asked:
                    own = ask_tensorrt(tensorrt, path, spec, target, own, name, _profiles(bundle.manifest.model, spec))
                else:
                    not_tried += [f"{name}: {kind}" for kind in untried(graph, chosen)]
                findings += own
    return LintReport(
        target=target.name,
        library=str(chosen),
        variants=tuple(each.name for each in variants),
        graphs=len(seen),
        findings=tuple(sorted(findings, key=lambda finding: finding.level)),
        asked=len(seen) if asked else 0,
        not_tried=tuple(not_tried),
    )


def _profiles(config: ModelConfig | Pipeline, spec: GraphSpec) -> tuple[Profile, ...]:
    """The sizes at which `wanedge build` would build it; none where the model's layout does not define them."""
    try:
        return block_profiles(config, spec)
    except BuildError:
        return ()


def graph_variants(bundle: Bundle, target: Target) -> tuple[Variant, ...]:
    """Return the variants whose ONNX graphs a target could take: for its runtime, or else all of its form.

    Raises InputError when there is none, e.g. no decomposed graphs for a device that needs them.
    """
    runtime = "onnxruntime" if target.sm is None else "tensorrt"
    graphs = [v for v in bundle.manifest.variants if not v.engines and v.profile == target.profile]
    matches = [v for v in graphs if v.runtime == runtime]
    if not graphs:
        raise InputError(
            f"{bundle.origin} has no {target.profile} graphs, which {target.name} ({target.library}) needs",
            hint=f"wanedge export PRESET --profile {target.profile} --precision fp16",
        )
    return tuple(matches or graphs)
