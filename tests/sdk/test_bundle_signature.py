"""Given a key, only what its owner signed is opened."""

import builtins
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import FILES, MADE, contents, edit_manifest, flip, write_bundle
from wanedge.bundle import Bundle, BundleWriter, SignatureError, pack, sign, unpack, verify
from wanedge_runtimes.errors import InputError, MissingExtra


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_keys(tmp_path / "keys")


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    root = write_bundle(tmp_path / "kiosk").root
    sign(root, keys[0])
    return root


def make_keys(folder: Path) -> tuple[Path, Path]:
    """A private and a public key in PEM files."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder.mkdir()
    key, pem = Ed25519PrivateKey.generate(), serialization.Encoding.PEM
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_signed_bundle_opens_with_its_key_and_without_any(signed: Path, keys: tuple[Path, Path]) -> None:
    assert Bundle.open(signed, public_key=keys[1]).path("tokenizer.json").read_bytes() == FILES["tokenizer.json"]
    assert Bundle.open(signed).verify().ok
    assert verify(signed, public_key=keys[1]).extra == ()


def test_the_signature_travels_in_the_archive(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    archive = pack(signed, tmp_path / "kiosk.wanedge")
    Bundle.open(archive, public_key=keys[1], cache=tmp_path / "cache")
    Bundle.open(unpack(archive, tmp_path / "again"), public_key=keys[1])


def test_an_unsigned_bundle_is_refused(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    root = write_bundle(tmp_path / "kiosk").root
    archive = pack(root, tmp_path / "kiosk.wanedge")
    for path in (root, archive):
        with pytest.raises(SignatureError, match="not signed"):
            Bundle.open(path, public_key=keys[1], cache=tmp_path / "cache")


def test_an_earlier_extraction_does_not_lend_its_signature(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    Bundle.open(pack(signed, tmp_path / "signed.wanedge"), public_key=keys[1], cache=tmp_path / "cache")
    (signed / "manifest.sig").unlink()
    unsigned = pack(signed, tmp_path / "unsigned.wanedge")
    with pytest.raises(SignatureError, match="not signed"):
        Bundle.open(unsigned, public_key=keys[1], cache=tmp_path / "cache")


def test_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    _, other = make_keys(tmp_path / "other")
    with pytest.raises(SignatureError, match="does not belong"):
        Bundle.open(signed, public_key=other)


def test_a_changed_manifest_is_refused_before_it_is_believed(signed: Path, keys: tuple[Path, Path]) -> None:
    edit_manifest(signed, lambda m: m.update(schema_version=99))
    with pytest.raises(SignatureError, match="does not belong"):
        Bundle.open(signed, public_key=keys[1])


@pytest.mark.parametrize("position", [0, 31, 63])
def test_a_flipped_byte_in_the_signature_is_refused(signed: Path, keys: tuple[Path, Path], position: int) -> None:
    flip(signed / "manifest.sig", position)
    with pytest.raises(SignatureError, match="does not belong"):
        Bundle.open(signed, public_key=keys[1])


def test_extending_drops_the_signature(signed: Path, keys: tuple[Path, Path]) -> None:
    with BundleWriter.extend(Bundle.open(signed, public_key=keys[1])) as writer:
        writer.finish(contents(made=MADE, weights_note="changed"))
    with pytest.raises(SignatureError, match="not signed"):
        Bundle.open(signed, public_key=keys[1])


def test_what_is_no_key_is_said_so(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    with pytest.raises(InputError, match="public key"):
        Bundle.open(signed, public_key=private)
    with pytest.raises(InputError, match="private key"):
        sign(signed, public)
    with pytest.raises(InputError, match="cannot be read"):
        Bundle.open(signed, public_key=tmp_path / "nowhere.pem")


def test_openssl_agrees(signed: Path, keys: tuple[Path, Path]) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl program")
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(keys[1])]
    files = ["-in", str(signed / "manifest.json"), "-sigfile", str(signed / "manifest.sig")]
    assert subprocess.run([*command, *files], check=False, capture_output=True).returncode == 0


def test_without_the_extra_the_pip_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_bundle(tmp_path / "kiosk").root
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'wanedge\[signing\]'"):
        Bundle.open(root, public_key=tmp_path / "public.pem")
    assert Bundle.open(root).verify().ok
