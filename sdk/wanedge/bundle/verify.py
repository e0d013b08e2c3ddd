"""Check every byte of a bundle and say file by file what is wrong."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wanedge.bundle import paths
from wanedge.bundle.errors import DamagedBundle, UnsafePath
from wanedge.bundle.manifest import FileEntry
from wanedge.bundle.source import Source, open_source, read_hashed, read_manifest
from wanedge_runtimes.progress import OnProgress, no_progress

Status = Literal["ok", "missing", "damaged", "unsafe"]


@dataclass(frozen=True)
class FileCheck:
    """One listed file. `reason` is empty when it is ok."""

    path: str
    status: Status
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """files: every listed file, in the manifest's order. extra: what is there and not listed; it is never loaded."""

    path: Path
    files: tuple[FileCheck, ...]
    extra: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Every listed file is there and unchanged."""
        return not self.bad

    @property
    def bad(self) -> tuple[FileCheck, ...]:
        return tuple(check for check in self.files if check.status != "ok")


def verify(path: Path, *, public_key: Path | None = None, on_progress: OnProgress = no_progress) -> Report:
    """Read the whole bundle (folder or archive, in place) and compare it with its manifest. on_progress: in bytes.

    Raises BundleError only when the manifest itself cannot be trusted or read, or the archive is truncated.
    """
    with open_source(path) as source:
        manifest, _ = read_manifest(source, public_key)
        meter = _Meter(manifest.total_bytes, on_progress)
        checks = tuple(_check(source, relative, entry, meter) for relative, entry in manifest.files.items())
        listed = {*manifest.files, *paths.CONTROL_FILES}
        return Report(path, checks, tuple(name for name in source.names() if name not in listed))


@dataclass
class _Meter:
    total: int
    on_progress: OnProgress
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        self.on_progress(self.done, self.total)


def _check(source: Source, relative: str, entry: FileEntry, meter: _Meter) -> FileCheck:
    try:
        size = source.size(relative)
        if size is None:
            return FileCheck(relative, "missing", "the file is not there")
        if size != entry.bytes:
            return FileCheck(relative, "damaged", f"{size} bytes, the manifest says {entry.bytes}")
        actual = read_hashed(source, relative, lambda chunk: meter.add(len(chunk)))
    except UnsafePath as error:
        return FileCheck(relative, "unsafe", error.what)
    except DamagedBundle as error:
        return FileCheck(relative, "damaged", error.what)
    if actual != entry.sha256:
        return FileCheck(relative, "damaged", "its SHA-256 is not the manifest's")
    return FileCheck(relative, "ok")
