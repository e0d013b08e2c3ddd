"""What the builder raises."""

from wanedge_runtimes.errors import WanEdgeError


class BuildError(WanEdgeError):
    """An engine cannot be built: the graph, the options, the machine or the library. Nothing was written."""
