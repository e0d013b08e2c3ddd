"""The gate: limits on measures, as YAML, with defaults per precision.

    limits:
      teacher.video_psnr_db: ">= 32"
      free.tokens_equal: ">= 0.98"

A key that no validation measures is an error: a misspelled limit would never be missed.
"""

import re
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, field_validator
from pydantic import ValidationError as PydanticError

from wanedge.model import STREAMING_COMPONENTS
from wanedge_calibration.errors import ValidationError
from wanedge_calibration.results import parse_threshold
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
    **{f"{c}_snr_db": "dB" for c in STREAMING_COMPONENTS},
    **{f"{c}_snr_worst_db": "dB" for c in STREAMING_COMPONENTS},
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
    "behaviour.worse": "outcomes",
}
"""Every measure and its unit, but for those of behaviour, whose outcomes a model's own evaluation names."""

_BEHAVIOUR = re.compile(r"behaviour\.[a-z][a-z0-9_]*_points")


def unit_of(name: str) -> str | None:
    """The unit of a measure; None when no validation measures it."""
    return "points" if _BEHAVIOUR.fullmatch(name) else UNITS.get(name)


class Gate(Strict):
    """limits: measure -> bar, such as ">= 32"."""

    limits: dict[str, str] = Field(min_length=1)

    @field_validator("limits")
    @classmethod
    def _known(cls, limits: dict[str, str]) -> dict[str, str]:
        for name, bar in limits.items():
            if unit_of(name) is None:
                raise ValueError(f"there is no measure {name!r}; see docs/quantization.md for the list")
            try:
                parse_threshold(bar)
            except InputError as error:
                raise ValueError(f"{name}: {error.what}") from error
        return limits

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ValidationError: missing, not YAML, an unknown key, a bar that cannot be read."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text("utf-8")))
        except OSError as error:
            raise ValidationError(f"{path} cannot be read: {error.strerror}", hint=f"ls {path.parent}") from error
        except (yaml.YAMLError, PydanticError) as error:
            first = error.errors()[0] if isinstance(error, PydanticError) else None
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
            raise ValidationError(
                f"{path} is not a gate: {what}", hint="write `limits:` with one measure and bar a line"
            ) from error


_ALWAYS = {
    "stored.placement_faults": "== 0",
    "stored.constants_changed": "== 0",
    "stored.scales_unchecked": "== 0",
    "drift.grows": "== 0",
    "behaviour.worse": "== 0",
}
# A point of right replies: what a quantized guide may lose.
_BEHAVES = {"behaviour.right_reply_points": ">= -1"}

DEFAULTS: dict[str, Gate] = {
    "fp32": Gate(limits={**_ALWAYS, "teacher.audio_snr_db": ">= 60", "teacher.video_psnr_db": ">= 60"}),
    # Eight bits per channel keep every weight channel above 30 dB; seven bits do not always, four never.
    "int8": Gate(
        limits={
            **_ALWAYS,
            **_BEHAVES,
            "stored.worst_channel_db": ">= 30",
            "teacher.video_psnr_db": ">= 32",
            "teacher.backbone_snr_db": ">= 20",
            "teacher.stoi": ">= 0.95",
            "teacher.pesq_wb": ">= 3.0",
            "free.tokens_equal": ">= 0.98",
        }
    ),
    # E4M3 has three bits of mantissa: its noise is about 31 dB below each value, whatever the scale.
    "fp8": Gate(
        limits={
            **_ALWAYS,
            **_BEHAVES,
            "stored.worst_channel_db": ">= 24",
            "teacher.video_psnr_db": ">= 28",
            "teacher.backbone_snr_db": ">= 14",
            "free.tokens_equal": ">= 0.98",
        }
    ),
}
DEFAULTS["mixed"] = DEFAULTS["int8"]
