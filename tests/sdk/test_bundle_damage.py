"""No damage to a bundle goes unnoticed, and the message says what to do."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bundles import FILES, content, edit_manifest, flip, write_bundle
from wanedge.bundle import Bundle, BundleError, DamagedBundle, UnsafePath, verify


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "kiosk")
    return tmp_path / "kiosk"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("pristine") / "kiosk"
    write_bundle(root)
    yield root
    assert verify(root).ok


def test_an_undamaged_bundle_verifies_file_by_file(bundle: Path) -> None:
    steps: list[tuple[int, int]] = []
    report = verify(bundle, on_progress=lambda done, total: steps.append((done, total)))
    assert report.ok
    assert [check.path for check in report.files] == sorted(FILES)
    total = sum(map(len, FILES.values()))
    assert steps[-1] == (total, total)
    assert steps == sorted(steps)
    assert report == Bundle.open(bundle).verify()


def test_nothing_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        Bundle.open(tmp_path / "nowhere.wanedge")
    with pytest.raises(DamagedBundle, match="not a bundle"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "manifest.sha256"])
def test_a_missing_file_stops_open(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(DamagedBundle, match=name) as caught:
        Bundle.open(bundle)
    assert "copy the bundle again" in caught.value.hint


def test_verify_names_every_bad_file_at_once(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    flip(bundle / "graphs/fp32/backbone.onnx", 0)
    os.truncate(bundle / "graphs/fp32/backbone.weights", 100)
    (bundle / "graphs/fp32/text_embed.onnx").unlink()
    (bundle / "graphs/fp32/text_embed.onnx").symlink_to("backbone.onnx")
    (bundle / "graphs/stray.onnx").write_bytes(b"?")
    report = verify(bundle)
    assert not report.ok
    assert {check.path: check.status for check in report.files} == {
        "tokenizer.json": "missing",
        "graphs/fp32/backbone.onnx": "damaged",
        "graphs/fp32/backbone.weights": "damaged",
        "graphs/fp32/text_embed.onnx": "unsafe",
        "reports/empty.txt": "ok",
    }
    assert report.extra == ("graphs/stray.onnx",)


def test_a_file_that_is_not_listed_is_reported_and_never_given_out(bundle: Path) -> None:
    (bundle / "stray.onnx").write_bytes(b"?")
    assert verify(bundle).extra == ("stray.onnx",)
    with pytest.raises(BundleError, match="not listed"):
        Bundle.open(bundle).path("stray.onnx")
    with pytest.raises(BundleError, match="not listed"):
        Bundle.open(bundle).path("../kiosk/tokenizer.json")


@given(st.data())
def test_any_changed_byte_in_any_file_is_noticed(pristine: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name, content_ in content(pristine).items() if content_]))
    path = pristine / name
    original = path.read_bytes()
    flip(path, data.draw(st.integers(0, len(original) - 1)), data.draw(st.integers(1, 255)))
    try:
        if name in FILES:
            assert [check.path for check in verify(pristine).bad] == [name]
            with pytest.raises(DamagedBundle, match=name):
                Bundle.open(pristine).path(name)
        else:
            with pytest.raises(BundleError):
                Bundle.open(pristine)
    finally:
        path.write_bytes(original)


@given(st.data())
def test_any_truncated_or_grown_file_stops_open(pristine: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name, content_ in content(pristine).items() if content_]))
    path = pristine / name
    original = path.read_bytes()
    grown = st.binary(min_size=1, max_size=8).map(lambda more: original + more)
    cut = st.integers(0, len(original) - 1).map(lambda length: original[:length])
    path.write_bytes(data.draw(grown | cut))
    try:
        with pytest.raises(BundleError):
            Bundle.open(pristine)
    finally:
        path.write_bytes(original)


def test_a_manifest_that_lies_about_a_size_is_refused(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["files"]["tokenizer.json"].update(bytes=1))
    with pytest.raises(DamagedBundle, match=r"18 bytes, the manifest says 1"):
        Bundle.open(bundle)


def test_a_graph_is_given_out_only_with_sound_external_weights(bundle: Path) -> None:
    flip(bundle / "graphs/fp32/backbone.weights", 7)
    opened = Bundle.open(bundle)
    opened.graph("text_embed", "fp32")
    with pytest.raises(DamagedBundle, match=r"backbone\.weights") as caught:
        opened.graph("backbone", "fp32")
    assert f"wanedge verify {bundle}" in caught.value.hint


def test_a_file_is_hashed_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Bundle.open(bundle)
    first = opened.path("tokenizer.json")
    monkeypatch.setattr("wanedge.bundle.reader.read_hashed", None)
    assert opened.path("tokenizer.json") == first


@pytest.mark.parametrize("target", ["inside", "outside"])
def test_a_symbolic_link_is_refused_wherever_it_leads(bundle: Path, tmp_path: Path, target: str) -> None:
    original = bundle / "tokenizer.json"
    copy = (bundle if target == "inside" else tmp_path) / "copy.json"
    original.rename(copy)
    original.symlink_to(copy)
    with pytest.raises(UnsafePath, match="symbolic link"):
        Bundle.open(bundle)


def test_a_linked_folder_inside_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "graphs").rename(tmp_path / "graphs")
    (bundle / "graphs").symlink_to(tmp_path / "graphs")
    with pytest.raises(UnsafePath, match="symbolic link"):
        Bundle.open(bundle)


def test_a_link_put_in_after_opening_is_refused(bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(bundle)
    shutil.move(bundle / "tokenizer.json", tmp_path / "copy.json")
    (bundle / "tokenizer.json").symlink_to(tmp_path / "copy.json")
    with pytest.raises(UnsafePath, match="symbolic link"):
        opened.path("tokenizer.json")


def test_the_bundle_itself_may_be_reached_through_a_link_that_is_switched_later(bundle: Path, tmp_path: Path) -> None:
    current = tmp_path / "current"
    current.symlink_to(bundle)
    opened = Bundle.open(current)
    current.unlink()
    current.symlink_to(tmp_path / "elsewhere")
    assert opened.path("tokenizer.json").read_bytes() == FILES["tokenizer.json"]


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    os.mkfifo(bundle / "tokenizer.json")
    with pytest.raises(UnsafePath, match="not a regular file"):
        Bundle.open(bundle)


def test_a_monstrous_manifest_is_not_read_into_memory(bundle: Path) -> None:
    os.truncate(bundle / "manifest.json", 2 << 30)
    with pytest.raises(DamagedBundle, match="longer than"):
        Bundle.open(bundle)
