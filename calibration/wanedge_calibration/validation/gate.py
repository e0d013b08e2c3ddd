"""The gate: thresholds on measures, as YAML, with defaults per precision.

    limits:
      teacher.video_psnr_db: ">= 32"
      free.tokens_equal: ">= 0.98"
    when_measured:
      behaviour.worse: "== 0"
    reference: 3b0c...   # SHA-256 of the reference's graphs
    weights: df7e...     # SHA-256 of the file of weights that they were exported from

A limit that was not measured makes a validation incomplete; one under `when_measured` does not. A key that no
validation measures is an error: a misspelled limit would never be missed.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, field_validator
from pydantic import ValidationError as PydanticError

from wanedge.atomic import staged_file
from wanedge.bundle.errors import disk_errors
from wanedge_calibration.errors import ValidationError
from wanedge_calibration.results import parse_threshold
from wanedge_calibration.yaml_file import NotYaml, read_yaml
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.strict import Strict

_OUTPUTS = {
    "audio_snr_db": "dB",
    "audio_snr_worst_db": "dB",
    "log_mel_db": "dB",
    "video_psnr_db": "dB",
    "video_psnr_worst_db": "dB",
    "video_ssim": "ratio",
    "logits_kl": "nats",
    "top1": "ratio",
    "tokens_equal": "ratio",
    "states_equal": "ratio",
    "state_lag_units": "units",
    "edit_distance": "ratio",
    "pesq_wb": "MOS",
    "stoi": "ratio",
}
UNITS = {
    **{f"{mode}.{name}": unit for mode in ("teacher", "free") for name, unit in _OUTPUTS.items()},
    "drift.audio": "dB per 1000 units",
    "drift.video": "dB per 1000 units",
    "drift.grows": "curves",
    "stored.worst_channel_db": "dB",
    "stored.constants_changed": "constants",
    "stored.placement_faults": "faults",
    "stored.scales_unchecked": "scales",
    "probe.not_finite": "tensors",
    "probe.saturated_worst": "ratio",
    "behaviour.worse": "outcomes",
    "call.failed": "calls",
    "call.invariants_broken": "calls",
}
"""Every measure and its unit, but for those that are named by a model's components or its evaluation's outcomes."""

_BEHAVIOUR = re.compile(r"behaviour\.[a-z][a-z0-9_]*_points")
_TWIN = re.compile(r"call\.[a-z][a-z0-9_]*_over_twin")
_COMPONENT = re.compile(r"(teacher|free|call)\.[a-z][a-z0-9_]*_snr(_worst)?_db")


_OUTPUT_EQUAL = re.compile(r"(teacher|free)\.output_[a-z0-9_]+_equal")
_OUTPUT_DRIFT = re.compile(r"drift\.output_[a-z0-9_]+")


def unit_of(name: str) -> str | None:
    """The unit of a measure; None when no validation measures it."""
    if _BEHAVIOUR.fullmatch(name):
        return "points"
    if _TWIN.fullmatch(name):
        return "of the tolerance"
    if _OUTPUT_EQUAL.fullmatch(name):
        return "ratio"
    if _OUTPUT_DRIFT.fullmatch(name):
        return "dB per 1000 units"
    return UNITS.get(name) or ("dB" if _COMPONENT.fullmatch(name) else None)


class Gate(Strict):
    """limits: measure -> threshold, such as ">= 32". when_measured: likewise, where the measure is there.

    reference: `graphs_digest` of the only reference that this gate accepts; None accepts any. weights: SHA-256 of the
    only weights that the reference may have been exported from, as its bundle names them; None accepts any.
    """

    limits: dict[str, str] = Field(min_length=1)
    when_measured: dict[str, str] = Field(default_factory=dict)
    reference: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    weights: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @field_validator("limits", "when_measured")
    @classmethod
    def _known(cls, limits: dict[str, str]) -> dict[str, str]:
        for name, threshold in limits.items():
            if unit_of(name) is None:
                raise ValueError(f"there is no measure {name!r}; see docs/quantization.md for the list")
            try:
                parse_threshold(threshold)
            except InputError as error:
                raise ValueError(f"{name}: {error.what}") from error
        return limits

    @property
    def thresholds(self) -> dict[str, str]:
        """All thresholds by measure."""
        return {**self.when_measured, **self.limits}

    @property
    def sha256(self) -> str:
        """Identity of the gate."""
        return hashlib.sha256(
            json.dumps(self.model_dump(mode="json", exclude_none=True), sort_keys=True).encode()
        ).hexdigest()

    def pinned(self, reference: str, weights: str | None) -> Self:
        """This gate, which accepts only that reference and its weights."""
        return self.model_copy(update={"reference": reference, "weights": weights})

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, width=120)

    def write(self, path: Path) -> None:
        """Raises BundleError when the disk refuses."""
        with disk_errors(path), staged_file(path) as staged:
            staged.write_text(self.to_yaml(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ValidationError: missing, not YAML, an unknown key, a threshold that cannot be read."""
        try:
            return cls.model_validate(read_yaml(path))
        except OSError as error:
            raise ValidationError(f"{path} cannot be read: {error.strerror}", hint=f"ls {path.parent}") from error
        except (NotYaml, PydanticError) as error:
            first = error.errors()[0] if isinstance(error, PydanticError) else None
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
            raise ValidationError(
                f"{path} is not a gate: {what}", hint="write `limits:` with one measure and threshold a line"
            ) from error


