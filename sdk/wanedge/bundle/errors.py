"""Errors of bundles."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Raise an OSError of the body (no space, no permission, a failing disk) as a BundleError about `where`."""
    try:
        yield
    except OSError as error:
        hint = "free some space: df -h" if error.errno == errno.ENOSPC else "check the path and its permissions: ls -ld"
        name = error.filename2 or error.filename or where
        raise BundleError(f"{where}: {error.strerror or error} ({name})", hint=f"{hint} {where.parent}") from error
