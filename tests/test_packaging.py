"""The distribution: what its page, its metadata and its extras promise.

The slow tests build the wheel once and drive every command in fresh environments, one per extra; they need a package
registry (or pip's cache) and are skipped where pip cannot install.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT, TOOL = PYPROJECT["project"], PYPROJECT["tool"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
TOOLS = {"test", "dev"}  # of those who work on wanedge, not of those who use it

# command -> extras that it works in; `doctor`, `targets`, `inspect` and `verify` need none
NEEDS = {
    "export": {"export"},
    "calibrate": {"calibration"},
    "quantize": {"calibration"},
    "validate": {"calibration"},
    "lint": {"export", "calibration", "engines"},
    "serve": {"serve"},
    "build": {"export", "calibration", "engines"},
}
ALWAYS = {"run", "inspect", "verify", "doctor", "targets", "bench"}


def name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return found[0]


def test_every_direct_dependency_has_its_licence_in_the_documents() -> None:
    table = (ROOT / "docs/licences.md").read_text("utf-8")
    listed = set(re.findall(r"^\| ([\w.-]+) \|", table, re.MULTILINE))
    used = {name_of(r) for r in PROJECT["dependencies"]}
    used |= {name_of(r) for extra, rs in EXTRAS.items() if extra not in TOOLS for r in rs}
    assert used - {"wanedge"} == listed - {"package"}


def test_the_package_page_has_no_relative_link_and_names_files_of_the_source_distribution() -> None:
    page = (ROOT / "PACKAGE.md").read_text("utf-8")
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]+)\)", page))
    files = set(re.findall(r"`((?:[\w-]+/)+(?:[\w-]+\.\w+)?|[A-Z]+\.md)`", page))
    assert {"docs/cli.md", "samples/kiosk/", "CHANGELOG.md"} <= files
    assert all((ROOT / file).exists() for file in files), files
    assert "sdist" not in TOOL["hatch"]["build"]["targets"], "hatchling takes every file that git does not ignore"


def test_no_address_is_promised_that_does_not_exist() -> None:
    """There is no public repository yet; CONTRIBUTING says what to add on the day that there is."""
    assert "urls" not in PROJECT
    release = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert "[project.urls]" in release
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "pyproject.toml"]
    assert [t.name for t in texts if re.search(r"git(hub|lab)\.com/wanedge", t.read_text("utf-8"))] == []


def test_the_page_offers_extras_and_commands_that_exist() -> None:
    page = (ROOT / "PACKAGE.md").read_text("utf-8")
    named = {extra for group in re.findall(r"wanedge\[([\w,]+)\]", page) for extra in group.split(",")}
    named |= {
        extra for row in re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE) for extra in re.findall(r"`(\w+)`", row)
    }
    assert named <= EXTRAS.keys()
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    commands = set(re.findall(r"^wanedge (\w+)", shell, re.MULTILINE))
    assert commands
    assert commands <= NEEDS.keys() | ALWAYS


def test_the_version_is_written_in_one_place() -> None:
    version = re.compile(rf"[\"']{re.escape(PROJECT['version'])}[\"']")
    folders = ("runtimes", "sdk", "calibration", "export")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in files if version.search(path.read_text("utf-8"))] == []


def test_the_workflow_tests_every_python_that_is_promised() -> None:
    promised = set(re.findall(r":: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE))
    matrix = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/tests.yml").read_text("utf-8"))
    assert matrix is not None
    assert set(re.findall(r"[\d.]+", matrix[1])) == promised
    assert PROJECT["requires-python"] == ">=" + min(promised, key=lambda v: int(v[2:]))


def test_the_lock_has_hashes_no_address_and_a_version_that_fits_for_every_dependency() -> None:
    lock = (ROOT / "requirements-dev.txt").read_text("utf-8")
    entries = re.split(r"^(?=[\w.-]+==)", lock, flags=re.MULTILINE)[1:]
    assert len(entries) > 50
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", lock, re.MULTILINE):
        locked.setdefault(name, []).append(version)  # more than one where it depends on Python's
    extras = re.search(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert extras is not None
    for text in PROJECT["dependencies"] + [r for extra in extras[1].split(",") for r in EXTRAS[extra]]:
        needed = Requirement(text)
        if needed.name != "wanedge":
            assert any(version in needed.specifier for version in locked[needed.name.lower()]), text


# slow: fresh environments


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    (built,) = folder.glob("wanedge-*.whl")
    return built


def environment(folder: Path, wheel: Path, extra: str) -> Path:
    """The `bin` of a fresh environment with the wheel and one extra; skips where no registry is reached.

    uv installs in a tenth of pip's time; pip knows the settings of machines that have a registry of their own.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=100)
    python, requirement = str(folder / "bin/python"), f"{wheel}[{extra}]" if extra else str(wheel)
    for installer in (["uv", "pip", "install", "--python", python], ["pip", "--python", python, "install"]):
        command = [sys.executable, "-m", *installer, "--quiet", requirement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
        if done.returncode == 0:
            return folder / "bin"
    if "No matching distribution" in done.stderr or "ConnectionError" in done.stderr:
        pytest.skip(f"pip cannot install {requirement}: {done.stderr[-300:]}")
    raise AssertionError(done.stderr)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("extra", ["", "cpu", "media", "calibration", "engines", "rtx"])
def test_every_command_works_or_names_the_extra_in_two_lines(extra: str, wheel: Path, tmp_path: Path) -> None:
    bin_ = environment(tmp_path / "venv", wheel, extra)
    home = {"PATH": f"{bin_}:/usr/bin:/bin", "HOME": str(tmp_path), "COLUMNS": "200"}

    def wanedge(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [bin_ / "wanedge", *arguments], capture_output=True, text=True, cwd=tmp_path, env=home, timeout=200
        )

    assert wanedge("--version").stdout.split() == ["wanedge", PROJECT["version"]]
    for command in sorted(ALWAYS | NEEDS.keys()):
        shown = wanedge(command, "--help").stdout
        if command in ALWAYS or extra in NEEDS[command]:
            assert f"Example: wanedge {command}" in shown, (extra, command, shown)
            continue
        tried = wanedge(command, "kiosk.wanedge", "--any", "option")
        assert tried.returncode == 1, (extra, command, tried.stderr)
        *_, what, hint = tried.stderr.splitlines()
        assert f"wanedge {command} needs " in what
        offered = re.fullmatch(r"-> pip install 'wanedge\[(\w+)\]'", hint)
        assert offered is not None, (extra, command, tried.stderr)
        assert offered[1] in NEEDS[command], "the hint must lead to a working command"
        assert "Not installed: " in shown
    for arguments in (("inspect", "nowhere"), ("lint", "nowhere", "--target", "rtx-40"), ("validate", "nowhere")):
        assert "Traceback" not in wanedge(*arguments).stderr
    assert wanedge("targets").returncode == 0
    checked = wanedge("doctor")
    assert checked.returncode == (0 if extra in ("cpu", "calibration") else 1)  # without ONNX Runtime nothing runs
    assert checked.stderr == ""
