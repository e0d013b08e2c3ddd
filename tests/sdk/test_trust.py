"""Trust: what a device's trust file refuses, and that a bad update leaves what ran before, whatever is bad about it."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.bundles import edit_manifest, flip, write_bundle
from wanedge.bundle import Bundle, BundleWriter, DamagedBundle, SignatureError, pack, sign_release, verify
from wanedge.cli.app import build_app
from wanedge.model import Model
from wanedge.session import Session
from wanedge.trust import slots
from wanedge.trust.policy import Refused, TrustFileError
from wanedge.trust.self_test import self_test
from wanedge.trust.slots import GOOD_UNITS, MOST_STARTS, InstallError, Store
from wanedge_runtimes.errors import InputError, WanEdgeError

pytest.importorskip("cryptography")
PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Four publishers' keys: PEM file, and public key in hex."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    folder, found = tmp_path_factory.mktemp("keys"), {}
    for name in ("ours", "second", "expired", "stranger"):
        key = ed25519.Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / name).write_bytes(pem)
        found[name] = (folder / name, key.public_key().public_bytes_raw().hex())
    return found


class Device:
    """A device with a trust file and a store in which version 5 runs and is good."""

    def __init__(self, root: Path, keys: dict[str, tuple[Path, str]], **trust: Any) -> None:
        self.root, self.keys = root, keys
        self.trust = root / "trust.json"
        self.store = Store(root / "store")
        self.trust_with(**trust)

    def trust_with(self, **changes: Any) -> None:
        content = {
            "wanedge_trust": 1,
            "unsigned": "refuse",
            "threshold": 1,
            "keys": {
                "ours": {"ed25519": self.keys["ours"][1]},
                "second": {"ed25519": self.keys["second"][1]},
                "expired": {"ed25519": self.keys["expired"][1], "expires": PAST.isoformat()},
            },
            "floor_file": str(self.store.root / "slots.json"),
        }
        self.trust.write_text(json.dumps(content | changes))

    def bundle(self, version: int | None, *signers: str, expires: datetime | None = None) -> Path:
        path = self.root / f"update-{version}"
        shutil.rmtree(path, ignore_errors=True)
        write_bundle(path)
        edit_manifest(path, lambda manifest: manifest.update(weights_note=f"release {version}"))
        for signer in signers:
            assert version is not None
            sign_release(path, self.keys[signer][0], version, expires)
        return path

    def runs(self) -> str:
        """What the next start opens, whole."""
        folder = self.store.start()
        assert verify(folder).ok
        return Bundle.open(folder).manifest.weights_note


def works(_: Path) -> None:
    """A self-test that passes: the graphs of these small bundles are arbitrary bytes."""


@pytest.fixture
def device(tmp_path: Path, keys: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device(tmp_path, keys)
    monkeypatch.setenv("WANEDGE_TRUST", str(device.trust))
    device.store.install(device.bundle(5, "ours"), works)
    device.store.mark_good()
    assert device.store.read().floor == 5
    return device


def release(path: Path, **changes: Any) -> None:
    content = json.loads((path / "release.json").read_bytes())
    (path / "release.json").write_text(json.dumps(content | changes))


def signed(d: Device, change: Callable[[Path], object], *signers: str) -> Path:
    """An update that was signed, and changed afterwards."""
    path = d.bundle(6, *(signers or ("ours",)))
    change(path)
    return path


def _stripped(p: Path) -> None:
    (p / "release.json").unlink()


def _swapped_signature(p: Path) -> None:
    content = json.loads((p / "release.json").read_bytes())["signatures"]
    release(p, signatures=dict.fromkeys(content, "0" * 128))


def _link(p: Path) -> None:
    (p / "tokenizer.json").unlink()
    (p / "tokenizer.json").symlink_to("/etc/hostname")


def _packed(p: Path, at: int) -> Path:
    archive = pack(p, p.with_suffix(".wanedge"), overwrite=True)
    flip(archive, at if at >= 0 else archive.stat().st_size + at)
    return archive


def _truncated(p: Path, size: int) -> Path:
    archive = pack(p, p.with_suffix(".wanedge"), overwrite=True)
    os.truncate(archive, archive.stat().st_size * size // 100)
    return archive


def _packed_elsewhere(path: Path) -> Path:
    """Pack a bundle where no trust file is in the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANEDGE_TRUST")
        return pack(path, path.with_suffix(".wanedge"), overwrite=True)


