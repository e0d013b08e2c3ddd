"""The recipe: the mode of every layer. A person can read and edit it; the same recipe gives the same bytes.

wanedge_recipe: 1
precision: int8
form: cpu
variant: int8
calibrator: mse
components:
  backbone:
    layers.0.self_attn.q_proj/MatMul: int8
    layers.0.mlp.down_proj/MatMul: fp32
"""

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, FiniteFloat, ValidationError, field_validator

from wanedge.atomic import staged_file
from wanedge.bundle.errors import disk_errors
from wanedge.bundle.manifest import Label
from wanedge_calibration.eight_bits import KEPT, Method
from wanedge_calibration.errors import QuantizationError
from wanedge_calibration.graph.sites import Site
from wanedge_calibration.yaml_file import NotYaml, read_yaml
from wanedge_runtimes.strict import Strict

Form = Literal["cpu", "tensorrt"]
Precision = Literal["int8", "fp8"]
Mode = Literal["int8", "fp8", "int8-weights", "fp16-weights", "fp32"]
"""int8, fp8: activation and weight. int8-weights, fp16-weights: stored small, widened at load. fp32: left alone."""


class Recipe(Strict):
    """Choices that decide a quantized variant, besides the float graphs and the calibration file.

    form: "cpu" for ONNX Runtime's integer kernels, "tensorrt" for explicit Q/DQ.
    smooth: strength 0..1 of moving activation outliers into the weights before them; None leaves them.
    ranges: component -> tensor -> (low, high) instead of the calibrator's.
    calibration: SHA-256 of the calibration file; None where no layer needs one.
    """

    wanedge_recipe: Literal[1] = 1
    precision: Literal["int8", "fp8", "mixed"]
    form: Form
    variant: Label
    calibrator: Method = "mse"
    kept: float = Field(KEPT, gt=50, le=100)
    smooth: float | None = Field(None, ge=0, le=1)
    source: str = Field("fp32", description="the float variant")
    calibration: str | None = None
    components: dict[str, dict[str, Mode]]
    ranges: dict[str, dict[str, tuple[FiniteFloat, FiniteFloat]]] = Field(default_factory=dict)

    @field_validator("ranges")
    @classmethod
    def _ranges_are_ranges(
        cls, ranges: dict[str, dict[str, tuple[float, float]]]
    ) -> dict[str, dict[str, tuple[float, float]]]:
        for component, tensors in ranges.items():
            for tensor, (low, high) in tensors.items():
                if not low <= 0 <= high or low == high:
                    raise ValueError(f"{component}: {tensor!r} has [{low:g}, {high:g}]; write [LOW, HIGH] around zero")
        return ranges

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120)

    def write(self, path: Path) -> None:
        """Write the file. Raises BundleError when the disk refuses."""
        with disk_errors(path), staged_file(path) as staged:
            staged.write_text(self.to_yaml(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises QuantizationError: missing, not YAML, an unknown key or a wrong value."""
        try:
            return cls.model_validate(read_yaml(path))
        except OSError as error:
            raise QuantizationError(f"{path} cannot be read: {error.strerror}", hint=f"ls {path.parent}") from error
        except NotYaml as error:
            raise QuantizationError(f"{path} is not YAML: {error}", hint="correct it, or quantize again") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise QuantizationError(
                f"{path} is not a recipe: {where}: {first['msg']}", hint="compare it with docs/quantization.md"
            ) from error

    def changed(self, component: str, modes: dict[str, Mode]) -> "Recipe":
        """This recipe with other modes for some layers of a component."""
        layers = {**self.components[component], **modes}
        return self.model_copy(update={"components": {**self.components, component: layers}})


def default_mode(site: Site, precision: Precision, form: Form, ready: bool) -> Mode:
    """Mode of a layer before anything was measured. ready: its input was calibrated and can be quantized.

    On the CPU convolutions keep float arithmetic (ONNX Runtime's integer convolution is slower than its blocked
    float one, docs/quantization.md) and store 8-bit weights. Fixed transforms stay exact enough in half precision.
    """
    if form == "tensorrt":
        able = ready and site.op != "Gather" and not site.fixed and not site.grouped
        return precision if able else "fp32"
    if site.fixed:
        return "fp16-weights"
    if precision == "fp8":
        return "fp32"
    fast = site.op == "MatMul" or (site.op == "Gemm" and not site.bias)
    return "int8" if ready and fast else "int8-weights"
