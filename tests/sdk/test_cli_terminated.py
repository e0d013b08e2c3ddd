"""A service manager's SIGTERM ends a command in good order: no half-written file stays behind."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from wanedge.bundle import Bundle

ROOT = Path(__file__).parents[2]
WANEDGE = Path(sys.executable).with_name("wanedge")


def test_a_terminated_run_leaves_no_partial_file(mini_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copy(ROOT / "samples/media/visitor.mp4", tmp_path)
    command = [WANEDGE, "run", mini_bundle.root, "visitor.mp4", "-o", "reply.mp4", "--pace", "realtime"]
    process = subprocess.Popen(
        [str(part) for part in command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".reply.mp4*")):  # the run is under way
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert [p.name for p in tmp_path.iterdir()] == ["visitor.mp4"]
