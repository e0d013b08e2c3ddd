"""Atomic files and folders: a name on disk always means a whole one, even after a power cut.

Everything is written under a temporary name beside the final one, flushed, and renamed. Errors are OSError.
"""

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STAGED_SUFFIX = ".part"


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A new empty folder beside `final`, removed afterwards unless it was renamed away."""
    final.parent.mkdir(parents=True, exist_ok=True)
    staged = _staged_name(final)
    staged.mkdir()  # not tempfile.mkdtemp, whose folders only their owner can read
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def staged_file(final: Path) -> Iterator[Path]:
    """A name beside `final` to write a file to; flushed and renamed to `final` unless an exception passes."""
    final.parent.mkdir(parents=True, exist_ok=True)
    staged = _staged_name(final)
    try:
        yield staged
        _sync(staged)
        staged.replace(final)
        sync_folder(final.parent)
    finally:
        staged.unlink(missing_ok=True)


def publish_folder(staged: Path, final: Path, *, overwrite: bool) -> None:
    """Flush `staged` and rename it to `final`.

    With `overwrite`, a folder that is there changes places with the new one in one step where the kernel can,
    and is deleted. Without, FileExistsError or another OSError is raised when `final` is a folder with content.
    """
    _sync_tree(staged)
    if overwrite and final.is_dir():
        _exchange(staged, final)
    else:
        staged.rename(final)
    sync_folder(final.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names."""
    if os.name != "nt":  # Windows cannot open a folder, and keeps names in its journal
        _sync(folder)


def _staged_name(final: Path) -> Path:
    return final.with_name(f".{final.name}.{secrets.token_hex(6)}{STAGED_SUFFIX}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            _sync(Path(folder, name))
        sync_folder(Path(folder))


def _exchange(staged: Path, final: Path) -> None:
    """Put `staged` in `final`'s place and what was there under `staged`'s name."""
    if _exchanged_by_kernel(staged, final):
        return
    # Without the kernel's help there is a moment in which `final` does not exist, but never half of it.
    old = _staged_name(final)
    final.rename(old)
    try:
        staged.rename(final)
    except OSError:
        old.rename(final)
        raise
    with suppress(FileNotFoundError):
        shutil.rmtree(old)


def _exchanged_by_kernel(one: Path, other: Path) -> bool:
    """Linux renameat2 with RENAME_EXCHANGE; False where the kernel or the file system lacks it."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if renameat2 is None:
        return False
    at_fdcwd, rename_exchange = -100, 2  # from linux/fcntl.h and linux/fs.h
    if renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))
