"""docs/bundle.md shows a bundle that wanedge would accept, and code that runs."""

import re
from pathlib import Path

import pytest

from tests.bundles import write_bundle
from wanedge.bundle import Bundle, paths
from wanedge.bundle.manifest import parse_manifest

DOCUMENT = Path(__file__).parents[2] / "docs" / "bundle.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_manifest_is_valid_and_as_wanedge_would_write_it() -> None:
    raw = block("json").encode()
    assert parse_manifest(raw, DOCUMENT).to_bytes() == raw


def test_the_example_tree_is_the_manifests() -> None:
    tree = re.search(r"    kiosk/\n((?:        .*\n)+)", DOCUMENT.read_text())
    assert tree is not None
    listed = parse_manifest(block("json").encode(), DOCUMENT).files
    assert tree[1].split() == [*paths.CONTROL_FILES, *sorted(listed, key=lambda path: path != "tokenizer.json")]


def test_the_example_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "kiosk")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block("python"), str(DOCUMENT), "exec"), names)
    kiosk = names["kiosk"]
    assert isinstance(kiosk, Bundle)
    assert kiosk.path("reports/bench.json").read_bytes() == b"{}"
    assert {path.name for path in tmp_path.iterdir()} == {"kiosk", "kiosk.wanedge", "copy"}
