"""One file carries the whole bundle, and a bad file carries nothing out of its place."""

import io
import multiprocessing
import os
import stat
import struct
import threading
import time
import zipfile
from contextlib import nullcontext
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bundles import FILES, content, flip, write_bundle
from wanedge.bundle import Bundle, BundleError, DamagedBundle, UnsafePath, pack, unpack, verify


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "kiosk")
    return pack(tmp_path / "kiosk", tmp_path / "kiosk.wanedge")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pristine")
    write_bundle(root / "kiosk")
    return pack(root / "kiosk", root / "kiosk.wanedge")


def add_member(archive: Path, name: str, data: bytes = b"evil", mode: int = stat.S_IFREG | 0o644) -> None:
    with zipfile.ZipFile(archive, "a") as members:
        info = zipfile.ZipInfo("placeholder")
        info.filename = info.orig_filename = name
        info.create_system = 3
        info.external_attr = mode << 16
        members.writestr(info, data)


def rewrite(archive: Path, change: dict[str, bytes], **options: Any) -> None:
    """The archive with other member contents."""
    with zipfile.ZipFile(archive) as members:
        old = {info.filename: members.read(info) for info in members.infolist()}
    with zipfile.ZipFile(archive, "w", **options) as members:
        for name, data in {**old, **change}.items():
            members.writestr(name, data)


def test_pack_then_unpack_gives_every_byte_back(archive: Path, tmp_path: Path) -> None:
    unpack(archive, tmp_path / "again")
    assert content(tmp_path / "again") == content(tmp_path / "kiosk")
    assert verify(tmp_path / "again").ok


def test_the_same_bundle_always_gives_the_same_archive(archive: Path, tmp_path: Path) -> None:
    root = unpack(archive, tmp_path / "again")
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o700)
    (root / "stray").write_bytes(b"not listed, not packed")
    assert pack(root, tmp_path / "again.wanedge").read_bytes() == archive.read_bytes()


