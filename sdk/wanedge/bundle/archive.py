"""A bundle in one file: a ZIP file with stored members, in a fixed order and without timestamps.

Any unzip program can look inside. The same bundle always gives the same bytes.
"""

import hashlib
import os
import stat
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from wanedge.atomic import STAGED_SUFFIX, publish_folder, staged_file, staged_folder
from wanedge.bundle import paths
from wanedge.bundle.errors import BundleError, UnsafePath, disk_errors
from wanedge.bundle.manifest import Manifest
from wanedge.bundle.source import (
    CHUNK,
    Folder,
    Source,
    changed,
    open_archive,
    open_source,
    read_control,
    read_hashed,
    read_manifest,
    require_sizes,
)

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that ZIP can say
_STALE_S = 24 * 3600  # an extraction takes minutes; one this old was cut off by a power failure


def pack(bundle_dir: Path, archive_path: Path, *, overwrite: bool = False) -> Path:
    """Write the bundle folder to one file, checking every hash on the way; unlisted files stay behind.

    Raises DamagedBundle when the folder is damaged, BundleError when the archive exists and is not to be replaced.
    """
    folder = Folder(bundle_dir)
    manifest, _ = read_manifest(folder)
    require_sizes(folder, manifest)
    if archive_path.exists() and not overwrite:
        raise BundleError(f"{archive_path} exists", hint="choose another name, or overwrite it on purpose")
    with (
        disk_errors(archive_path),
        staged_file(archive_path) as staged,
        zipfile.ZipFile(staged, "w", zipfile.ZIP_STORED) as archive,
    ):
        for relative in _control_files(folder):
            archive.writestr(_member(relative), read_control(folder, relative))
        for relative, entry in manifest.files.items():
            with archive.open(_member(relative, entry.bytes), "w") as member:
                if read_hashed(folder, relative, member.write) != entry.sha256:
                    raise changed(bundle_dir, relative)
    return archive_path


def unpack(archive_path: Path, bundle_dir: Path) -> Path:
    """Write the archive's bundle to a new folder, checking every hash on the way.

    Raises DamagedBundle or UnsafePath for a bad archive, BundleError when the folder exists.
    """
    if os.path.lexists(bundle_dir):
        raise BundleError(f"{bundle_dir} exists", hint=f"choose another folder, or remove it: rm -r {bundle_dir}")
    with open_archive(archive_path) as archive:
        manifest, _ = read_manifest(archive)
        require_sizes(archive, manifest)
        with disk_errors(bundle_dir), staged_folder(bundle_dir) as staged:
            _extract(archive, manifest, staged)
            publish_folder(staged, bundle_dir, overwrite=False)
    return bundle_dir


def copy_bundle(source_path: Path, folder: Path) -> None:
    """Write the bundle at `source_path`, folder or archive, to the new folder, checking every hash on the way.

    Raises SignatureError, DamagedBundle or UnsafePath; what was written until then stays.
    """
    with open_source(source_path) as source:
        manifest, _ = read_manifest(source)
        require_sizes(source, manifest)
        with disk_errors(folder):
            folder.mkdir()
            _extract(source, manifest, folder)


_HINT = "set WANEDGE_CACHE to a folder that can be written to, or give the bundle as a folder (wanedge.bundle.unpack)"


def extracted(archive_path: Path, public_key: Path | None, cache: Path | None) -> tuple[Manifest, bytes, Path]:
    """The archive's manifest, its bytes, and a folder with the bundle's files.

    The folder is named by the manifest's hash, so the same bundle is extracted once, whatever its file is called,
    and any number of processes may ask for it at the same time.
    """
    with open_archive(archive_path) as archive:
        manifest, raw = read_manifest(archive, public_key)
        require_sizes(archive, manifest)
        home = (default_cache() if cache is None else cache).absolute()
        folder = home / hashlib.sha256(raw).hexdigest()
        if not _is_whole(folder, manifest, raw):
            _require_writable(home)
            _remove_stale(home)
            with disk_errors(folder), staged_folder(folder) as staged:
                _extract(archive, manifest, staged)
                _publish_extraction(staged, folder, manifest, raw)
    return manifest, raw, folder


def default_cache() -> Path:
    """Return $WANEDGE_CACHE, else `wanedge/bundles` in the user's cache folder. Safe to delete while nothing runs.

    Raises BundleError where the user has no home folder, as a service's often has not.
    """
    if chosen := os.environ.get("WANEDGE_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wanedge" / "bundles"
    except RuntimeError as error:  # of Path.home()
        raise BundleError("an archive is extracted to a cache, and this user has no home folder", hint=_HINT) from error


def _require_writable(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        writable = os.access(cache, os.W_OK | os.X_OK)
    except OSError as error:
        raise BundleError(
            f"an archive is extracted to {cache}, which cannot be made: {error.strerror}", hint=_HINT
        ) from error
    if not writable:
        raise BundleError(f"an archive is extracted to {cache}, which cannot be written to", hint=_HINT)


def _publish_extraction(staged: Path, folder: Path, manifest: Manifest, raw: bytes) -> None:
    # Another process may have been faster, with the same content; only a damaged folder is replaced.
    with disk_errors(folder):
        try:
            publish_folder(staged, folder, overwrite=folder.exists() and not _is_whole(folder, manifest, raw))
        except OSError:
            if not _is_whole(folder, manifest, raw):
                raise


def _is_whole(folder: Path, manifest: Manifest, raw: bytes) -> bool:
    """Return whether an earlier extraction has every file at its size; contents are checked when they are used."""
    source = Folder(folder)
    try:
        require_sizes(source, manifest)
        return source.size(paths.MANIFEST) == len(raw) and read_control(source, paths.MANIFEST) == raw
    except BundleError:
        return False


def _remove_stale(home: Path) -> None:
    for left in home.glob(f".*{STAGED_SUFFIX}"):
        with suppress(FileNotFoundError):  # its owner has just finished
            if left.stat().st_mtime < time.time() - _STALE_S:
                rmtree(left, ignore_errors=True)


def _extract(archive: Source, manifest: Manifest, folder: Path) -> None:
    for relative in _control_files(archive):
        with disk_errors(folder):
            (folder / relative).write_bytes(read_control(archive, relative))
    for relative, entry in manifest.files.items():
        if _copy_member(archive, relative, folder / relative) != entry.sha256:
            raise changed(archive.path, relative)


def _copy_member(archive: Source, relative: str, target: Path) -> str:
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb", buffering=CHUNK) as out:
            return read_hashed(archive, relative, out.write)


def _control_files(source: Source) -> list[str]:
    return [name for name in paths.CONTROL_FILES if source.size(name) is not None]


def _member(relative: str, size: int = 0) -> zipfile.ZipInfo:
    if reason := paths.problem(relative):
        raise UnsafePath(f"path {relative!r} is not allowed: {reason}", hint="rename the file inside the bundle")
    info = zipfile.ZipInfo(relative, _EPOCH)
    info.create_system = 3  # Unix, on every system, so that the bytes are the same
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = size  # tells zipfile in advance whether the member needs ZIP64
    return info
