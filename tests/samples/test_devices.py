"""The recipes for devices, as far as they can be checked without one: every command, path and extra in them is real."""

import re
import shlex
import shutil
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from wanedge.cli.app import build_app
from wanedge_runtimes.registry import RUNTIMES
from wanedge_runtimes.targets import TARGETS

ROOT = Path(__file__).parents[2]
DEVICE = ROOT / "samples" / "devices"
UNITS = sorted(DEVICE.rglob("*.service"))
DOCKERFILES = sorted(DEVICE.rglob("Dockerfile"))
INSTRUCTIONS = {"ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR", "ENTRYPOINT", "CMD"}


def name(path: Path) -> str:
    return f"{path.parent.name}-{path.name}"


def settings(unit: Path) -> list[tuple[str, str, str]]:
    """(section, key, value) of every setting."""
    section, found = "", []
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            found.append((section, key, value))
    return found


def commands(text: str) -> list[list[str]]:
    """The arguments of every `wanedge COMMAND ...` in a text, up to the line's end."""
    found = [
        shlex.split(rest) for rest in re.findall(r"(?:^|[\s/])wanedge ((?:[a-z]+) .*|[a-z]+$)", text, re.MULTILINE)
    ]
    return [words for words in found if words]


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def test_both_devices_have_a_container_and_a_unit_and_the_browser_kiosk_has_units() -> None:
    assert {p.parent.name for p in DOCKERFILES} == {"jetson", "rtx"}
    assert {p.parent.name for p in UNITS} == {"jetson", "rtx", "kiosk"}


@pytest.mark.parametrize("path", [*UNITS, *DOCKERFILES], ids=name)
def test_what_was_not_run_is_marked_so(path: Path) -> None:
    assert "NOT RUN ON HARDWARE YET" in path.read_text()


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.name != "wanedge-browser.service"], ids=name)
def test_a_unit_starts_a_command_that_the_cli_has_with_options_that_it_takes(unit: Path) -> None:
    app = typer.main.get_command(build_app())
    known = app.commands  # type: ignore[attr-defined]
    started = [value for _, key, value in settings(unit) if key == "ExecStart"]
    assert len(started) == 1
    (words,) = commands(started[0])
    command = known[words[0]]
    options = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
    assert {word for word in words if word.startswith("-")} <= options
    chosen = dict(pairwise(words))
    assert chosen.get("--runtime", "auto") in RUNTIMES
    assert chosen.get("--target", "${WANEDGE_TARGET}") == "${WANEDGE_TARGET}"


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_a_unit_with_a_window_has_a_screen_and_a_cache(unit: Path) -> None:
    """Without them `run --live` ends at once, five times, and the unit stays down."""
    text = unit.read_text()
    if " --live" not in text:
        return
    assert "DISPLAY=:0" in text
    assert "/tmp/.X11-unix" in text  # PrivateTmp and containers hide the socket of the screen
    assert re.search(r"WANEDGE_CACHE=/\S+", text)


def test_every_extra_with_a_camera_has_an_opencv_with_windows() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    cameras = [r for requirements in extras.values() for r in requirements if r.startswith("opencv")]
    assert cameras
    assert all(not r.startswith("opencv-python-headless") for r in cameras)


def test_the_target_that_a_unit_names_as_an_example_exists() -> None:
    named = {t for unit in UNITS for t in re.findall(r"WANEDGE_TARGET=([a-z0-9-]+)", unit.read_text())}
    assert named
    assert named <= {target.name for target in TARGETS}


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    for each in unit.parent.glob("*.service"):
        text = re.sub(
            r"=(/usr/bin/docker|/usr/bin/cage|/usr/bin/jetson_clocks|/opt/wanedge/bin/wanedge)\b",
            "=/bin/true",
            each.read_text(),
        )
        (tmp_path / each.name).write_text(text)  # the programs are on the device, not here
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    done = subprocess.run([tool, "verify", str(tmp_path / unit.name)], capture_output=True, text=True, check=False)
    assert unit.name not in done.stderr, done.stderr
    (tmp_path / unit.name).write_text(f"{(tmp_path / unit.name).read_text()}\n[Service]\nRestartt=always\n")
    wrong = subprocess.run([tool, "verify", str(tmp_path / unit.name)], capture_output=True, text=True, check=False)
    assert "Restartt" in wrong.stderr  # so that silence means something


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name)
def test_a_dockerfile_copies_what_is_there_and_installs_extras_that_exist(dockerfile: Path) -> None:
    found = instructions(dockerfile)
    assert {word for word, _ in found} <= INSTRUCTIONS
    stages = {rest.rpartition(" AS ")[2] for word, rest in found if word == "FROM" and " AS " in rest}
    for word, rest in found:
        if word == "COPY" and rest.startswith("--from="):
            assert rest.split()[0].removeprefix("--from=") in stages
        elif word == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [extra for word, rest in found if word == "RUN" for extra in re.findall(r"/src\[([a-z,]+)\]", rest)]
    assert named
    assert set(",".join(named).split(",")) <= extras.keys()
    assert found[-2:] == [("ENTRYPOINT", '["wanedge"]'), ("CMD", '["doctor"]')]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=name)
def test_an_image_that_is_passed_on_installs_no_extra_with_gpl_code(dockerfile: Path) -> None:
    rows = re.findall(r"^\| [\w.-]+ \| (.+) \| (.+) \|$", (ROOT / "docs/licences.md").read_text(), re.MULTILINE)
    gpl = {extra for where, licence in rows if re.search(r"\bGPL", licence) for extra in re.findall(r"`(\w+)`", where)}
    assert "media" in gpl  # PyAV's wheel holds x264
    (extras,) = re.findall(r"/src\[([a-z,]+)\]", dockerfile.read_text())
    assert gpl.isdisjoint(extras.split(","))


@pytest.mark.parametrize("path", DOCKERFILES, ids=name)
def test_a_dockerfile_is_called_by_its_own_path(path: Path) -> None:
    assert f"-f {path.relative_to(ROOT)} ." in path.read_text()


def test_the_pages_lead_to_the_files() -> None:
    for page, folder in (("jetson.md", "jetson"), ("rtx-kiosk.md", "rtx")):
        text = (ROOT / "docs" / page).read_text()
        for path in (DEVICE / folder).iterdir():
            assert path.name == "README.md" or f"../samples/devices/{folder}/{path.name}" in text


@pytest.mark.parametrize("folder", ["jetson", "rtx"])
def test_a_readme_names_every_file_beside_it_and_the_page_with_the_steps(folder: str) -> None:
    text = (DEVICE / folder / "README.md").read_text()
    for path in (DEVICE / folder).iterdir():
        assert path.name == "README.md" or f"]({path.name})" in text
    (page,) = re.findall(r"\]\((\.\./[^)]+)\)", text)
    assert (DEVICE / folder / page).resolve() in {ROOT / "docs/jetson.md", ROOT / "docs/rtx-kiosk.md"}
