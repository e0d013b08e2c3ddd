"""Ed25519 over the manifest's bytes; the manifest holds every other file's hash.

Make a pair of keys with OpenSSL:

    openssl genpkey -algorithm ed25519 -out private.pem
    openssl pkey -in private.pem -pubout -out public.pem

`manifest.sig` is the bare signature (64 bytes), which `openssl pkeyutl -verify -rawin` checks as well.
"""

from pathlib import Path
from typing import Any

from wanedge.bundle.errors import SignatureError
from wanedge_runtimes.errors import InputError, MissingExtra

_MAKE_KEY = "openssl genpkey -algorithm ed25519 -out private.pem"


def make_signature(manifest: bytes, private_key: Path) -> bytes:
    """The signature of `manifest` by the key in a PEM file. Raises InputError for a wrong key, MissingExtra."""
    signature: bytes = load_private_key(private_key).sign(manifest)
    return signature


def check_signature(manifest: bytes, signature: bytes | None, public_key: Path, where: Path) -> None:
    """Raise SignatureError unless `signature` is the key's signature of `manifest`."""
    from_source = f"get {where.name} again from its maker"
    library, key = ed25519(), _load(public_key, "public")
    if not isinstance(key, library.Ed25519PublicKey):
        raise InputError(f"{public_key} holds no Ed25519 public key", hint="openssl pkey -in private.pem -pubout")
    if signature is None:
        raise SignatureError(f"{where} is not signed", hint=f"{from_source}, or open it without public_key")

    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, manifest)
    except InvalidSignature as error:
        raise SignatureError(
            f"{where}: the signature does not belong to this manifest and the key {public_key}", hint=from_source
        ) from error


def load_private_key(path: Path) -> Any:
    """An Ed25519 private key from a PEM file. Raises InputError for another key or file, MissingExtra."""
    library, key = ed25519(), _load(path, "private")
    if not isinstance(key, library.Ed25519PrivateKey):
        raise InputError(f"{path} holds no Ed25519 private key", hint=_MAKE_KEY)
    return key


def ed25519() -> Any:
    """The library's module of Ed25519 keys. Raises MissingExtra."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519 as module
    except ImportError as error:
        raise MissingExtra("signatures need the package cryptography", hint="pip install 'wanedge[signing]'") from error
    return module


def _load(path: Path, kind: str) -> object:
    from cryptography.hazmat.primitives import serialization

    try:
        pem = path.read_bytes()
        if kind == "private":
            return serialization.load_pem_private_key(pem, password=None)
        return serialization.load_pem_public_key(pem)
    except Exception as error:  # TypeError: the key is encrypted; UnsupportedAlgorithm is no ValueError
        raise InputError(f"{path} cannot be read as a {kind} key in PEM form: {error}", hint=_MAKE_KEY) from error
