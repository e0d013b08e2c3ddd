"""The release statement: which manifest is version n, until when, signed by one key or several.

It lies beside the manifest as release.json. What is signed names the manifest by its SHA-256, and the manifest names
every other file, so a statement speaks for every byte of the bundle:

    {"wanedge_release": 1, "manifest_sha256": "3b0c...", "version": 7, "expires": null,
     "signatures": {"9f31...": "<128 hex digits>"}}
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from wanedge.bundle.errors import SignatureError
from wanedge.bundle.signature import ed25519
from wanedge_runtimes.strict import Strict, parse_json

MOST_SIGNATURES = 16
_PURPOSE = b"wanedge release 1\n"  # so that no signature of anything else is one of a release
_AGAIN = "get the bundle again from its publisher, who signs it with: wanedge sign BUNDLE --key KEY --version N"


class Statement(Strict, strict=True):
    """What is signed. version: counts up with every release. expires: None never."""

    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    version: int = Field(ge=1, lt=2**53)
    expires: AwareDatetime | None = Field(None, strict=False)

    def to_bytes(self) -> bytes:
        """The bytes that signatures are over: the same for every reader of the same statement."""
        return _PURPOSE + json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()


class Release(Strict, strict=True):
    """release.json. signatures: by `key_id`, in hex."""

    wanedge_release: Literal[1] = 1
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    version: int = Field(ge=1, lt=2**53)
    expires: AwareDatetime | None = Field(None, strict=False)
    signatures: dict[str, str] = Field(max_length=MOST_SIGNATURES)

    @property
    def statement(self) -> Statement:
        return Statement(manifest_sha256=self.manifest_sha256, version=self.version, expires=self.expires)

    def to_bytes(self) -> bytes:
        return (json.dumps(self.model_dump(mode="json"), indent=1) + "\n").encode()

    def signed_by(self, public_key: str) -> bool:
        """Whether the key (64 hex digits) has signed this statement."""
        signature = self.signatures.get(key_id(public_key))
        try:
            raw = bytes.fromhex(signature or "")
            key = ed25519().Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        except ValueError:
            return False
        from cryptography.exceptions import InvalidSignature

        try:
            key.verify(raw, self.statement.to_bytes())
        except InvalidSignature:
            return False
        return True


def parse_release(raw: bytes, where: Path) -> Release:
    """Raises SignatureError for everything that is no release statement."""
    try:
        return Release.model_validate(parse_json(raw))
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise SignatureError(f"{where}: release.json is no release statement ({what})", hint=_AGAIN) from error
    except ValueError as error:
        raise SignatureError(f"{where}: release.json is not JSON ({error})", hint=_AGAIN) from error


def add_signature(statement: Statement, known: Release | None, private_key: Any) -> Release:
    """The release with one more signature, beside those of `known` that are over the same statement.

    private_key: an Ed25519 private key of the package cryptography.
    """
    signatures = dict(known.signatures) if known is not None and known.statement == statement else {}
    public = private_key.public_key().public_bytes_raw().hex()
    signatures[key_id(public)] = private_key.sign(statement.to_bytes()).hex()
    return Release(
        manifest_sha256=statement.manifest_sha256,
        version=statement.version,
        expires=statement.expires,
        signatures=signatures,
    )


def key_id(public_key: str) -> str:
    """The first 16 hex digits of the SHA-256 of a public key (hex)."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:16]