def _other_release(d: Device) -> Path:
    """The statement of one bundle beside the files of another."""
    old = (d.bundle(7, "ours") / "release.json").read_bytes()
    path = d.bundle(6, "ours")
    (path / "release.json").write_bytes(old)
    return path


BAD: dict[str, Callable[[Device], Path]] = {
    "unsigned": lambda d: d.bundle(None),
    "signature removed": lambda d: signed(d, _stripped),
    "signed by a stranger": lambda d: d.bundle(6, "stranger"),
    "signed with an expired key": lambda d: d.bundle(6, "expired"),
    "expired release": lambda d: d.bundle(6, "ours", expires=PAST),
    "older version": lambda d: d.bundle(4, "ours"),
    "much older version": lambda d: d.bundle(1, "ours"),
    "another release's statement": _other_release,
    "signature of zeros": lambda d: signed(d, _swapped_signature),
    "version raised": lambda d: signed(d, lambda p: release(p, version=9)),
    "version lowered": lambda d: signed(d, lambda p: release(p, version=5)),
    "version as text": lambda d: signed(d, lambda p: release(p, version="6")),
    "version negative": lambda d: signed(d, lambda p: release(p, version=-6)),
    "version of a thousand digits": lambda d: signed(d, lambda p: release(p, version=10**1000)),
    "expiry moved": lambda d: signed(d, lambda p: release(p, expires=FUTURE.isoformat())),
    "statement of the future": lambda d: signed(d, lambda p: release(p, wanedge_release=2)),
    "statement with a field too many": lambda d: signed(d, lambda p: release(p, run="rm -r /")),
    "signatures as a list": lambda d: signed(d, lambda p: release(p, signatures=[])),
    "signature too short": lambda d: signed(d, lambda p: release(p, signatures={"a": "00"})),
    "signature in no hex": lambda d: signed(d, lambda p: release(p, signatures={"a": "x" * 128})),
    "a thousand signatures": lambda d: signed(d, lambda p: release(p, signatures={str(i): "0" for i in range(1000)})),
    "empty statement": lambda d: signed(d, lambda p: (p / "release.json").write_bytes(b"")),
    "statement in UTF-16": lambda d: signed(d, lambda p: (p / "release.json").write_bytes(b"\xff\xfe{\x00}\x00")),
    "statement nested deeply": lambda d: signed(d, lambda p: (p / "release.json").write_bytes(b"[" * 100_000)),
    "statement of 20 MB": lambda d: signed(d, lambda p: (p / "release.json").write_bytes(b" " * 20_000_000)),
    "statement twice the key": lambda d: signed(
        d, lambda p: (p / "release.json").write_bytes((p / "release.json").read_bytes()[:-2] + b',"version": 9}')
    ),
    "manifest changed": lambda d: signed(d, lambda p: edit_manifest(p, lambda m: m.update(weights_note="x"))),
    "manifest changed, seal not": lambda d: signed(d, lambda p: flip(p / "manifest.json", 100)),
    "seal changed": lambda d: signed(d, lambda p: flip(p / "manifest.sha256", 3)),
    "seal missing": lambda d: signed(d, lambda p: (p / "manifest.sha256").unlink()),
    "manifest missing": lambda d: signed(d, lambda p: (p / "manifest.json").unlink()),
    "manifest empty": lambda d: signed(d, lambda p: (p / "manifest.json").write_bytes(b"")),
    "graph changed": lambda d: signed(d, lambda p: flip(p / "graphs/fp32/backbone.onnx", 5)),
    "weights changed": lambda d: signed(d, lambda p: flip(p / "graphs/fp32/backbone.weights", 5)),
    "last byte of the weights changed": lambda d: signed(d, lambda p: flip(p / "graphs/fp32/backbone.weights", -1)),
    "tokenizer changed": lambda d: signed(d, lambda p: flip(p / "tokenizer.json", 2)),
    "graph missing": lambda d: signed(d, lambda p: (p / "graphs/fp32/backbone.onnx").unlink()),
    "graph longer": lambda d: signed(d, lambda p: (p / "graphs/fp32/text_embed.onnx").write_bytes(b"x" * 500)),
    "graph empty": lambda d: signed(d, lambda p: (p / "graphs/fp32/text_embed.onnx").write_bytes(b"")),
    "a link in place of a file": lambda d: signed(d, _link),
    "no bundle": lambda d: d.root / "nothing",
    "an empty folder": lambda d: Path(shutil.copytree(d.store.root / "slots", d.root / "empty")) / "none",
    "a file that is no archive": lambda d: d.trust,
    "archive, first byte": lambda d: _packed(d.bundle(6, "ours"), 0),
    "archive, in the manifest": lambda d: _packed(d.bundle(6, "ours"), 300),
    "archive, last byte but 30": lambda d: _packed(d.bundle(6, "ours"), -30),
    "archive cut to 99 %": lambda d: _truncated(d.bundle(6, "ours"), 99),
    "archive cut to half": lambda d: _truncated(d.bundle(6, "ours"), 50),
    "archive cut to nothing": lambda d: _truncated(d.bundle(6, "ours"), 0),
    "an older archive": lambda d: _packed_elsewhere(d.bundle(4, "ours")),
    "an unsigned archive": lambda d: _packed_elsewhere(d.bundle(None)),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_update_is_refused_and_the_old_bundle_runs(kind: str, device: Device) -> None:
    bad = BAD[kind](device)
    known = device.store.read()
    with pytest.raises(WanEdgeError) as refusal:
        device.store.install(bad, works)
    assert refusal.value.hint
    assert device.runs() == "release 5"
    assert device.store.read() == known
    assert not list((device.store.root / "slots").glob(".*.part"))


def test_at_least_fifty_kinds_of_bad_updates_are_tried() -> None:
    assert len(BAD) >= 50


@pytest.mark.parametrize("signers", [("ours",), ("ours", "expired"), ("ours", "stranger"), ("second",), ()])
def test_fewer_keys_than_the_threshold_are_not_enough(signers: tuple[str, ...], device: Device) -> None:
    device.trust_with(threshold=2)
    update = device.bundle(6, *signers)
    with pytest.raises(SignatureError):
        device.store.install(update, works)
    device.trust_with(threshold=1)
    assert device.runs() == "release 5"


def test_two_keys_reach_a_threshold_of_two(device: Device) -> None:
    device.trust_with(threshold=2)
    device.store.install(device.bundle(6, "ours", "second"), works)
    assert device.runs() == "release 6"


def test_signatures_over_another_version_do_not_add_up(device: Device) -> None:
    path = device.bundle(6, "ours")
    statement, _ = sign_release(path, device.keys["second"][0], 7)
    assert len(statement.signatures) == 1


@pytest.mark.parametrize("step", ["_admitted", "_write", "_point", "publish_folder", "copy_bundle"])
@pytest.mark.parametrize("after", [False, True])
def test_power_lost_at_a_step_leaves_one_that_runs(
    step: str, after: bool, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner: Any = slots if step in ("publish_folder", "copy_bundle") else Store
    real = getattr(owner, step)

    class PowerCut(BaseException):
        pass

    def cut(*arguments: Any, **options: Any) -> Any:
        if after:
            real(*arguments, **options)
        raise PowerCut(step)

    monkeypatch.setattr(owner, step, cut)
    with pytest.raises(PowerCut):
        device.store.install(device.bundle(6, "ours"), works)
    monkeypatch.setattr(owner, step, real)
    assert device.runs() == ("release 6" if (step, after) == ("_point", True) else "release 5")
    device.store.install(device.bundle(7, "ours"), works)  # and the next update is not in its way
    assert device.runs() == "release 7"


def test_a_self_test_that_fails_leaves_the_old_bundle(device: Device) -> None:
    def fails(_: Path) -> None:
        raise InstallError("it gave NaN", hint="validate it")

    with pytest.raises(InstallError, match="NaN"):
        device.store.install(device.bundle(6, "ours"), fails)
    assert device.runs() == "release 5"


def test_an_update_that_never_proves_itself_gives_way_after_its_starts(device: Device) -> None:
    device.store.install(device.bundle(6, "ours"), works)
    assert [device.runs() for _ in range(MOST_STARTS)] == ["release 6"] * MOST_STARTS
    assert device.runs() == "release 5"
    assert device.runs() == "release 5"
    with pytest.raises(InstallError, match="bad"):
        device.store.rollback()


def test_an_update_that_proved_itself_stays_and_can_be_taken_back(device: Device) -> None:
    device.store.install(device.bundle(6, "ours"), works)
    device.store.start()
    device.store.mark_good()
    assert [device.runs() for _ in range(MOST_STARTS + 2)] == ["release 6"] * (MOST_STARTS + 2)
    device.store.rollback()
    assert device.runs() == "release 5"


def test_the_floor_rises_behind_the_bundle_that_can_still_be_taken_back(device: Device) -> None:
    for version, floor in ((6, 5), (8, 6), (9, 8)):
        device.store.install(device.bundle(version, "ours"), works)
        device.store.mark_good()
        assert device.store.read().floor == floor
    with pytest.raises(Refused, match="none below 8"):
        device.store.install(device.bundle(7, "ours"), works)
    with pytest.raises(Refused, match="none below 8"):
        Bundle.open(device.bundle(7, "ours"))


def test_damage_to_the_bundle_that_runs_brings_the_other_one_back(device: Device) -> None:
    device.store.install(device.bundle(6, "ours"), works)
    device.store.mark_good()
    (device.store.slot("b") / "manifest.json").write_bytes(b"{")
    assert device.runs() == "release 5"


OPENERS: dict[str, Callable[[Path], object]] = {
    "Bundle.open": Bundle.open,
    "Session.open": Session.open,
    "Model.load": Model.load,
    "verify": verify,
    "pack": lambda path: pack(path, path.with_name("x.wanedge")),
}


@pytest.mark.parametrize("opener", OPENERS)
def test_every_opener_obeys_the_trust_file(opener: str, device: Device) -> None:
    with pytest.raises(Refused, match="not signed"):
        OPENERS[opener](device.bundle(None))
    with pytest.raises(Refused, match="nobody that this device knows"):
        OPENERS[opener](device.bundle(6, "stranger"))


@pytest.mark.parametrize("command", [["inspect"], ["verify"], ["run", "-"], ["bench"], ["install", "--store", "x"]])
def test_every_command_obeys_the_trust_file(command: list[str], device: Device) -> None:
    arguments = [command[0], str(device.bundle(None)), *command[1:]]
    result = CliRunner().invoke(build_app([]), arguments)
    assert result.exit_code == 1
    assert "is not signed" in result.output


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b'{"wanedge_trust": 2}',
        b'{"wanedge_trust": 1}',
        b'{"wanedge_trust": 1, "unsigned": "allow", "unsigned": "refuse"}',
        b'{"wanedge_trust": 1, "threshold": 0}',
        b'{"wanedge_trust": 1, "unsigned": "maybe"}',
        b"[" * 100_000,
    ],
)
def test_a_trust_file_that_cannot_be_read_opens_nothing(content: bytes, device: Device) -> None:
    update = device.bundle(6, "ours")
    device.trust.write_bytes(content)
    with pytest.raises(TrustFileError):
        Bundle.open(update)
    device.trust.unlink()
    with pytest.raises(TrustFileError):
        Bundle.open(update)