_ALWAYS = {
    "stored.placement_faults": "== 0",
    "stored.constants_changed": "== 0",
    "stored.scales_unchecked": "== 0",
    "drift.grows": "== 0",
}
# Needs an evaluation's outcomes, or the extra `pesq`, which compiles. A point of right replies may be lost.
_WHEN_MEASURED = {"behaviour.worse": "== 0", "behaviour.right_reply_points": ">= -1"}
# The tensors in front of each Q. The share that may clip is a choice: far above what a calibrated range clips.
_PROBES = {"probe.not_finite": "== 0", "probe.saturated_worst": "<= 0.02"}

DEFAULTS: dict[str, Gate] = {
    "fp32": Gate(limits={**_ALWAYS, "teacher.audio_snr_db": ">= 60", "teacher.video_psnr_db": ">= 60"}),
    # Eight bits per channel keep every weight channel above 30 dB; seven bits do not always, four never.
    "int8": Gate(
        limits={
            **_ALWAYS,
            **_PROBES,
            "stored.worst_channel_db": ">= 30",
            "teacher.video_psnr_db": ">= 32",
            "teacher.stoi": ">= 0.95",
            "free.tokens_equal": ">= 0.98",
        },
        when_measured={**_WHEN_MEASURED, "teacher.pesq_wb": ">= 3.0"},
    ),
    # E4M3 has three bits of mantissa: its noise is about 31 dB below each value, whatever the scale.
    "fp8": Gate(
        limits={
            **_ALWAYS,
            **_PROBES,
            "stored.worst_channel_db": ">= 24",
            "teacher.video_psnr_db": ">= 28",
            "free.tokens_equal": ">= 0.98",
        },
        when_measured=_WHEN_MEASURED,
    ),
}
DEFAULTS["mixed"] = DEFAULTS["int8"]
DEFAULTS["fp16"] = DEFAULTS["fp32"]
"""By precision. The thresholds of the components are measured for each recipe, see honest.py."""

PIPELINE_DEFAULTS: dict[str, Gate] = {
    "int8": Gate(limits={**_ALWAYS, **_PROBES, "stored.worst_channel_db": ">= 30"}),
    "fp8": Gate(limits={**_ALWAYS, **_PROBES, "stored.worst_channel_db": ">= 24"}),
    "fp16": Gate(limits=_ALWAYS),
}
"""For pipelines, by precision. The thresholds of outputs and components are measured, see pipelines.py."""
