"""Lint a graph, or the graphs of a bundle, against the rules of one target."""

from pydantic import computed_field

from wanedge.bundle import Bundle, Variant
from wanedge_export.lint import attention, operators, quantization
from wanedge_export.lint.graph import Graph
from wanedge_export.lint.rule import Finding, Rule
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.strict import Strict
from wanedge_runtimes.targets import Library, Target

RULES: tuple[Rule, ...] = (*operators.RULES, *attention.RULES, *quantization.RULES)


def lint_graph(
    graph: Graph, target: Target, component: str = "graph", library: Library | None = None
) -> tuple[Finding, ...]:
    """Return what `target` would refuse, ignore or do badly in `graph`, errors first.

    library: one of the target's, its first by default. component: for the findings.
    """
    chosen = library or target.library
    findings = [
        finding for rule in RULES if rule.applies(chosen) for finding in rule.findings(component, graph, target, chosen)
    ]
    return tuple(sorted(findings, key=lambda finding: finding.level))  # "error" before "warning"


class LintReport(Strict):
    """findings: errors first. graphs: number of linted graphs."""

    target: str
    library: str
    variants: tuple[str, ...]
    graphs: int
    findings: tuple[Finding, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ok(self) -> bool:
        """No finding of level "error"."""
        return all(finding.level != "error" for finding in self.findings)


def lint_bundle(
    bundle: Bundle, target: Target, *, library: Library | None = None, variant: str | None = None
) -> LintReport:
    """Lint every graph of one variant, or of all variants for this kind of target.

    Raises InputError when no variant has graphs for it, GraphError for a file that is no graph.
    """
    chosen = library or target.library
    variants = (bundle.variant(variant),) if variant else graph_variants(bundle, target)
    seen: set[str] = set()
    findings: list[Finding] = []
    for each in variants:
        for component, files in each.graphs.items():
            if files.graph not in seen:
                seen.add(files.graph)
                graph = Graph.load(bundle.path(files.graph))
                findings += lint_graph(graph, target, f"{each.name}/{component}", chosen)
    return LintReport(
        target=target.name,
        library=str(chosen),
        variants=tuple(each.name for each in variants),
        graphs=len(seen),
        findings=tuple(sorted(findings, key=lambda finding: finding.level)),
    )


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