def test_one_key_under_two_names_does_not_count_twice(device: Device) -> None:
    ours = {"ed25519": device.keys["ours"][1]}
    device.trust_with(threshold=2, keys={"a": ours, "b": ours})
    with pytest.raises(TrustFileError, match="same key"):
        Bundle.open(device.bundle(6, "ours"))


def test_without_a_trust_file_everything_that_is_whole_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, tuple[Path, str]]
) -> None:
    monkeypatch.delenv("WANEDGE_TRUST", raising=False)
    device = Device(tmp_path, keys)
    assert Bundle.open(device.bundle(None)).manifest.weights_note == "release None"
    assert Bundle.open(device.bundle(6, "stranger")).manifest.weights_note == "release 6"


def test_a_signed_archive_is_installed_from_the_command_line(
    mini_bundle: Bundle, tmp_path: Path, keys: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path, keys)
    monkeypatch.setenv("WANEDGE_TRUST", str(device.trust))
    folder = Path(shutil.copytree(mini_bundle.root, tmp_path / "kiosk"))
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"

    def wanedge(*arguments: object) -> dict[str, Any]:
        result = CliRunner().invoke(build_app([]), [*map(str, arguments), "--json"])
        assert result.exit_code == 0, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    signed = wanedge("sign", folder, "--key", keys["ours"][0], "--version", 6, "--expires", tomorrow)
    assert signed["ed25519"] == keys["ours"][1]
    installed = wanedge("install", pack(folder, tmp_path / "k.wanedge"), "--store", device.store.root)
    assert (installed["version"], installed["status"]) == (6, "trial")
    with Session.open(device.store.link) as session:
        assert session.config.name == mini_bundle.model.name


