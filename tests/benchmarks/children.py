"""Measurements in a fresh process: opening a session, the long run, and an installation without torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.contenders import BenchError
from tests.benchmarks.longrun import LongRun

ROOT = Path(__file__).parents[2]

_OPEN = """
import sys, time
started = time.perf_counter()
from wanedge import Session
imported = time.perf_counter()
session = Session.open(sys.argv[1], runtime="onnxruntime", world="A bright lobby. The guide is friendly.")
opened = time.perf_counter()
print(imported - started, opened - imported, "torch" in sys.modules)
session.close()
"""

# Sizes as the packages' own records list them, compiled modules included; what pip brings along is not ours.
_SIZES = """
import json
from importlib.metadata import distributions
sizes = {}
for d in distributions():
    name = d.metadata["Name"].lower()
    if name not in ("pip", "setuptools", "wheel"):
        paths = [d.locate_file(f) for f in d.files or ()]
        sizes[name] = sum(p.stat().st_size for p in paths if p.is_file())
print(json.dumps(sizes))
"""


def open_seconds(bundle: Path, times: int = 5) -> list[float]:
    """Seconds of `Session.open`, the imports it triggers included, each in a process of its own."""
    seconds = []
    for _ in range(times):
        imported, opened, torch = _run(sys.executable, "-c", _OPEN, str(bundle)).split()
        if torch == "True":
            raise BenchError("Session.open imported torch", hint="pytest tests/test_floors.py")
        seconds.append(float(imported) + float(opened))
    return seconds


def run_long(bundle: Path, late: int, turns: int, threads: int, advance: Callable[[int], None]) -> LongRun:
    """The long run in a child. advance: told the unit index as it goes."""
    command = [sys.executable, "-m", "tests.benchmarks.longrun", str(bundle.resolve())]
    command += ["--late", str(late), "--turns", str(turns), "--threads", str(threads)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            step = json.loads(line)
            if "unit" not in step:
                return LongRun.model_validate(step)
            advance(step["unit"])
    raise BenchError(f"the long run ended with code {child.returncode}", hint=" ".join(command))


def installed_bytes(extra: str, folder: Path) -> dict[str, int]:
    """Bytes by package after `pip install .[extra]` into a new virtual environment at `folder`."""
    python = folder / "bin" / "python"
    _run(sys.executable, "-m", "venv", "--clear", str(folder))
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{ROOT}[{extra}]")
    _run(str(python), "-c", "from wanedge import Session")
    sizes: dict[str, int] = json.loads(_run(str(python), "-c", _SIZES))
    if "torch" in sizes:
        raise BenchError(f"pip install .[{extra}] brings torch", hint="look at the dependencies in pyproject.toml")
    return sizes


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise BenchError(
            f"{Path(command[0]).name} ended with code {done.returncode}: {last[0]}", hint=" ".join(command)
        )
    return done.stdout
