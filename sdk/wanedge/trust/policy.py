"""The trust file of a device: whose bundles it runs. Every command and every `open` obeys it.

    {"wanedge_trust": 1, "unsigned": "refuse", "threshold": 1,
     "keys": {"build server": {"ed25519": "<64 hex digits>", "expires": "2028-01-01T00:00:00Z"}},
     "floor_file": "/var/lib/wanedge/slots.json"}

It is read from $WANEDGE_TRUST, or else from /etc/wanedge/trust.json. A device without one runs whatever is intact.
`wanedge sign` prints a public key in the form that goes in here.
"""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from wanedge.bundle.errors import BundleError, SignatureError
from wanedge.trust.release import Release, key_id, parse_release
from wanedge_runtimes.strict import Strict, parse_json

TRUST_FILE = Path("/etc/wanedge/trust.json")
VARIABLE = "WANEDGE_TRUST"
_LONGEST = 1 << 20  # bytes of a trust file or of a release statement


class Refused(SignatureError):
    """The device's trust file does not allow this bundle."""


class TrustFileError(BundleError):
    """The device's trust file cannot be read; nothing runs until it can."""


class Key(Strict):
    """A publisher's key. ed25519: the public key in hex. expires: from when on its signatures no longer count."""

    ed25519: str = Field(pattern=r"^[0-9a-f]{64}$")
    expires: AwareDatetime | None = None


class Trust(Strict):
    """The trust file. threshold: keys that must have signed. floor_file: where the lowest allowed version stands."""

    wanedge_trust: Literal[1] = 1
    unsigned: Literal["refuse", "allow"] = "refuse"
    threshold: int = Field(1, ge=1, le=16, strict=True)
    keys: dict[str, Key] = Field(default_factory=dict, max_length=64)
    floor_file: Path | None = None

    @model_validator(mode="after")
    def _threshold_can_be_reached(self) -> Self:
        different = {key.ed25519 for key in self.keys.values()}
        if len(different) < len(self.keys):
            raise ValueError("two names have the same key, which would count twice")
        if self.unsigned == "refuse" and len(different) < self.threshold:
            raise ValueError(f"{self.threshold} keys must sign, and it names {len(different)}")
        return self

    def floor(self) -> int:
        """The lowest version that may run. Raises TrustFileError when it is named and cannot be read."""
        if self.floor_file is None or not self.floor_file.exists():
            return 0
        try:
            floor = parse_json(read_limited(self.floor_file))["floor"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrustFileError(
                f"the lowest allowed version cannot be read from {self.floor_file} ({error})",
                hint="restore the file, or install again: wanedge install BUNDLE --store DIR",
            ) from error
        if type(floor) is not int or floor < 0:
            raise TrustFileError(f"{self.floor_file}: floor is {floor!r}", hint="restore the file from a backup")
        return floor

    def require(self, where: Path, manifest: bytes, release: Release | None, now: datetime) -> None:
        """Raise Refused unless this bundle may run here.

        where: the bundle, for messages. manifest: the bytes of its manifest. release: its statement, if it has one.
        """
        hint = f"get {where.name} signed by a trusted key: wanedge sign BUNDLE --key KEY --version N"
        if release is None:
            if self.unsigned == "refuse":
                raise Refused(f"{where} is not signed, and this device runs only signed bundles", hint=hint)
            return
        if release.manifest_sha256 != hashlib.sha256(manifest).hexdigest():
            raise Refused(f"{where}: release.json speaks of another manifest", hint=hint)
        signers = [n for n, key in self.keys.items() if not _past(key.expires, now) and release.signed_by(key.ed25519)]
        if len(signers) < self.threshold:
            expired = [
                n for n, k in self.keys.items() if _past(k.expires, now) and key_id(k.ed25519) in release.signatures
            ]
            why = f"; expired: {', '.join(expired)}" if expired else ""
            have = ", ".join(signers) or "nobody that this device knows"
            raise Refused(f"{where} is signed by {have}; {self.threshold} of its keys must sign{why}", hint=hint)
        if _past(release.expires, now):
            raise Refused(
                f"{where}: release {release.version} expired on {release.expires:%Y-%m-%d}",
                hint="install a newer one: wanedge install BUNDLE --store DIR; and check the clock: date",
            )
        if release.version < (floor := self.floor()):
            raise Refused(
                f"{where} is version {release.version}, and this device takes none below {floor}",
                hint="install a newer version; versions only go up",
            )


def load_trust() -> Trust | None:
    """The device's trust file; None where there is none. Raises TrustFileError when it is there and wrong."""
    chosen = os.environ.get(VARIABLE)
    path = Path(chosen) if chosen else TRUST_FILE
    try:
        return read_trust(path)
    except FileNotFoundError as error:
        if chosen:
            raise TrustFileError(
                f"${VARIABLE} names {path}, which is not there", hint=f"ls -l {path.parent}"
            ) from error
        return None


def read_trust(path: Path) -> Trust:
    """Raises FileNotFoundError when it is not there, TrustFileError for everything else that is wrong."""
    hint = "correct it; its form is in docs/trust.md. Until then this device opens no bundle"
    try:
        return Trust.model_validate(parse_json(read_limited(path)))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TrustFileError(f"the trust file {path} cannot be read: {error.strerror}", hint=hint) from error
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}".lstrip(": ")
        raise TrustFileError(f"{path} is no trust file ({what})", hint=hint) from error
    except ValueError as error:
        raise TrustFileError(f"{path} is no trust file ({error})", hint=hint) from error


def require_trusted(where: Path, manifest: bytes, release: bytes | None, trust: Trust | None = None) -> Release | None:
    """Raise Refused unless the device's trust file, or `trust`, allows a bundle; returns its release statement.

    Without a trust file a statement that is there is not looked at.
    """
    policy = trust or load_trust()
    if policy is None:
        return None
    statement = None if release is None else parse_release(release, where)
    policy.require(where, manifest, statement, datetime.now(UTC))
    return statement


def read_limited(path: Path) -> bytes:
    """A small file. Raises OSError, ValueError when it is not small."""
    with path.open("rb") as file:
        raw = file.read(_LONGEST + 1)
    if len(raw) > _LONGEST:
        raise ValueError(f"it is longer than {_LONGEST} bytes")
    return raw


def _past(date: datetime | None, now: datetime) -> bool:
    return date is not None and date <= now
