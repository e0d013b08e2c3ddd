"""All rules, and one graph against them."""

from wanedge_export.lint import attention, operators, quantization
from wanedge_export.lint.graph import Graph
from wanedge_export.lint.rule import Finding, Rule
from wanedge_runtimes.targets import Library, Target

RULES: tuple[Rule, ...] = (*operators.RULES, *attention.RULES, *quantization.RULES)


def lint_graph(
    graph: Graph, target: Target, component: str = "graph", library: Library | None = None
) -> tuple[Finding, ...]:
    """What `target` would refuse, ignore or do badly in `graph`, errors first.

    library: one of the target's, its first by default. component: for the findings.
    """
    chosen = library or target.library
    findings = [
        finding for rule in RULES if rule.applies(chosen) for finding in rule.findings(component, graph, target, chosen)
    ]
    return tuple(sorted(findings, key=lambda finding: finding.level))  # "error" before "warning"
