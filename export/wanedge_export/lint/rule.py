"""A lint rule and its findings."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from onnx import NodeProto

from wanedge_export.lint.graph import Graph, label
from wanedge_runtimes.strict import Strict
from wanedge_runtimes.targets import Library, LibraryName, Target, release

Level = Literal["error", "warning"]
NONE_KNOWN = "none known"


class Finding(Strict):
    """error: the target refuses the graph or computes something else. warning: slower or less exact than it could be.

    lifted: the first version (or hardware) without the limit. hint: what to change.
    """

    component: str
    node: str
    rule: str
    level: Level
    what: str
    lifted: str
    hint: str


class Hit(NamedTuple):
    """A node that breaks a rule. lifted: where it differs from the rule's own answer."""

    node: NodeProto | None
    what: str
    lifted: str | None = None


@dataclass(frozen=True)
class Rule:
    """One limit.

    libraries: those that have it, each with the first version that lifts it (None: none known).
    check: finds the nodes that break it. source: where the limit was measured or documented.
    refuses: for errors: the target does not build the graph; otherwise it builds one that computes something else.
    """

    name: str
    level: Level
    libraries: Mapping[LibraryName, str | None]
    hint: str
    source: str
    check: Callable[[Graph, Target, Library], Iterable[Hit]]
    refuses: bool = True

    def applies(self, library: Library) -> bool:
        """Return True when this version of the library still has the limit."""
        if library.name not in self.libraries:
            return False
        lifted = self.libraries[library.name]
        return lifted is None or release(library.version) < release(lifted)

    def findings(self, component: str, graph: Graph, target: Target, library: Library) -> Iterable[Finding]:
        lifted = self.libraries[library.name]
        own = NONE_KNOWN if lifted is None else f"{library.name} {lifted}"
        for hit in self.check(graph, target, library):
            yield Finding(
                component=component,
                node=label(hit.node) if hit.node is not None else "the graph",
                rule=self.name,
                level=self.level,
                what=hit.what,
                lifted=hit.lifted or own,
                hint=self.hint,
            )


TENSORRT: Mapping[LibraryName, str | None] = {"tensorrt": None, "tensorrt-rtx": None}
MEASURED = "measured with TensorRT-RTX 1.7.1"
