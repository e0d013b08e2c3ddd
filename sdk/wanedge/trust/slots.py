"""Two slots for a bundle, and the link that says which of them runs.

    /var/lib/wanedge/slots/a/        one bundle
    /var/lib/wanedge/slots/b/        the other
    /var/lib/wanedge/active -> slots/a
    /var/lib/wanedge/slots.json      what is known of each slot

The link is the only truth about what runs, and it changes in one step. An update is copied into the slot that does not
run, checked there, tried there, and only then the link is swapped; until then nothing that runs has changed. After the
swap it is on trial: `start` counts its starts, `mark_good` ends the trial, and a bundle that was started MOST_STARTS
times without that, or that cannot be opened, gives way to the one before.
"""

import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from wanedge.atomic import STAGED_SUFFIX, publish_folder, staged_file, staged_folder, sync_folder
from wanedge.bundle.archive import copy_bundle
from wanedge.bundle.errors import BundleError, disk_errors
from wanedge.bundle.reader import Bundle
from wanedge.bundle.source import Folder, read_manifest, read_release
from wanedge.trust.policy import Refused, load_trust, read_limited
from wanedge.trust.release import parse_release
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.strict import Strict, parse_json

LOG: Final = logging.getLogger("wanedge.trust")
GOOD_UNITS: Final = 375  # answered in a row: a minute, after which an update is no longer on trial
MOST_STARTS: Final = 3  # of a bundle on trial
_Name = Literal["a", "b"]
_NAMES: Final[tuple[_Name, ...]] = ("a", "b")


class InstallError(BundleError):
    """An update was not put in place; what ran before still runs."""


class Slot(Strict):
    """What is known of a slot. version: 0 of an unsigned bundle. digest: of its manifest."""

    digest: str
    version: int = Field(ge=0)
    status: Literal["trial", "good", "bad"]
    starts: int = Field(0, ge=0)


class SlotsFile(Strict):
    """slots.json. floor: the lowest version that may be installed or run."""

    wanedge_slots: Literal[1] = 1
    floor: int = Field(0, ge=0)
    slots: dict[_Name, Slot] = Field(default_factory=dict)


