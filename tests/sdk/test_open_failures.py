"""Opening what should not be opened: each failure says what, where, and the next command."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from wanedge.bundle import Bundle, BundleError, BundleWriter, DamagedBundle, Provenance, UnsupportedBundle, pack
from wanedge.model import Model
from wanedge.session import Session
from wanedge_runtimes.errors import GraphError, MissingExtra, RuntimeUnavailable, WanEdgeError
from wanedge_runtimes.runtime import RuntimeOptions


@pytest.fixture
def bundle(mini_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(mini_bundle.root, tmp_path / "kiosk"))


def refusal(source: Path, **options: Any) -> WanEdgeError:
    with pytest.raises(WanEdgeError) as caught:
        Session.open(source, **options)
    assert caught.value.hint
    return caught.value


def test_a_missing_graph(bundle: Path) -> None:
    (bundle / "graphs/fp32/backbone.onnx").unlink()
    error = refusal(bundle)
    assert isinstance(error, DamagedBundle)
    assert "graphs/fp32/backbone.onnx" in error.what


@pytest.mark.parametrize("name", ["graphs/fp32/backbone.onnx", "graphs/fp32/backbone.weights", "tokenizer.json"])
def test_a_flipped_byte(bundle: Path, name: str) -> None:
    file = bundle / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    error = refusal(bundle)
    assert isinstance(error, DamagedBundle)
    assert name in error.what


def test_a_bundle_of_the_future(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    error = refusal(bundle)
    assert isinstance(error, UnsupportedBundle)
    assert "pip install -U wanedge" in error.hint


def test_a_truncated_archive(mini_bundle: Bundle, tmp_path: Path) -> None:
    archive = pack(mini_bundle.root, tmp_path / "kiosk.wanedge")
    archive.write_bytes(archive.read_bytes()[:-1000])
    assert isinstance(refusal(archive), BundleError)


def test_nothing_there(tmp_path: Path) -> None:
    assert isinstance(refusal(tmp_path / "nothing"), BundleError)


@pytest.mark.parametrize("what", ["a state", "an input", "an output"])
def test_a_manifest_whose_shapes_disagree_with_the_graph(mini_bundle: Bundle, tmp_path: Path, what: str) -> None:
    """The manifest is whole and sealed, and lies about the video decoder."""
    contents = mini_bundle.manifest.contents
    spec = contents.components["video_decoder"]["portable"]
    field = {"a state": "states", "an input": "inputs", "an output": "outputs"}[what]
    first, *rest = getattr(spec, field)
    lie = spec.model_copy(update={field: (first.model_copy(update={"shape": (7, *first.shape[1:])}), *rest)})
    variant = mini_bundle.variant("fp32")
    with BundleWriter.extend(mini_bundle, tmp_path / "lying") as writer:
        lying = contents.with_variant(variant, {"video_decoder": {"portable": lie}}, Provenance.now("test"))
        writer.finish(lying)
    error = refusal(tmp_path / "lying")
    assert isinstance(error, GraphError)
    assert "video_decoder" in error.what
    assert first.name in error.what or getattr(first, "past", "") in error.what


def test_a_runtime_that_is_not_installed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # makes `import onnxruntime` fail
    error = refusal(bundle)
    assert isinstance(error, MissingExtra)
    assert "pip install 'wanedge[cpu]'" in error.hint


def test_a_runtime_and_a_provider_that_do_not_exist(bundle: Path) -> None:
    assert isinstance(refusal(bundle, runtime="tpu"), RuntimeUnavailable)
    error = refusal(bundle, runtime="onnxruntime", options=RuntimeOptions(provider="cuda"))
    assert isinstance(error, RuntimeUnavailable)
    assert "pip install" in error.hint


def test_a_variant_that_is_not_in_the_bundle_lists_those_that_are(bundle: Path) -> None:
    error = refusal(bundle, variant="int4")
    assert "fp32-decomposed" in error.hint


def test_a_world_text_that_does_not_fit(bundle: Path) -> None:
    assert "prefill holds 12" in refusal(bundle, world="too long " * 30).what


def test_a_saved_state_that_is_damaged(bundle: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Session.open(bundle) as session:
        session.save(state)
    content = bytearray(state.read_bytes())
    content[-5] ^= 1
    state.write_bytes(content)
    assert "state" in refusal(bundle, state=state).what


def test_a_failed_open_leaves_the_bundle_usable(bundle: Path) -> None:
    refusal(bundle, world="too long " * 30)
    Session.open(bundle).close()
    assert Model.load(bundle).config.name == "mini"
