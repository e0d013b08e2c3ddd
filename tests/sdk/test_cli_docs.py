"""The commands in docs/cli.md work as they stand there."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.sdk.test_cli_run import write_clip
from wanedge.bundle import Bundle, pack
from wanedge.cli.app import build_app

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("wanedge ")
]


@pytest.fixture(scope="module")
def folder(mini_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the reader of the page works; what one command writes, a later one reads."""
    here = tmp_path_factory.mktemp("reader")
    pack(mini_bundle.root, here / "kiosk.wanedge")
    write_clip(here / "visitor.mp4", 4)
    return here


@pytest.mark.parametrize("line", COMMANDS)
def test_a_documented_command_works(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    result = CliRunner().invoke(build_app([]), shlex.split(line)[1:])
    if "--live" in line:  # devices may be missing, which is no misuse
        assert result.exit_code in (0, 1), result.stderr
    else:
        assert result.exit_code == 0, result.stderr
        written = re.findall(r"(?:-o|--save-state|--json) (\w+\.\w+)", line)
        assert all((folder / name).stat().st_size > 0 for name in written)


def test_every_built_in_command_has_a_section_and_a_command_line() -> None:
    for name in ("run", "inspect", "verify", "doctor", "targets", "bench"):
        assert f"\n## {name}\n" in DOCUMENT
        assert any(line.startswith(f"wanedge {name}") for line in COMMANDS)
