"""The graph linter: finds what a target would refuse, ignore or do badly, before anything is built.

    findings = lint_graph(Graph.load(path), target_named("rtx-40"), component="backbone")

attention.py, operators.py and quantization.py hold the rules, one function each.
"""

from wanedge_export.lint.graph import Graph
from wanedge_export.lint.linter import RULES, LintReport, lint_bundle, lint_graph
from wanedge_export.lint.rule import Finding, Rule

__all__ = ["RULES", "Finding", "Graph", "LintReport", "Rule", "lint_bundle", "lint_graph"]
