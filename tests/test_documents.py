"""The documents do what they say: their Python runs, their commands run, their links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wanedge.bundle import Bundle

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
WANEDGE = Path(sys.executable).with_name("wanedge")


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text("utf-8"), re.DOTALL)


@pytest.fixture
def kiosk(mini_bundle: Bundle, tmp_path: Path) -> Path:
    """A folder as the README's reader has it: a bundle and a clip."""
    shutil.copytree(mini_bundle.root, tmp_path / "kiosk.wanedge")
    shutil.copy(ROOT / "samples/media/visitor.mp4", tmp_path)
    return tmp_path


def test_the_readmes_sdk_example_streams_the_clip(kiosk: Path) -> None:
    (example,) = blocks(ROOT / "README.md", "python")
    assert len(example.splitlines()) <= 30
    # The test's bundle is smaller than the preset that the README's reader has.
    example = example.replace("size=(96, 160), sample_rate=16_000", "size=(32, 64), sample_rate=8_000")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=kiosk, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    units = [line for line in done.stdout.splitlines() if re.match(r"\s*[\d.]+ s ", line)]
    assert len(units) == 126  # 20.1 s of clip
    assert (kiosk / "reply.mp4").stat().st_size > 10_000


def test_the_readmes_commands_run(kiosk: Path) -> None:
    commands = [
        shlex.split(line, comments=True)
        for block in blocks(ROOT / "README.md", "sh")
        for line in block.splitlines()
        if line.startswith("wanedge ")
    ]
    assert {c[1] for c in commands} == {"export", "inspect", "run"}
    for command in commands:
        if command[1] == "export":
            continue  # a minute of work, and `make demo` and the exporter's tests do it
        environment = {**os.environ, "PATH": f"{WANEDGE.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            command, cwd=kiosk, env=environment, capture_output=True, text=True, timeout=250, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text("utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_command_that_a_document_names_exists(document: Path) -> None:
    from wanedge.cli.app import build_app

    known = {command.name for command in build_app().registered_commands}
    inline = re.findall(r"`(wanedge [^`]*)`", document.read_text("utf-8"))
    named = set(re.findall(r"^wanedge ([a-z]+)", "\n".join([*blocks(document, "sh"), *inline]), re.MULTILINE))
    assert named or document.name not in {"README.md", "cli.md"}
    assert named - known == set()


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        assert set(re.findall(r"make ([a-z]+)\b(?= |`|\n)", document.read_text("utf-8"))) - targets <= {"it"}
