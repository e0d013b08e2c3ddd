"""Write a bundle: all of it or nothing."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from wanedge.atomic import publish_folder, staged_file, staged_folder
from wanedge.bundle import paths
from wanedge.bundle.errors import BundleError, SignatureError, disk_errors
from wanedge.bundle.manifest import Contents, FileEntry, Manifest, seal
from wanedge.bundle.reader import Bundle
from wanedge.bundle.signature import load_private_key, make_signature
from wanedge.bundle.source import Folder, missing, read_hashed, read_manifest, read_release
from wanedge.trust.release import Release, Statement, add_signature, parse_release


class BundleWriter:
    """Collects files under a temporary name beside `path` and renames them there in `finish`.

        with BundleWriter(Path("kiosk")) as writer:
            writer.add_file("tokenizer.json", tokenizer_bytes)
            export_graphs_into(writer.directory("graphs/fp32"))
            bundle = writer.finish(contents)

    Whatever ends the `with` block before `finish`, nothing is left at `path` that was not there before.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path).absolute()
        self._overwrite = overwrite
        self._base: Bundle | None = None
        self._removed: set[str] = set()
        self._staging = ExitStack()
        self._staged: Path | None = None
        self._finished = False

    @classmethod
    def extend(cls, bundle: Bundle, path: str | Path | None = None) -> Self:
        """A writer that starts from an existing bundle and replaces it, or makes a larger copy at `path`.

        Files of the bundle that are not written again are carried over (by hard link when it is replaced). The
        result is unsigned: a signature belongs to one manifest.

        Raises BundleError when the bundle is an archive and no path is given.
        """
        if path is None and not bundle.origin.is_dir():
            raise BundleError(
                f"{bundle.origin} is an archive and cannot be extended in place",
                hint="unpack it first, or say where the extended bundle shall go",
            )
        writer = cls(bundle.root if path is None else path, overwrite=path is None)
        writer._base = bundle
        return writer

    def __enter__(self) -> Self:
        _require_replaceable(self.path, overwrite=self._overwrite)
        with disk_errors(self.path):
            self._staged = self._staging.enter_context(staged_folder(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._staging.close()
        self._staged = None
        if kind is None and not self._finished:
            raise BundleError(f"{self.path} was not written", hint="call finish() before the with block ends")

    def add_file(self, relative: str, source: Path | bytes) -> Path:
        """Write bytes, or copy a file, to `relative`; returns where it lies until `finish`. Raises UnsafePath."""
        target = self._place(relative)
        with disk_errors(self.path):
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                target.write_bytes(source)
            else:
                shutil.copyfile(source, target)
        return target

    def directory(self, relative: str) -> Path:
        """A folder to write files into directly, valid until `finish`. Raises UnsafePath."""
        target = self._place(relative)
        with disk_errors(self.path):
            target.mkdir(parents=True, exist_ok=True)
        return target

    def remove(self, relative: str) -> None:
        """Leave a file of the extended bundle behind. Raises BundleError when it has none of that name."""
        if self._base is None or relative not in self._base.manifest.files:
            raise BundleError(f"there is no {relative!r} to remove", hint=f"wanedge inspect {self.path}")
        self._removed.add(relative)

    def finish(self, contents: Contents) -> Bundle:
        """Hash every file, write the manifest, flush, rename; returns the bundle, opened.

        Raises DamagedBundle when `contents` names a file that was not written, UnsafePath when a file that was
        written may not be in a bundle, BundleError when the disk refuses or the extended bundle changed meanwhile.
        """
        staged = self._require_open()
        with disk_errors(self.path):
            written = dict(_hashed(staged))
            inherited = dict(self._inherited(written))  # with its old hashes: hashing again would hide damage
            manifest = Manifest.of(contents, {**inherited, **written}, self.path).to_bytes()
            self._staged = None  # from here on nothing can be repaired
            for relative in inherited:
                self._carry_over(relative, staged)
            (staged / paths.MANIFEST).write_bytes(manifest)
            (staged / paths.SEAL).write_bytes(seal(manifest))
            self._require_base_unchanged()
            publish_folder(staged, self.path, overwrite=self._overwrite)
        self._finished = True
        self._staging.close()
        return Bundle.open(self.path, obey=False)

    def _place(self, relative: str) -> Path:
        staged = self._require_open()
        paths.require_safe(relative, self.path)
        if relative in paths.CONTROL_FILES:
            raise BundleError(f"{relative} is written by finish()", hint="choose another name for this file")
        return staged / relative

    def _require_open(self) -> Path:
        if self._staged is None:
            raise BundleError(f"{self.path} is not being written", hint="use BundleWriter in a with statement, once")
        return self._staged

    def _inherited(self, written: dict[str, FileEntry]) -> Iterator[tuple[str, FileEntry]]:
        if self._base is not None:
            for relative, entry in self._base.manifest.files.items():
                if relative not in written and relative not in self._removed:
                    yield relative, entry

    def _carry_over(self, relative: str, staged: Path) -> None:
        assert self._base is not None
        source = paths.regular_file(self._base.root, relative)
        if source is None:
            raise missing(self._base.origin, relative)
        target = staged / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.path == self._base.root:  # the old name goes away, so no two bundles ever share a file
            try:
                target.hardlink_to(source)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, target)
        else:
            shutil.copyfile(source, target)

    def _require_base_unchanged(self) -> None:
        if self._base is None or self.path != self._base.root:
            return
        if Bundle.open(self.path, obey=False).digest != self._base.digest:
            raise BundleError(
                f"{self.path} was changed by someone else meanwhile", hint="open it again and repeat the last command"
            )


def sign(bundle_dir: Path, private_key: Path) -> Path:
    """Write `manifest.sig` into a bundle folder with the Ed25519 key in a PEM file; returns its path.

    Raises BundleError when the folder is no intact bundle, InputError for a wrong key, MissingExtra.
    """
    folder = Folder(bundle_dir)
    _, raw = read_manifest(folder, obey=False)
    target = folder.root / paths.SIGNATURE
    signature = make_signature(raw, private_key)
    with disk_errors(target), staged_file(target) as staged:
        staged.write_bytes(signature)
    return target


def sign_release(
    bundle_dir: Path, private_key: Path, version: int, expires: datetime | None = None
) -> tuple[Release, str]:
    """Write release.json and `manifest.sig` into a bundle folder; returns the statement and the public key in hex.

    Signatures of other keys over the same manifest, version and expiry stay. Raises as `sign`.
    """
    folder = Folder(bundle_dir)
    _, raw = read_manifest(folder, obey=False)
    key = load_private_key(private_key)
    statement = Statement(manifest_sha256=hashlib.sha256(raw).hexdigest(), version=version, expires=expires)
    old = read_release(folder)
    try:
        known = None if old is None else parse_release(old, bundle_dir)
    except SignatureError:
        known = None  # a damaged statement is replaced
    release = add_signature(statement, known, key)
    target = folder.root / paths.RELEASE
    with disk_errors(target), staged_file(target) as staged:
        staged.write_bytes(release.to_bytes())
    sign(bundle_dir, private_key)
    return release, key.public_key().public_bytes_raw().hex()


def _require_replaceable(path: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise BundleError(f"{path} exists", hint="choose another name, or overwrite it on purpose")
    # `--out ~` must not delete a home: only what says that it is a bundle is replaced.
    if path.is_symlink() or not path.is_dir() or (any(path.iterdir()) and not (path / paths.MANIFEST).is_file()):
        raise BundleError(f"{path} is not a bundle folder and will not be replaced", hint="choose another name")


def _hashed(staged: Path) -> Iterator[tuple[str, FileEntry]]:
    folder = Folder(staged)
    for relative in folder.names():
        size = folder.size(relative)  # refuses unsafe names, links, sockets
        assert size is not None
        yield relative, FileEntry(sha256=read_hashed(folder, relative, lambda _: None), bytes=size)
