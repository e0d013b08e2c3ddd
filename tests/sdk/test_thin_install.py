"""The SDK alone streams: nothing of the export side is needed, or even importable, on a device."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.streaming import Streamer

ON_A_DEVICE = """
import sys
for absent in ("torch", "onnx", "onnxscript", "onnx_ir", "matplotlib", "av", "wanedge_export"):
    sys.modules[absent] = None  # makes importing it fail
import numpy as np
from wanedge import Session

units = np.load(sys.argv[2])
with Session.open(sys.argv[1], world="A bright lobby.") as session:
    session.push(audio=units["audio"], video=units["frames"])
    session.finish()
    reply = []
    while not session.ended:
        reply += session.pull(timeout=60)
np.save(sys.argv[3], np.concatenate([unit.audio for unit in reply]))
"""


def test_a_device_without_torch_onnx_and_export_answers_the_same(mini_bundle: Bundle, tmp_path: Path) -> None:
    users = list(user_units(mini_bundle.model, 6))
    arrays: dict[str, Any] = {name: np.concatenate([getattr(u, name) for u in users]) for name in ("audio", "frames")}
    np.savez(tmp_path / "units.npz", **arrays)
    command = [sys.executable, "-c", ON_A_DEVICE, mini_bundle.root, tmp_path / "units.npz", tmp_path / "reply.npy"]
    subprocess.run([str(part) for part in command], check=True, timeout=200)
    streamer = Streamer(Model.load(mini_bundle), "A bright lobby.")
    expected = np.concatenate([streamer.step(user).audio for user in users])
    assert np.load(tmp_path / "reply.npy").tobytes() == expected.tobytes()