class Store:
    """The two slots under `root`. Every change is under a lock, so that any number of processes may use it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.link = root / "active"

    @classmethod
    def of(cls, path: Path) -> "Store | None":
        """The store whose active link `path` is; None for any other path."""
        store = cls(path.parent)
        return store if path.name == store.link.name and store._file.is_file() else None

    @property
    def active(self) -> _Name | None:
        """The slot that runs; None when nothing was installed yet."""
        try:
            name = self.link.readlink().name
        except OSError:
            return None
        return name if name in _NAMES else None

    def read(self) -> SlotsFile:
        """Raises InstallError when slots.json cannot be read."""
        try:
            return SlotsFile.model_validate(parse_json(read_limited(self._file)))
        except FileNotFoundError:
            return SlotsFile()
        except (OSError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise InstallError(
                f"{self._file} cannot be read ({reason})",
                hint=f"{self.link} still says what runs; move the file away and install again",
            ) from error

    def slot(self, name: _Name) -> Path:
        return self.root / "slots" / name

    def install(self, source: Path, self_test: Callable[[Path], None]) -> tuple[_Name, Slot]:
        """Put the bundle at `source` into the slot that does not run, and let it run from the next start on.

        self_test: gets the copy in the slot and raises WanEdgeError when it does not work here.

        Raises WanEdgeError: the bundle is refused, damaged, too old or does not work; what ran before still runs.
        """
        with self._locked():
            known, target = self.read(), self._other()
            self._clean()
            with disk_errors(self.root), staged_folder(self.slot(target)) as staged:
                staged.rmdir()  # copy_bundle makes it
                copy_bundle(source, staged)
                new = self._admitted(staged, source, known.floor)
                if known.slots.get(target) == new or (self.active and known.slots.get(self.active) == new):
                    raise InstallError(f"{source} is installed already", hint=f"ls -l {self.link}")
                self_test(staged)
                # From here on the old content of the slot is given up; what runs is in the other one.
                self._write(known.model_copy(update={"slots": {k: v for k, v in known.slots.items() if k != target}}))
                publish_folder(staged, self.slot(target), overwrite=True)
            slots = {**known.slots, target: new}
            self._write(known.model_copy(update={"slots": slots}))
            self._point(target)
        LOG.info("version %d was installed in slot %s", new.version, target)
        return target, new

    def rollback(self) -> tuple[_Name, Slot]:
        """Let the other slot run from the next start on. Raises InstallError when it holds nothing that may."""
        with self._locked():
            known, target = self.read(), self._other()
            slot = known.slots.get(target)
            if slot is None or self.active is None:
                raise InstallError("there is no other bundle to go back to", hint="install one: wanedge install BUNDLE")
            if slot.status == "bad" or slot.version < known.floor:
                raise InstallError(
                    f"slot {target} holds version {slot.version}, which is {slot.status} (the lowest allowed is "
                    f"{known.floor})",
                    hint="install a newer one: wanedge install BUNDLE",
                )
            Bundle.open(self.slot(target))
            self._point(target)
        LOG.warning("rolled back to version %d in slot %s", slot.version, target)
        return target, slot

    def start(self) -> Path:
        """Return the folder to open now, and count the start. Falls back when the bundle on trial had its chances.

        Raises WanEdgeError when neither slot can be opened.
        """
        with self._locked():
            self._clean()
            name = self.active
            if name is None:
                raise InstallError(f"nothing is installed in {self.root}", hint="wanedge install BUNDLE --store DIR")
            known = self.read()
            slot, reason = known.slots.get(name), ""
            if slot is not None and slot.status == "bad":
                reason = "it is marked as bad"
            elif slot is not None and slot.status == "trial" and slot.starts >= MOST_STARTS:
                reason = f"it was started {slot.starts} times and never answered {GOOD_UNITS} units"
            else:
                try:
                    Bundle.open(self.slot(name))
                except WanEdgeError as error:
                    reason = error.what
            if reason:
                return self._fall_back(known, name, reason)
            if slot is not None and slot.status == "trial":
                self._put(known, name, slot.model_copy(update={"starts": slot.starts + 1}))
            return self.slot(name)

    def mark_good(self) -> None:
        """The bundle that runs works: its trial is over. From now on nothing older than the one before it may run."""
        with self._locked():
            known, name = self.read(), self.active
            slot = known.slots.get(name) if name else None
            if name is None or slot is None or slot.status == "good":
                return
            others = [s.version for n, s in known.slots.items() if n != name and s.status == "good"]
            floor = max(known.floor, min([slot.version, *others]))
            self._put(known.model_copy(update={"floor": floor}), name, slot.model_copy(update={"status": "good"}))
        LOG.info("version %d in slot %s is good", slot.version, name)

    # -- inside

    @property
    def _file(self) -> Path:
        return self.root / "slots.json"

    def _other(self) -> _Name:
        return "b" if self.active == "a" else "a"

    def _admitted(self, staged: Path, source: Path, floor: int) -> Slot:
        """What a copy is, once the device's trust file allows it and every byte was checked."""
        folder = Folder(staged)
        read_manifest(folder)  # obeys the trust file
        statement, trust = read_release(folder), load_trust()
        version = 0 if statement is None or trust is None else parse_release(statement, source).version
        if version < floor:
            raise Refused(
                f"{source} is version {version}, and this device takes none below {floor}",
                hint="install a newer version; versions only go up",
            )
        return Slot(digest=Bundle.open(staged).digest, version=version, status="trial")

    def _fall_back(self, known: SlotsFile, name: _Name, reason: str) -> Path:
        target = self._other()
        other = known.slots.get(target)
        LOG.error("slot %s is given up: %s", name, reason)
        if other is None or other.status == "bad":
            raise InstallError(
                f"slot {name} cannot run ({reason}), and there is no other",
                hint="install a bundle: wanedge install BUNDLE --store DIR",
            )
        Bundle.open(self.slot(target))
        if (slot := known.slots.get(name)) is not None:
            self._put(known, name, slot.model_copy(update={"status": "bad"}))
        self._point(target)
        LOG.warning("version %d in slot %s runs instead", other.version, target)
        return self.slot(target)

    def _put(self, known: SlotsFile, name: _Name, slot: Slot) -> None:
        self._write(known.model_copy(update={"slots": {**known.slots, name: slot}}))

    def _write(self, content: SlotsFile) -> None:
        with disk_errors(self._file), staged_file(self._file) as staged:
            staged.write_text(content.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _point(self, name: _Name) -> None:
        """Swap the link in one step."""
        fresh = self.root / f".active.{secrets.token_hex(6)}{STAGED_SUFFIX}"
        with disk_errors(self.link):
            fresh.symlink_to(Path("slots") / name)
            fresh.replace(self.link)
            sync_folder(self.root)

    def _clean(self) -> None:
        """Remove what an earlier process left behind when it was killed; the lock says that none is at work."""
        for folder in (self.root, self.root / "slots"):
            for left in folder.glob(f".*{STAGED_SUFFIX}"):
                with suppress(OSError):
                    shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with disk_errors(self.root):
            (self.root / "slots").mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
