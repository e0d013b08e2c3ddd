"""The graph linter: finds what a target would refuse, ignore or do badly, before anything is built.

    findings = lint_graph(Graph.load(path), target_named("rtx-40"), component="backbone")

attention.py, operators.py and quantization.py hold the rules, one function each.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wanedge_export.lint.graph import Graph
    from wanedge_export.lint.linter import RULES, LintReport, ask_tensorrt, lint_bundle, lint_graph
    from wanedge_export.lint.rule import Finding, Rule

__all__ = ["RULES", "Finding", "Graph", "LintReport", "Rule", "ask_tensorrt", "lint_bundle", "lint_graph"]

# Imported when they are used: the commands lint and build are listed where onnx is not installed, too.
_HOME = {"Graph": "graph", "Finding": "rule", "Rule": "rule"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME.get(name, 'linter')}"), name)
    globals()[name] = value
    return value
