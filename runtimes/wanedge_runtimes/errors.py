"""The error hierarchy of every wanedge package.

Each error says what was wrong, where, and what to do next. The last part is a keyword of its own, so that no
raise site can forget it.
"""


class WanEdgeError(Exception):
    """Base of every error that wanedge raises on purpose.

    Args:
        what: what is wrong and where (file, component, tensor, unit), one sentence.
        hint: what the person should do next, ideally a command to type.
    """

    def __init__(self, what: str, *, hint: str) -> None:
        super().__init__(f"{what}\n  -> {hint}")
        self.what = what
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:  # exceptions cross process borders in parallel work
        return _rebuild, (type(self), self.what, self.hint)


def _rebuild(kind: type[WanEdgeError], what: str, hint: str) -> WanEdgeError:
    return kind(what, hint=hint)


class MissingExtra(WanEdgeError):
    """An optional part of wanedge is needed and not installed; the hint is the pip command."""


class RuntimeUnavailable(WanEdgeError):
    """The chosen runtime or execution provider does not exist on this machine."""


class GraphError(WanEdgeError):
    """A graph cannot be loaded, or its inputs, outputs or states disagree with its GraphSpec."""


class InputError(WanEdgeError, ValueError):
    """An argument has the wrong dtype, shape, range or content."""


class StateError(WanEdgeError):
    """A saved state cannot be restored: another model, another version, or a damaged file."""


class ExecutionError(WanEdgeError):
    """A graph failed while it ran."""
