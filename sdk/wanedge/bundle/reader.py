"""Open a bundle and reach its files, each checked before it is used."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Self

from wanedge.bundle.archive import extracted
from wanedge.bundle.errors import BundleError, DamagedBundle
from wanedge.bundle.manifest import GraphFiles, Manifest, Variant
from wanedge.bundle.source import Folder, changed, read_hashed, read_manifest, require_sizes
from wanedge.bundle.verify import Report, verify
from wanedge.config import ModelConfig
from wanedge.pipeline.config import Pipeline
from wanedge_runtimes.progress import OnProgress, no_progress
from wanedge_runtimes.spec import GraphSpec, Profile

_Identity = tuple[int, int, int, int]  # device, inode, size and time of the last change, which nobody can set


class Bundle:
    """An open bundle. Safe to share between threads.

    origin: what was opened. root: the folder with the files, which for an archive is its extraction in the cache.
    digest: SHA-256 of the manifest in hex, the identity of the whole bundle.
    """

    def __init__(self, origin: Path, root: Path, manifest: Manifest, raw: bytes) -> None:
        self.origin = origin
        self.root = root
        self.manifest = manifest
        self.digest = hashlib.sha256(raw).hexdigest()
        self._verified: dict[str, list[_Identity]] = {}
        self._openings: list[dict[str, list[_Identity]]] = []
        self._lock = Lock()

    @classmethod
    def open(
        cls, path: str | Path, *, public_key: Path | None = None, cache: Path | None = None, obey: bool = True
    ) -> Self:
        """Open a bundle folder or archive.

        Checks the manifest, and that every file is there with its size. Contents are hashed when first used.

        Args:
            path: the folder or the archive.
            public_key: PEM file of an Ed25519 key; the bundle must be signed by its owner.
            cache: where to extract archives; see `default_cache`.
            obey: False opens a folder that the device's trust file does not allow, to write to it and not to run it.

        Raises:
            BundleError: no bundle there (DamagedBundle, UnsupportedBundle, UnsafePath, SignatureError say more).
        """
        path = Path(path)
        if path.is_dir():
            folder = Folder(path)
            manifest, raw = read_manifest(folder, public_key, obey=obey)
            require_sizes(folder, manifest)
            return cls(path, folder.root, manifest, raw)
        manifest, raw, root = extracted(path, public_key, cache)
        return cls(path, root, manifest, raw)

    @property
    def model(self) -> ModelConfig:
        """The Wan-Streamer configuration. Raises BundleError for a pipeline."""
        if isinstance(self.manifest.model, Pipeline):
            raise BundleError(
                f"{self.origin} holds the pipeline {self.manifest.model.name!r}, and this is for Wan-Streamer models",
                hint=f"wanedge inspect {self.origin}",
            )
        return self.manifest.model

    @property
    def pipeline(self) -> Pipeline | None:
        """The pipeline; None where the bundle holds a Wan-Streamer model."""
        return self.manifest.model if isinstance(self.manifest.model, Pipeline) else None

    def path(self, relative: str) -> Path:
        """A listed file, its SHA-256 checked on first use and when it changed. Raises BundleError, DamagedBundle."""
        entry = self.manifest.files.get(relative)
        if entry is None:
            raise BundleError(
                f"{self.origin}: {relative!r} is not listed in the manifest", hint=f"wanedge inspect {self.origin}"
            )
        with self._lock:
            identities = _identities(self.root, relative)
            if not identities or self._verified.get(relative) != identities:
                if read_hashed(Folder(self.root), relative, lambda _: None) != entry.sha256:
                    raise self._damaged(relative)
                self._verified[relative] = identities
            for opening in self._openings:
                opening[relative] = identities
        return self.root / relative

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Prove that the files whose paths are handed out inside are, at the end, those that `path` checked.

        For callers that give a path to something that opens it again. Raises DamagedBundle when one of the files, or a
        folder in front of it, was replaced or written to meanwhile. Between openings a bundle may be written again, as
        commands do that add a variant or a verdict.
        """
        handed_out: dict[str, list[_Identity]] = {}
        with self._lock:
            self._openings.append(handed_out)
        try:
            yield
        finally:
            with self._lock:
                self._openings = [each for each in self._openings if each is not handed_out]
        for relative, identities in handed_out.items():
            if _identities(self.root, relative) != identities:
                raise DamagedBundle(
                    f"{self.origin}: {relative} was changed while it was being opened",
                    hint="open it again; if it repeats, find out who writes there: ls -lc " + str(self.root),
                )

    def variant(
        self,
        name: str | None = None,
        *,
        runtime: str | None = None,
        precision: str | None = None,
        target: str | None = None,
        profile: Profile | None = None,
    ) -> Variant:
        """The one variant that has all the given properties. Raises BundleError, listing what there is."""
        expected = {"name": name, "runtime": runtime, "precision": precision, "target": target, "profile": profile}
        expected = {key: value for key, value in expected.items() if value is not None}
        variants = self.manifest.variants
        matching = [v for v in variants if all(getattr(v, key) == value for key, value in expected.items())]
        if len(matching) == 1:
            return matching[0]
        asked = ", ".join(f"{key} {value}" for key, value in expected.items()) or "anything"
        listing = "; ".join(map(str, matching or variants)) or "nothing"
        raise BundleError(
            f"{self.origin} has {len(matching) or 'no'} variants for {asked}",
            hint=f"choose one by name from: {listing}",
        )

    def graph(self, component: str, variant: Variant | str) -> tuple[Path, GraphSpec]:
        """A component's graph and spec in a variant; its external weights are checked too. Raises BundleError."""
        files = self._graph_files(component, variant)
        for data in files.data:
            self.path(data)
        return self.path(files.graph), self.manifest.components[component][files.spec]

    def spec(self, component: str, variant: Variant | str) -> GraphSpec:
        """A component's spec in a variant; its files are not looked at. Raises BundleError."""
        return self.manifest.components[component][self._graph_files(component, variant).spec]

    def tokenizer(self) -> Path:
        """The tokenizer's file. Raises BundleError for a pipeline, which has none."""
        if self.manifest.tokenizer is None:
            raise BundleError(f"{self.origin} has no tokenizer", hint=f"wanedge inspect {self.origin}")
        return self.path(self.manifest.tokenizer)

    def verify(self, on_progress: OnProgress = no_progress) -> Report:
        """Check every byte of the files that this bundle loads; `verify(path)` checks an archive itself."""
        return verify(self.root, on_progress=on_progress)

    def _graph_files(self, component: str, variant: Variant | str) -> GraphFiles:
        chosen = self.variant(variant) if isinstance(variant, str) else variant
        files = chosen.graphs.get(component)
        if files is None:
            raise BundleError(
                f"{self.origin}: variant {chosen.name!r} has no component {component!r}",
                hint=f"it has: {', '.join(chosen.graphs)}",
            )
        return files

    def _damaged(self, relative: str) -> BundleError:
        error = changed(self.origin, relative)
        if self.origin.is_dir():
            return error
        # The archive was whole when it was extracted, so a kiosk heals by itself at its next start.
        (self.root / relative).unlink(missing_ok=True)
        return DamagedBundle(
            f"{self.root}: the content of {relative} is damaged, in the extraction of {self.origin}",
            hint="open the archive again: it will be extracted again",
        )


def _identities(root: Path, relative: str) -> list[_Identity]:
    """Of a file, and of the folders in front of it up to the bundle's own: renaming one of these changes it, too."""
    found: list[_Identity] = []
    path = root
    for part in ("", *relative.split("/")):
        path = path / part
        try:
            s = path.lstat()
        except OSError:
            return []
        found.append((s.st_dev, s.st_ino, s.st_size, s.st_ctime_ns))
    return found
