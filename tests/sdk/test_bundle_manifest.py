"""The manifest says what it means, and what it may not say is refused by name."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bundles import FILES, contents, edit_manifest, specs, write_bundle
from wanedge.bundle import (
    Bundle,
    BundleError,
    DamagedBundle,
    FileEntry,
    GraphFiles,
    Manifest,
    Provenance,
    UnsafePath,
    UnsupportedBundle,
    Variant,
    paths,
)
from wanedge.bundle.manifest import parse_manifest

HERE = Path("kiosk")


def manifest() -> Manifest:
    files = {name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)) for name, data in FILES.items()}
    return Manifest.of(contents(), files, HERE)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "kiosk")
    return tmp_path / "kiosk"


def test_a_manifest_survives_its_file() -> None:
    assert parse_manifest(manifest().to_bytes(), HERE) == manifest()
    assert parse_manifest(manifest().to_bytes(), HERE).to_bytes() == manifest().to_bytes()


def test_the_same_contents_give_the_same_bytes_in_another_process(bundle: Path, tmp_path: Path) -> None:
    script = "import sys, pathlib, tests.bundles; tests.bundles.write_bundle(pathlib.Path(sys.argv[1]))"
    other = tmp_path / "other"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script, str(other)], check=True, cwd=root, env=environment)
    assert (other / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()


def test_the_date_can_be_fixed_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert Provenance.now("wanedge export").date.isoformat() == "1970-01-02T00:00:00+00:00"


def test_sha256sum_agrees_with_the_seal(bundle: Path) -> None:
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert (bundle / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"


@pytest.mark.parametrize("sealed", [True, False])
def test_a_future_schema_says_upgrade_and_nothing_about_fields(bundle: Path, sealed: bool) -> None:
    edit_manifest(bundle, lambda m: m.update(schema_version=2, wholly="new", files=7), sealed=sealed)
    with pytest.raises(UnsupportedBundle, match=r"newer wanedge \(schema version 2") as caught:
        Bundle.open(bundle)
    assert caught.value.hint == "pip install -U wanedge"
    assert "files" not in caught.value.what
    assert ("changed after it was written" in caught.value.what) is not sealed


@pytest.mark.parametrize("version", [None, 0, -1, True, "1", 1.0, [1]])
def test_a_schema_version_that_is_no_version_is_damage(bundle: Path, version: object) -> None:
    edit_manifest(bundle, lambda m: m.update(schema_version=version))
    with pytest.raises(DamagedBundle, match="schema_version"):
        Bundle.open(bundle)


@pytest.mark.parametrize("where", ["", "model", "model.backbone", "made", "files.tokenizer\\.json", "variants.0"])
def test_an_unknown_field_is_named(bundle: Path, where: str) -> None:
    def add(content: object) -> None:
        for step in filter(None, where.replace("\\.", "\0").split(".")):
            name = step.replace("\0", ".")
            content = content[int(name)] if isinstance(content, list) else content[name]  # type: ignore[index]
        content["surprise"] = 1  # type: ignore[index]

    edit_manifest(bundle, add)
    with pytest.raises(UnsupportedBundle, match=r"unknown field '.*surprise'") as caught:
        Bundle.open(bundle)
    assert where.replace("\\.", ".") in caught.value.what


def test_a_hand_edited_manifest_is_refused_even_when_it_parses(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m.update(weights="trained"), sealed=False)
    with pytest.raises(DamagedBundle, match="changed after it was written"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "not an object"),
        (b'{"schema_version": 1, "schema_version": 1}', "there twice"),
        (b'{"schema_version": NaN}', "not JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"schema_version": 1}', "wrong at made"),
    ],
)
def test_what_is_no_manifest_is_damage(raw: bytes, says: str) -> None:
    with pytest.raises(DamagedBundle, match=says):
        parse_manifest(raw, HERE)


UNSAFE = [
    "../secret",
    "graphs/../../secret",
    "/etc/passwd",
    "C:/windows/system32",
    "C:secret",
    "graphs\\..\\secret",
    "\\\\server\\share",
    "a\0b",
    "./a",
    "a//b",
    "a/",
    "",
    ".",
    "..",
    "a/..",
    "~/x",
    "-rf",
    "name.",
    "name ",
    "a/nul.onnx",
    "COM1",
    "cafe\u0301",
    "caf\u00e9",
    "line\nbreak",
    "x" * 300,
    "a/" * 200 + "b",
]


@pytest.mark.parametrize("path", UNSAFE)
def test_a_path_that_leaves_the_folder_is_refused(bundle: Path, path: str) -> None:
    edit_manifest(bundle, lambda m: m["files"].update({path: {"sha256": "0" * 64, "bytes": 0}}))
    with pytest.raises(UnsafePath):
        Bundle.open(bundle)


def test_a_named_path_that_leaves_the_folder_is_refused(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m.update(tokenizer="../tokenizer.json"))
    with pytest.raises(UnsafePath, match=r"\.\./tokenizer\.json"):
        Bundle.open(bundle)


@given(st.text() | st.lists(st.sampled_from(["..", ".", "", "a", "B.x", "C:", "\\", "nul"])).map("/".join))
def test_an_allowed_path_stays_inside_on_every_system(path: str) -> None:
    if paths.problem(path) is None:
        for kind in (PurePosixPath, PureWindowsPath):
            assert not kind(path).is_absolute()
            assert not kind(path).drive
            assert ".." not in kind(path).parts
            assert kind("root", path).relative_to("root").as_posix() == path
        assert os.path.normpath(path).replace(os.sep, "/") == path


@pytest.mark.parametrize(
    "others",
    [["Tokenizer.json"], ["Graphs/other"], ["tokenizer.json/below"], ["Manifest.json"], ["manifest.sig"], ["graphs"]],
)
def test_paths_that_are_one_file_on_some_systems_are_refused(bundle: Path, others: list[str]) -> None:
    edit_manifest(bundle, lambda m: m["files"].update({o: {"sha256": "0" * 64, "bytes": 0} for o in others}))
    with pytest.raises(UnsafePath):
        Bundle.open(bundle)


def test_every_path_that_is_named_must_be_listed(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["files"].pop("graphs/fp32/backbone.weights"))
    with pytest.raises(DamagedBundle, match=r"backbone\.weights.*not listed"):
        Bundle.open(bundle)


def _variant(**changes: object) -> Variant:
    return contents().variants[0].model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"variants": (_variant(), _variant())}, "must be unique"),
        ({"variants": (_variant(profile="decomposed"),)}, "is decomposed"),
        ({"variants": (_variant(graphs={"ghost": GraphFiles(graph="g", spec="portable")}),)}, "unknown component"),
        ({"variants": (_variant(graphs={"backbone": GraphFiles(graph="g", spec="fp8")}),)}, "no spec named 'fp8'"),
        ({"components": {"thinker": specs()["backbone"]}}, "is the spec of 'backbone'"),
    ],
)
def test_contents_that_contradict_themselves_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        contents(**changes)


def test_a_precision_may_bring_its_own_spec() -> None:
    spec = specs()["backbone"]["portable"]
    fp16 = _variant(
        name="fp16",
        precision="fp16",
        graphs={"backbone": GraphFiles(graph="graphs/fp16/backbone.onnx", spec="portable-fp16")},
    )
    more = contents().with_variant(fp16, {"backbone": {"portable-fp16": spec}}, contents().made)
    assert [v.name for v in more.variants] == ["fp32", "fp16"]
    assert set(more.components["backbone"]) == {"portable", "portable-fp16"}
    assert more.with_variant(fp16, {}, contents().made).variants == more.variants


def test_one_variant_is_chosen_or_the_choice_is_listed(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert opened.variant() == opened.variant("fp32") == opened.variant(runtime="onnxruntime", target="cpu")
    with pytest.raises(BundleError, match="no variants for runtime tensorrt") as caught:
        opened.variant(runtime="tensorrt")
    assert "fp32 (fp32, onnxruntime, cpu, portable)" in caught.value.hint
    more = contents(variants=(_variant(), _variant(name="int8", precision="int8")))
    opened.manifest = Manifest.of(more, dict(opened.manifest.files), bundle)
    with pytest.raises(BundleError, match="has 2 variants") as caught:
        opened.variant(runtime="onnxruntime")
    assert "fp32 (" in caught.value.hint
    assert "int8 (" in caught.value.hint


def test_a_component_gives_its_graph_and_spec_or_says_what_there_is(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    path, spec = opened.graph("backbone", "fp32")
    assert path.read_bytes() == FILES["graphs/fp32/backbone.onnx"]
    assert spec == specs()["backbone"]["portable"]
    with pytest.raises(BundleError, match="'ghost'") as caught:
        opened.graph("ghost", "fp32")
    assert "backbone, text_embed" in caught.value.hint


def test_a_manifest_is_readable_json_in_a_fixed_order(bundle: Path) -> None:
    read = json.loads((bundle / "manifest.json").read_bytes())
    assert next(iter(read)) == "schema_version"
    assert list(read["files"]) == sorted(FILES)
