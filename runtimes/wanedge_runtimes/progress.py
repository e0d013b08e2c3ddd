"""Progress of long work, reported the same way on every floor."""

from collections.abc import Callable

OnProgress = Callable[[int, int], object]
"""Called with what is done and what there is in all (bytes, units, clips: the caller says); its answer is ignored."""


def no_progress(_done: int, _total: int) -> None:
    """Report to nobody."""
