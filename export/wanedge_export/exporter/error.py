"""What the exporter raises."""

from wanedge_runtimes.errors import WanEdgeError


class ExportError(WanEdgeError):
    """A component breaks its protocol, or its graph is not what the spec and torch say. No file was written."""
