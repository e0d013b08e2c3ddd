"""Relative paths that a bundle may hold.

The rule is a list of what is allowed, not of what is forbidden: plain ASCII names joined by "/". That leaves no
room for "..", absolute paths, drive letters, backslashes, NUL, or two spellings of one Unicode name, and every
path means the same file on every file system.
"""

import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from wanedge.bundle.errors import BundleError, UnsafePath

MANIFEST, SEAL, SIGNATURE, RELEASE = "manifest.json", "manifest.sha256", "manifest.sig", "release.json"
CONTROL_FILES = (MANIFEST, SEAL, SIGNATURE, RELEASE)

_MAX_PATH = 240  # leaves room for the folder in front, under the 260 characters of older Windows
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=-]*(?<!\.)")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows opens these in any folder


def problem(path: str) -> str | None:
    """Return why `path` may not be in a bundle, or None when it may."""
    if len(path) > _MAX_PATH:
        return f"longer than {_MAX_PATH} characters"
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment):
            return f"{segment!r} is not a plain file name (letters, digits and ._+@=-, relative, no '..')"
        if _DEVICE.fullmatch(segment):
            return f"{segment!r} is a device name on Windows"
    return None


def conflict(paths: Iterable[str]) -> str | None:
    """Return which two of `paths` would be one file on some system, or None when all are distinct everywhere."""
    files: set[str] = set()
    spellings: dict[str, str] = {}  # lower case -> as written, for every file and every folder above it
    for path in paths:
        if path.lower() in files:
            return f"{path!r} is there twice (upper and lower case are one file on some systems)"
        files.add(path.lower())
        for prefix in (path, *map(str, PurePosixPath(path).parents)):
            if (other := spellings.setdefault(prefix.lower(), prefix)) != prefix:
                return f"{other!r} and {prefix!r} differ only by case"
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    if both := files & folders:
        return f"{sorted(both)[0]!r} is both a file and a folder"
    return None


def require_safe(path: str, where: Path) -> None:
    """Raise UnsafePath when `path` may not be in the bundle at `where`."""
    if reason := problem(path):
        raise UnsafePath(f"{where}: path {path!r} is not allowed: {reason}", hint="rename the file inside the bundle")


def regular_file(root: Path, relative: str) -> Path | None:
    """The file at `relative` under `root`, or None when it is missing.

    Raises UnsafePath when it, or a folder on the way to it, is a symbolic link, and when it is no regular file.
    """
    require_safe(relative, root)
    path, mode = root, 0
    for segment in relative.split("/"):
        path = path / segment
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(mode):
            raise UnsafePath(
                f"{path} is a symbolic link, which could lead out of the bundle",
                hint="copy the file itself into the bundle, or copy the bundle again",
            )
    if not stat.S_ISREG(mode):
        raise UnsafePath(f"{path} is not a regular file", hint="copy the bundle again from its source")
    return path


def entries(root: Path) -> Iterator[str]:
    """Relative paths of everything under `root` but folders, in sorted order; links are listed, not followed."""
    try:
        children = sorted(root.iterdir())
    except OSError as error:
        raise BundleError(f"{root} cannot be listed: {error.strerror}", hint="check its permissions: ls -l") from error
    for child in children:
        if child.is_dir() and not child.is_symlink():
            yield from (f"{child.name}/{below}" for below in entries(child))
        else:
            yield child.name