def test_the_self_test_refuses_a_model_that_gives_nan(mini_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    self_test(mini_bundle)
    from wanedge.streaming import Streamer

    def nan(*_: Any) -> Any:
        raise InputError("the audio decoder gave NaN", hint="restore")

    monkeypatch.setattr(Streamer, "step", nan)
    with pytest.raises(WanEdgeError, match="NaN"):
        self_test(mini_bundle)


@pytest.mark.parametrize("how", ["replaced", "written to", "its folder swapped"])
def test_a_file_that_changes_between_the_check_and_the_load_is_noticed(
    how: str, mini_bundle: Bundle, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(mini_bundle.root, tmp_path / "kiosk"))
    bundle = Bundle.open(path)
    with bundle.opening():
        graph = bundle.path("graphs/fp32/backbone.onnx")

    def load_and_change() -> None:
        with bundle.opening():
            bundle.path("graphs/fp32/backbone.onnx")
            if how == "replaced":  # by the same bytes, even
                other = path / "other"
                other.write_bytes(graph.read_bytes())
                other.replace(graph)
            elif how == "written to":
                flip(graph, 10)
                flip(graph, 10)
            else:
                graph.parent.rename(path / "away")
                (path / "away").rename(graph.parent)

    with pytest.raises(WanEdgeError, match="was changed while it was being opened"):
        load_and_change()


def test_an_open_bundle_outlives_that_it_is_written_again(mini_bundle: Bundle, tmp_path: Path) -> None:
    """As commands do that add a verdict: the same files, by other names for a moment, in another folder."""
    bundle = Bundle.open(Path(shutil.copytree(mini_bundle.root, tmp_path / "kiosk")))
    Model.load(bundle)
    with BundleWriter.extend(bundle) as writer:
        writer.add_file("reports/note.txt", b"fine")
        writer.finish(bundle.manifest.contents)
    Model.load(bundle)


def test_a_file_changed_after_it_was_checked_is_checked_again(mini_bundle: Bundle, tmp_path: Path) -> None:
    path = Path(shutil.copytree(mini_bundle.root, tmp_path / "kiosk"))
    bundle = Bundle.open(path)
    flip(bundle.path("graphs/fp32/backbone.onnx"), 10)
    with pytest.raises(DamagedBundle):
        bundle.path("graphs/fp32/backbone.onnx")


def test_the_trial_is_a_minute_of_units() -> None:
    assert GOOD_UNITS * 160 == 60_000