def test_an_opened_archive_gives_the_same_files_as_its_folder(archive: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(archive, cache=tmp_path / "cache")
    assert {name: bundle.path(name).read_bytes() for name in FILES} == FILES
    assert bundle.digest == Bundle.open(tmp_path / "kiosk").digest
    assert bundle.verify().ok
    assert verify(archive).ok


def test_the_extraction_is_reused_under_any_name_of_the_archive(archive: Path, tmp_path: Path) -> None:
    first = Bundle.open(archive, cache=tmp_path / "cache")
    inode = first.path("tokenizer.json").stat().st_ino
    second = Bundle.open(archive.rename(tmp_path / "renamed.wanedge"), cache=tmp_path / "cache")
    assert second.path("tokenizer.json").stat().st_ino == inode


def test_the_cache_is_chosen_by_the_environment(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANEDGE_CACHE", str(tmp_path / "mine"))
    assert Bundle.open(archive).root.parent == tmp_path / "mine"


def test_without_a_home_folder_the_error_names_the_variable(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service's user has often neither HOME nor an entry in the list of users."""
    for name in ("WANEDGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(BundleError, match="no home folder") as caught:
        Bundle.open(archive)
    assert "WANEDGE_CACHE" in caught.value.hint


@pytest.mark.parametrize("where", ["a file", "a folder"])
def test_a_cache_that_cannot_be_written_names_the_variable(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The user's home is a file, or a folder on a file system that is mounted read-only."""
    home = tmp_path / "home"
    if where == "a file":
        home.write_text("")
    else:
        home.mkdir()
        monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)  # root may write anywhere
    monkeypatch.delenv("WANEDGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    with pytest.raises(BundleError, match="an archive is extracted to") as caught:
        Bundle.open(archive)
    assert "WANEDGE_CACHE" in caught.value.hint


@pytest.mark.parametrize("damage", ["missing", "short", "manifest"])
def test_a_damaged_extraction_is_made_anew(archive: Path, tmp_path: Path, damage: str) -> None:
    root = Bundle.open(archive, cache=tmp_path / "cache").root
    if damage == "missing":
        (root / "tokenizer.json").unlink()
    elif damage == "short":
        os.truncate(root / "tokenizer.json", 3)
    else:
        flip(root / "manifest.json", 5)
    bundle = Bundle.open(archive, cache=tmp_path / "cache")
    assert bundle.path("tokenizer.json").read_bytes() == FILES["tokenizer.json"]
    assert bundle.verify().ok


def test_a_byte_that_rots_in_the_extraction_heals_at_the_next_open(archive: Path, tmp_path: Path) -> None:
    flip(Bundle.open(archive, cache=tmp_path / "cache").root / "tokenizer.json", 3)
    with pytest.raises(DamagedBundle, match=r"tokenizer\.json") as caught:
        Bundle.open(archive, cache=tmp_path / "cache").path("tokenizer.json")
    assert "extracted again" in caught.value.hint
    healed = Bundle.open(archive, cache=tmp_path / "cache")
    assert healed.path("tokenizer.json").read_bytes() == FILES["tokenizer.json"]


def test_what_a_power_cut_left_in_the_cache_is_cleared_later(archive: Path, tmp_path: Path) -> None:
    fresh, stale = (tmp_path / "cache" / f".{name}.part" for name in ("fresh", "stale"))
    for left in (fresh, stale):
        left.mkdir(parents=True)
    os.utime(stale, (time.time() - 7 * 24 * 3600,) * 2)
    root = Bundle.open(archive, cache=tmp_path / "cache").root
    assert set((tmp_path / "cache").iterdir()) == {fresh, root}


def _open_together(archive: str, cache: str, barrier: Barrier) -> None:
    barrier.wait()
    bundle = Bundle.open(archive, cache=Path(cache))
    assert {name: bundle.path(name).read_bytes() for name in FILES} == FILES


def test_processes_that_open_one_archive_at_once_all_succeed(archive: Path, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(3)
    arguments = (str(archive), str(tmp_path / "cache"), barrier)
    processes = [spawn.Process(target=_open_together, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_threads_that_open_one_archive_at_once_all_succeed(archive: Path, tmp_path: Path) -> None:
    for round_ in range(5):
        barrier = threading.Barrier(4)
        opened: list[Bundle] = []

        def run(cache: Path, barrier: threading.Barrier, opened: list[Bundle]) -> None:
            barrier.wait()
            opened.append(Bundle.open(archive, cache=cache))

        cache = tmp_path / f"cache{round_}"
        threads = [threading.Thread(target=run, args=(cache, barrier, opened)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened) == 4
        assert all(bundle.verify().ok for bundle in opened)
        assert len(list(cache.iterdir())) == 1


@given(st.data())
def test_a_truncated_archive_is_refused(pristine: Path, data: st.DataObject) -> None:
    whole = pristine.read_bytes()
    cut = pristine.with_name("cut.wanedge")
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DamagedBundle, match=r"truncated|damaged"):
        unpack(cut, pristine.with_name("never"))
    assert not pristine.with_name("never").exists()


@settings(max_examples=300)
@given(st.data())
def test_any_changed_byte_of_an_archive_is_noticed_or_changes_nothing(pristine: Path, data: st.DataObject) -> None:
    # ZIP headers hold dates and system codes that no reader uses; a change there may pass, one in content may not.
    bad = pristine.with_name("bad.wanedge")
    bad.write_bytes(pristine.read_bytes())
    flip(bad, data.draw(st.integers(0, len(bad.read_bytes()) - 1)), data.draw(st.integers(1, 255)))
    target = pristine.with_name(f"out{os.urandom(8).hex()}")
    try:
        unpack(bad, target)
    except BundleError:
        assert not target.exists()
    else:
        expected = content(pristine.with_name("kiosk"))
        assert content(target) == expected
        assert verify(bad).ok


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "C:/evil", "graphs\\evil", "a/../../evil", "nul", "x\0y", "folder/"]
)
def test_a_member_that_leaves_the_folder_is_refused(archive: Path, tmp_path: Path, name: str) -> None:
    add_member(archive, name)
    before = set(tmp_path.iterdir())
    for attempt in (
        lambda: Bundle.open(archive, cache=tmp_path / "cache"),
        lambda: unpack(archive, tmp_path / "out"),
        lambda: verify(archive),
    ):
        with pytest.raises(BundleError) as caught:
            attempt()
        assert isinstance(caught.value, UnsafePath) or "\0" in name  # zipfile itself stops at a NUL
    assert set(tmp_path.iterdir()) == before


def test_a_member_that_is_a_symbolic_link_is_refused(archive: Path, tmp_path: Path) -> None:
    add_member(archive, "link", b"/etc/passwd", stat.S_IFLNK | 0o777)
    with pytest.raises(UnsafePath, match="symbolic link"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("name", ["tokenizer.json", "TOKENIZER.json", "Graphs/x", "tokenizer.json/x"])
def test_members_that_are_one_file_on_some_systems_are_refused(archive: Path, tmp_path: Path, name: str) -> None:
    with pytest.warns(UserWarning, match="Duplicate") if name == "tokenizer.json" else nullcontext():
        add_member(archive, name)
    with pytest.raises(UnsafePath):
        Bundle.open(archive, cache=tmp_path / "cache")


def test_a_compressed_member_is_refused_before_it_can_grow(archive: Path, tmp_path: Path) -> None:
    rewrite(archive, {"bomb": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED)
    assert archive.stat().st_size < 1_000_000
    with pytest.raises(DamagedBundle, match="compressed"):
        unpack(archive, tmp_path / "out")


def test_a_member_with_another_size_than_the_manifest_says_is_refused(archive: Path, tmp_path: Path) -> None:
    rewrite(archive, {"tokenizer.json": bytes(1000)})
    with pytest.raises(DamagedBundle, match="1000 bytes, the manifest says 18"):
        unpack(archive, tmp_path / "out")
    with pytest.raises(DamagedBundle, match="1000 bytes, the manifest says 18"):
        Bundle.open(archive, cache=tmp_path / "cache")


def test_a_member_with_other_content_and_a_fitting_checksum_is_refused(archive: Path, tmp_path: Path) -> None:
    rewrite(archive, {"tokenizer.json": bytes(18)})
    with pytest.raises(DamagedBundle, match=r"tokenizer\.json is damaged"):
        unpack(archive, tmp_path / "out")
    with pytest.raises(DamagedBundle, match=r"tokenizer\.json is damaged"):
        Bundle.open(archive, cache=tmp_path / "cache")
    assert [check.path for check in verify(archive).bad] == ["tokenizer.json"]


def test_an_archive_that_claims_more_than_it_holds_is_refused(archive: Path, tmp_path: Path) -> None:
    raw = bytearray(archive.read_bytes())
    for info in zipfile.ZipFile(io.BytesIO(raw)).infolist():
        if info.filename == "reports/empty.txt":  # central directory entry: sizes lie 26 bytes before its name
            at = raw.rindex(b"reports/empty.txt") - 26
            struct.pack_into("<II", raw, at, 2**30, 2**30)
    archive.write_bytes(raw)
    with pytest.raises(DamagedBundle, match="claim more than there is"):
        unpack(archive, tmp_path / "out")


def test_a_flipped_byte_is_found_in_the_archive_itself_and_named(archive: Path, tmp_path: Path) -> None:
    flip(archive, archive.read_bytes().index(FILES["graphs/fp32/backbone.weights"]))
    assert [check.path for check in verify(archive).bad] == ["graphs/fp32/backbone.weights"]
    with pytest.raises(DamagedBundle, match=r"backbone\.weights"):
        Bundle.open(archive, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_member_that_is_not_listed_is_reported_and_not_extracted(archive: Path, tmp_path: Path) -> None:
    add_member(archive, "stray.onnx")
    assert verify(archive).ok
    assert verify(archive).extra == ("stray.onnx",)
    unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "stray.onnx").exists()


def test_a_damaged_folder_is_not_packed(tmp_path: Path) -> None:
    write_bundle(tmp_path / "kiosk")
    flip(tmp_path / "kiosk" / "tokenizer.json", 2)
    with pytest.raises(DamagedBundle, match=r"tokenizer\.json"):
        pack(tmp_path / "kiosk", tmp_path / "bad.wanedge")
    assert {path.name for path in tmp_path.iterdir()} == {"kiosk"}


def test_nothing_is_overwritten_unasked(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="exists"):
        pack(tmp_path / "kiosk", archive)
    with pytest.raises(BundleError, match="exists"):
        unpack(archive, tmp_path / "kiosk")
    pack(tmp_path / "kiosk", archive, overwrite=True)


def test_a_cache_that_cannot_be_written_is_said_so(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BundleError, match="file"):
        Bundle.open(archive, cache=tmp_path / "file" / "cache")
