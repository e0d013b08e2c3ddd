"""The documents do what they say: their Python runs, their commands run, their links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
WANEDGE = Path(sys.executable).with_name("wanedge")


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text("utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as the README's reader has it, where its commands have been run in their order."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("media", "kiosk"):
        (folder / "samples").mkdir(exist_ok=True)
        (folder / "samples" / name).symlink_to(ROOT / "samples" / name)
    environment = {**os.environ, "PATH": f"{WANEDGE.parent}:{os.environ['PATH']}"}
    for command in commands_of(ROOT / "README.md"):
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    return folder


def commands_of(document: Path) -> list[list[str]]:
    """Every command of its sh blocks but `make`, which sets up an environment of its own, and `pip`."""
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    return [command for command in commands if command and command[0] not in ("make", "pip")]


def run_python(example: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_readmes_commands_run_from_top_to_bottom_and_its_first_example_after_them(readers_folder: Path) -> None:
    assert [command[1] for command in commands_of(ROOT / "README.md")] == ["export", "run", "inspect"]
    assert (readers_folder / "reply.mp4").stat().st_size > 10_000
    first, _ = blocks(ROOT / "README.md", "python")
    assert len(first.splitlines()) <= 10
    units = [line for line in run_python(first, readers_folder).splitlines() if re.match(r"\s*[\d.]+ s ", line)]
    assert len(units) == 176  # 28.2 s of clip
    assert any("<speak>" in line for line in units)


@pytest.mark.slow
def test_the_readmes_live_example_runs_with_a_clip_in_the_place_of_the_devices(readers_folder: Path) -> None:
    _, live = blocks(ROOT / "README.md", "python")
    clip = 'read_media("samples/media/visitor.mp4")'
    example = (
        live.replace("capture(Microphone(), Camera())", f"contextlib.nullcontext({clip})")
        .replace("SoundCard()", "NullSink()")
        .replace("import Player, SoundCard", "import NullSink, Player")
        .replace(
            "from wanedge.media.live import Camera, Microphone, capture", "from wanedge.media.files import read_media"
        )
    )
    assert example.count("NullSink") == 2
    counted = "\nprint(session.metrics.media.pushed_samples > 0)"
    assert run_python(f"import contextlib\n{example}{counted}", readers_folder).strip() == "True"


BRING_YOUR_OWN = ROOT / "docs/bring-your-own-component.md"


@pytest.fixture(scope="module")
def own_components(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the document shows, each under the name in its first line."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "samples").mkdir()
    (folder / "samples/media").symlink_to(ROOT / "samples/media")
    shown = [block for language in ("python", "yaml") for block in blocks(BRING_YOUR_OWN, language)]
    for block in shown:
        if named := re.match(r"# (\w+\.(?:py|yaml))\n", block):
            (folder / named[1]).write_text(block)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gate", "masker"])
def test_both_roads_of_ones_own_components_run_command_by_command(name: str, own_components: Path) -> None:
    commands = [c for c in commands_of(BRING_YOUR_OWN) if any(name in word for word in c)]
    made = {c[1] for c in commands if c[0] == "wanedge"}
    assert made >= {"import", "calibrate", "quantize", "validate", "lint", "build", "bench", "run"}
    environment = {**os.environ, "PATH": f"{WANEDGE.parent}:{os.environ['PATH']}"}
    for command in commands:
        done = subprocess.run(
            command, cwd=own_components, env=environment, capture_output=True, text=True, check=False, timeout=250
        )
        assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    if name == "gate":
        program = next(b for b in blocks(BRING_YOUR_OWN, "python") if 'Session.open("gate.wanedge")' in b)
        assert len(run_python(program, own_components).splitlines()) == 50  # a second in units of 20 ms


def test_the_description_of_a_foreign_denoiser_has_at_most_25_lines() -> None:
    (described,) = [b for b in blocks(BRING_YOUR_OWN, "yaml") if "gtcrn_simple.onnx" in b]
    assert len(described.splitlines()) <= 25


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
    rules = re.findall(r"^([a-z ]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    named: set[str] = set()
    for document in DOCUMENTS:
        text = document.read_text("utf-8")
        code = [
            *blocks(document, "sh"),
            *re.findall(r"^ {4}(make .*)$", text, re.MULTILINE),
            *re.findall(r"`(.+?)`", text),
        ]
        named |= set(re.findall(r"\bmake ([a-z]+)", "\n".join(code)))
    assert {"demo", "test"} <= named <= targets
