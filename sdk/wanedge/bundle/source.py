"""Sources of a bundle's bytes: a folder, or an archive of one, behind the same interface."""

import hashlib
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from wanedge.bundle import paths
from wanedge.bundle.errors import BundleError, DamagedBundle, UnsafePath
from wanedge.bundle.manifest import Manifest, parse_manifest, seal
from wanedge.bundle.signature import check_signature
from wanedge.trust.policy import require_trusted

CHUNK = 1 << 20  # bytes per read: large enough for the disk, small enough for a small device
_CONTROL_LIMIT = 16 << 20  # bytes; nothing vouches for a manifest's size before it is read
COPY_AGAIN = "copy the bundle again from its source"

# What zipfile raises over damaged input, beside its own error.
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError)


class Source(Protocol):
    """`path` is what the user named."""

    path: Path

    def names(self) -> list[str]:
        """Relative paths of everything that is there, listed in a manifest or not."""

    def size(self, relative: str) -> int | None:
        """Bytes of a file, None when it is missing. Raises UnsafePath."""

    def open(self, relative: str) -> IO[bytes]:
        """The file for reading. Raises DamagedBundle when it is missing, UnsafePath."""


class Folder:
    """A bundle folder. Symbolic links inside it are refused; the folder itself may be reached through one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path.resolve()  # a "current" link that is switched later must not mix two bundles

    def names(self) -> list[str]:
        return list(paths.entries(self.root))

    def size(self, relative: str) -> int | None:
        file = paths.regular_file(self.root, relative)
        return None if file is None else file.stat().st_size

    def open(self, relative: str) -> IO[bytes]:
        file = paths.regular_file(self.root, relative)
        if file is None:
            raise missing(self.path, relative)
        return file.open("rb")


class Archive:
    """A bundle archive: a ZIP file whose members are stored, not compressed. Use `open_archive`."""

    def __init__(self, path: Path, members: zipfile.ZipFile) -> None:
        self.path = path
        self._zip = members
        self._infos = _checked(members, path)

    def names(self) -> list[str]:
        return sorted(self._infos)

    def size(self, relative: str) -> int | None:
        info = self._infos.get(relative)
        return None if info is None else info.file_size

    def open(self, relative: str) -> IO[bytes]:
        if relative not in self._infos:
            raise missing(self.path, relative)
        return self._zip.open(self._infos[relative])


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """The bundle at `path`. Raises BundleError when there is none, DamagedBundle for a broken archive."""
    if path.is_dir():
        yield Folder(path)
    else:
        with open_archive(path) as archive:
            yield archive


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The archive at `path`, checked member by member before anything is read from it."""
    if not path.is_file():
        raise BundleError(f"there is no bundle at {path}", hint="check the path: ls -l " + str(path.parent))
    with reading(path):
        members = zipfile.ZipFile(path)
    with members:
        yield Archive(path, members)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise a failure to read the bundle at `path` (truncated, damaged, failing disk) as DamagedBundle."""
    try:
        yield
    except PermissionError as error:
        raise BundleError(f"{path} may not be read: {error.filename}", hint=f"ls -lR {path}") from error
    except _ZIP_ERRORS as error:
        raise DamagedBundle(f"{path} is truncated or damaged: {error}", hint=COPY_AGAIN) from error


def missing(path: Path, relative: str) -> DamagedBundle:
    return DamagedBundle(f"{path}: {relative} is missing", hint=COPY_AGAIN)


def read_manifest(source: Source, public_key: Path | None = None, *, obey: bool = True) -> tuple[Manifest, bytes]:
    """The manifest and its bytes, checked against the seal, the device's trust file and, given a key, the signature.

    obey: False leaves the trust file out, for those who write bundles and do not run them.

    Raises SignatureError, UnsupportedBundle, UnsafePath or DamagedBundle.
    """
    if source.size(paths.MANIFEST) is None:
        raise DamagedBundle(f"{source.path} is not a bundle: it has no {paths.MANIFEST}", hint=COPY_AGAIN)
    raw = read_control(source, paths.MANIFEST)
    if public_key is not None:
        signed = source.size(paths.SIGNATURE) is not None
        signature = read_control(source, paths.SIGNATURE) if signed else None
        check_signature(raw, signature, public_key, source.path)
    if obey:
        require_trusted(source.path, raw, read_release(source))
    intact = read_control(source, paths.SEAL) == seal(raw)
    try:
        manifest = parse_manifest(raw, source.path)
    except BundleError as error:
        if intact:
            raise
        # What a changed manifest says may be an accident; what it says wrong is still the best clue.
        what = f"{error.what} ({paths.MANIFEST} was changed after it was written)"
        raise type(error)(what, hint=error.hint) from error
    if not intact:
        raise DamagedBundle(
            f"{source.path}: {paths.MANIFEST} was changed after it was written (it disagrees with {paths.SEAL})",
            hint=COPY_AGAIN,
        )
    return manifest, raw


def read_release(source: Source) -> bytes | None:
    """The bytes of the release statement, None where there is none."""
    return None if source.size(paths.RELEASE) is None else read_control(source, paths.RELEASE)


def read_control(source: Source, relative: str) -> bytes:
    """A whole control file."""
    with reading(source.path), source.open(relative) as file:
        raw = file.read(_CONTROL_LIMIT + 1)
    if len(raw) > _CONTROL_LIMIT:
        raise DamagedBundle(f"{source.path}: {relative} is longer than {_CONTROL_LIMIT} bytes", hint=COPY_AGAIN)
    return raw


def require_sizes(source: Source, manifest: Manifest) -> None:
    """Raise DamagedBundle for the first listed file that is missing or has another size."""
    for relative, entry in manifest.files.items():
        size = source.size(relative)
        if size is None:
            raise missing(source.path, relative)
        if size != entry.bytes:
            raise DamagedBundle(
                f"{source.path}: {relative} has {size} bytes, the manifest says {entry.bytes}", hint=COPY_AGAIN
            )


def read_hashed(source: Source, relative: str, take: Callable[[bytes], object]) -> str:
    """Read a file once, handing every chunk to `take`; returns its SHA-256 in hex."""
    digest = hashlib.sha256()
    with reading(source.path):
        file = source.open(relative)
    with file:
        while True:
            with reading(source.path):  # not around `take`, whose failures are its own
                chunk = file.read(CHUNK)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)
            take(chunk)


def changed(path: Path, relative: str) -> DamagedBundle:
    return DamagedBundle(
        f"{path}: the content of {relative} is damaged (its SHA-256 is not the manifest's)",
        hint=f"see what else is: wanedge verify {path}; then {COPY_AGAIN}",
    )


def _checked(members: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    infos = members.infolist()
    for info in infos:
        name = info.orig_filename  # ZipInfo.filename is already cut at NUL and freed of backslashes
        paths.require_safe(name, path)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UnsafePath(f"{path}: {name} is a symbolic link", hint="pack the folder again with wanedge")
        # Stored members cannot grow beyond the archive, so no archive can fill the disk.
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise DamagedBundle(f"{path}: {name} is compressed or encrypted", hint="pack the folder again with wanedge")
    names = [info.orig_filename for info in infos]
    if reason := paths.conflict(names):
        raise UnsafePath(f"{path}: {reason}", hint="pack the folder again with wanedge")
    if sum(info.file_size for info in infos) > path.stat().st_size:
        raise DamagedBundle(f"{path}: its members overlap or claim more than there is", hint=COPY_AGAIN)
    return dict(zip(names, infos, strict=True))
