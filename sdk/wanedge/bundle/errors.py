"""What can be wrong with a bundle."""

from wanedge_runtimes.errors import WanEdgeError


class BundleError(WanEdgeError):
    """A bundle cannot be opened, written or used as asked."""


class DamagedBundle(BundleError):
    """A file is missing, truncated or changed, or the manifest contradicts itself."""


class UnsupportedBundle(BundleError):
    """The bundle says something that this version of wanedge does not know."""


class UnsafePath(BundleError):
    """A path leaves the bundle, is a symbolic link, or means different files on different systems."""


class SignatureError(BundleError):
    """A bundle is unsigned, or its signature does not belong to its manifest and the given key."""
