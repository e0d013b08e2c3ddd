"""A bundle's name stands for a whole bundle at every moment, whatever happens to its writer."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bundles import FILES, MADE, content, contents, flip, specs, write_bundle
from wanedge.bundle import (
    Bundle,
    BundleError,
    BundleWriter,
    DamagedBundle,
    GraphFiles,
    UnsafePath,
    Variant,
    pack,
    verify,
)

ROOT = Path(__file__).parents[2]

INT8 = Variant(
    name="int8",
    precision="int8",
    runtime="onnxruntime",
    target="cpu",
    graphs={"backbone": GraphFiles(graph="graphs/int8/backbone.onnx", spec="portable")},
)


def add_int8(bundle: Bundle, graph: bytes = b"int8 graph", path: Path | None = None) -> Bundle:
    with BundleWriter.extend(bundle, path) as writer:
        (writer.directory("graphs/int8") / "backbone.onnx").write_bytes(graph)
        return writer.finish(bundle.manifest.contents.with_variant(INT8, {}, MADE))


def test_files_come_from_bytes_from_a_path_and_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(FILES["tokenizer.json"])
    with BundleWriter(tmp_path / "kiosk") as writer:
        writer.add_file("tokenizer.json", tmp_path / "source")
        folder = writer.directory("graphs/fp32")
        for name, data in FILES.items():
            if name.startswith("graphs/fp32/"):
                (folder / Path(name).name).write_bytes(data)
        writer.add_file("reports/empty.txt", b"")
        assert not (tmp_path / "kiosk").exists()
        bundle = writer.finish(contents())
    assert {name: bundle.path(name).read_bytes() for name in FILES} == FILES
    assert content(tmp_path / "kiosk") == content(write_bundle(tmp_path / "other").root)


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    def write() -> None:
        with BundleWriter(tmp_path / "kiosk") as writer:
            writer.add_file("tokenizer.json", b"{}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_forgotten_finish_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="was not written"), BundleWriter(tmp_path / "kiosk") as writer:
        writer.add_file("tokenizer.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_was_never_written_is_named(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "kiosk") as writer:
        for relative, data in FILES.items():
            if relative != "graphs/fp32/backbone.onnx":
                writer.add_file(relative, data)
        with pytest.raises(BundleError, match=r"graphs/fp32/backbone\.onnx"):
            writer.finish(contents())
        assert not (tmp_path / "kiosk").exists()
        writer.add_file("graphs/fp32/backbone.onnx", b"late, not too late")
        assert writer.finish(contents()).verify().ok


def test_a_finish_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not listed"), BundleWriter(tmp_path / "kiosk") as writer:
        writer.finish(contents())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "kiosk")
    before = content(tmp_path)

    def no_space(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(BundleError, match="No space") as caught:
        write_bundle(tmp_path / "kiosk", overwrite=True)
    assert "df -h" in caught.value.hint
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["../evil", "/evil", "a\\b", "C:x", "", "."])
def test_an_unsafe_name_is_refused_when_written(tmp_path: Path, name: str) -> None:
    with BundleWriter(tmp_path / "kiosk") as writer:
        with pytest.raises(UnsafePath):
            writer.add_file(name, b"")
        with pytest.raises(UnsafePath):
            writer.directory(name)
        for relative, data in FILES.items():
            writer.add_file(relative, data)
        writer.finish(contents())
    assert {path.name for path in tmp_path.iterdir()} == {"kiosk"}


@pytest.mark.parametrize("bad", ["link", "name"])
def test_what_a_tool_wrote_into_the_folder_is_checked_too(tmp_path: Path, bad: str) -> None:
    def write() -> None:
        with BundleWriter(tmp_path / "kiosk") as writer:
            folder = writer.directory("graphs")
            if bad == "link":
                (folder / "link.onnx").symlink_to("/etc/passwd")
            else:
                (folder / "a\\b.onnx").write_bytes(b"")
            writer.finish(contents())

    with pytest.raises(UnsafePath):
        write()
    assert list(tmp_path.iterdir()) == []


def test_only_a_bundle_is_overwritten(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("irreplaceable")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(BundleError):
            write_bundle(home, **options)
    assert content(tmp_path) == {"home/thesis.txt": b"irreplaceable"}
    write_bundle(tmp_path / "kiosk")
    with pytest.raises(BundleError, match="exists"):
        write_bundle(tmp_path / "kiosk")
    assert write_bundle(tmp_path / "kiosk", overwrite=True).verify().ok
    assert {path.name for path in tmp_path.iterdir()} == {"home", "kiosk"}


@pytest.mark.parametrize("by_kernel", [True, False])
def test_a_variant_is_added_to_an_existing_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_kernel: bool
) -> None:
    if not by_kernel:
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())  # a C library without renameat2
    old = write_bundle(tmp_path / "kiosk")
    inode = old.path("tokenizer.json").stat().st_ino
    new = add_int8(old)
    assert new.verify().ok
    assert [v.name for v in new.manifest.variants] == ["fp32", "int8"]
    assert new.graph("backbone", "int8")[0].read_bytes() == b"int8 graph"
    assert new.graph("backbone", "fp32")[0].read_bytes() == FILES["graphs/fp32/backbone.onnx"]
    assert new.path("tokenizer.json").stat().st_ino == inode  # linked, not copied
    assert {path.name for path in tmp_path.iterdir()} == {"kiosk"}


def test_a_variant_is_replaced_and_files_can_be_left_behind(tmp_path: Path) -> None:
    bundle = add_int8(add_int8(write_bundle(tmp_path / "kiosk")), b"better int8 graph")
    assert bundle.graph("backbone", "int8")[0].read_bytes() == b"better int8 graph"
    with BundleWriter.extend(bundle) as writer:
        writer.remove("reports/empty.txt")
        with pytest.raises(BundleError, match="nothing like this"):
            writer.remove("nothing like this")
        smaller = writer.finish(bundle.manifest.contents)
    assert smaller.verify().ok
    assert not (tmp_path / "kiosk" / "reports").exists()


def test_a_larger_copy_leaves_the_first_bundle_alone(tmp_path: Path) -> None:
    old = write_bundle(tmp_path / "kiosk")
    before = content(old.root)
    new = add_int8(old, path=tmp_path / "larger")
    assert new.verify().ok
    flip(new.root / "tokenizer.json", 0)
    assert content(old.root) == before


def test_an_archive_is_extended_elsewhere_only(tmp_path: Path) -> None:
    write_bundle(tmp_path / "kiosk")
    archive = pack(tmp_path / "kiosk", tmp_path / "kiosk.wanedge")
    bundle = Bundle.open(archive, cache=tmp_path / "cache")
    with pytest.raises(BundleError, match="archive"):
        BundleWriter.extend(bundle)
    assert add_int8(bundle, path=tmp_path / "larger").verify().ok
    assert bundle.verify().ok


def test_extending_does_not_bless_damage(tmp_path: Path) -> None:
    old = write_bundle(tmp_path / "kiosk")
    flip(old.root / "tokenizer.json", 0)
    new = add_int8(old)
    with pytest.raises(DamagedBundle):
        new.path("tokenizer.json")


def test_a_bundle_extended_twice_at_once_loses_nothing_silently(tmp_path: Path) -> None:
    mine = theirs = write_bundle(tmp_path / "kiosk")

    def extend_too_late() -> None:
        with BundleWriter.extend(mine) as writer:
            add_int8(theirs)
            writer.finish(mine.manifest.contents)

    with pytest.raises(BundleError, match="meanwhile"):
        extend_too_late()
    assert [v.name for v in Bundle.open(tmp_path / "kiosk").manifest.variants] == ["fp32", "int8"]


def test_a_variant_with_another_spec_is_found_by_it(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "kiosk")
    spec = specs()["backbone"]["portable"].model_copy(update={"profile": "decomposed", "opset": 20})
    variant = INT8.model_copy(
        update={
            "profile": "decomposed",
            "graphs": {"backbone": GraphFiles(graph="graphs/int8/backbone.onnx", spec="decomposed")},
        }
    )
    with BundleWriter.extend(bundle) as writer:
        writer.add_file("graphs/int8/backbone.onnx", b"int8")
        made = bundle.manifest.contents.with_variant(variant, {"backbone": {"decomposed": spec}}, MADE)
        bundle = writer.finish(made)
    assert bundle.graph("backbone", bundle.variant(profile="decomposed"))[1].opset == 20


def test_others_may_read_a_bundle_as_the_umask_says(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        bundle = write_bundle(tmp_path / "kiosk")
    finally:
        os.umask(old)
    assert bundle.root.stat().st_mode & 0o777 == 0o755
    assert bundle.path("tokenizer.json").stat().st_mode & 0o777 == 0o644


WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from tests.bundles import FILES, contents
from wanedge.bundle import BundleWriter

path, fresh = Path(sys.argv[1]), sys.argv[2] == "fresh"
print("ready", flush=True)
for number in itertools.count():
    target = path.with_name(f"{path.name}{number}") if fresh else path
    with BundleWriter(target, overwrite=True) as writer:
        for relative, data in FILES.items():
            writer.add_file(relative, data)
        writer.add_file("reports/round.txt", str(number).encode() * 50_000)
        writer.finish(contents(weights_note=str(number)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["fresh", "same"])
def test_a_writer_killed_at_any_moment_leaves_only_whole_bundles(tmp_path: Path, where: str) -> None:
    random.seed(where)
    seen = 0
    for attempt in range(4):
        path = tmp_path / f"{attempt}" / "kiosk"
        path.parent.mkdir()
        write_bundle(path)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(path), where], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(random.uniform(0.02, 0.4))
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        assert path.exists()
        for bundle in path.parent.iterdir():
            if not bundle.name.startswith("."):
                assert verify(bundle).ok
                assert verify(bundle).extra == ()
                seen += 1
    assert seen >= 4
