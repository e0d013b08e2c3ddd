"""ModelOpt's own environment: it pins an onnx that the project does not use, and is no dependency of it."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from wanedge_runtimes.errors import ExecutionError

VENV: Final = Path(__file__).parents[3] / "out" / "modelopt" / "venv"

# ModelOpt's extra [onnx] brings CUDA, and an ONNX Runtime without TensorScatter. So it is installed alone, and what it
# imports is named here.
PACKAGES: Final = (
    ("torch==2.13.0",),
    ("--no-deps", "nvidia-modelopt==0.47.0"),
    (
        *("ninja", "nvidia-ml-py>=12", "packaging", "setuptools>=80", "tqdm", "PyYAML>=6", "omegaconf>=2.3", "pulp<4"),
        *("pydantic>=2", "regex", "rich", "safetensors", "scipy", "cppimport", "lief", "ml_dtypes", "onnxscript"),
        *("onnx-graphsurgeon>=0.6.1", "onnx~=1.21.0", "onnxconverter-common~=1.16.0", "onnxslim>=0.1.76"),
        *("polygraphy>=0.53.4", "onnxruntime==1.32.0"),
    ),
)


def installed(folder: Path) -> Path:
    """The Python of ModelOpt's environment; made where it is not there. Raises ExecutionError."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        _call([sys.executable, "-m", "venv", str(folder)])
        for packages in PACKAGES:
            _call([str(python), "-m", "pip", "install", "--quiet", *packages])
        (folder / ".installed").touch()
    return python


def _call(command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        raise ExecutionError("ModelOpt's environment cannot be made", hint=f"try: {' '.join(command)}")
