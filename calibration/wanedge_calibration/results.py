"""The file of results: what a command measured, on which machine, and whether it passes its thresholds.

    {"machine": {...}, "made": {"command": ..., "commit": ..., "date": ..., "model_sha256": ...},
     "measures": {"unit_ms_p95": {"value": 118.2, "unit": "ms", "low": 116.9, "high": 120.1, "n": 500,
                                  "bar": "<= 120", "met": true}}}

Everything that measures writes this one shape, so that one reader, one plot and one gate serve all. A missed threshold
stays in the file with `"met": false`. In Python, the keys "bar" and "met" are `threshold` and `passed`.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt
from pathlib import Path
from typing import Any, Self

from pydantic import (
    Field,
    FiniteFloat,
    JsonValue,
    ModelWrapValidatorHandler,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from wanedge.atomic import staged_file
from wanedge_runtimes.errors import InputError, WanEdgeError
from wanedge_runtimes.strict import Strict

Comparison = Callable[[float, float], bool]

_COMPARISONS: dict[str, Comparison] = {"<=": le, ">=": ge, "<": lt, ">": gt, "==": eq}
_THRESHOLD = re.compile(r"(<=|>=|==|<|>) (-?\d+(?:\.\d+)?(?:e-?\d+)?)")
_MAKE_AGAIN = "make it with the command that measures, e.g. make bench"


class ResultsError(WanEdgeError):
    """A file of results cannot be read or written."""


class Measure(Strict, strict=True):
    """One measured number.

    value: None where nothing could be measured; then n is 0 and a threshold is missed.
    low, high: the 95 % interval; None where the samples are too few to bound that side, or where nothing was sampled.
    n: samples. threshold: what the value must reach, e.g. "<= 0.60"; None where there is none.
    """

    value: FiniteFloat | None
    unit: str = Field(min_length=1, description='"ms", "ratio", "MB", "dB", ...')
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    n: NonNegativeInt = 1
    threshold: str | None = None

    @property
    def passed(self) -> bool | None:
        """True when the value reaches the threshold; None without a threshold."""
        if self.threshold is None:
            return None
        compare, limit = parse_threshold(self.threshold)
        return self.value is not None and compare(self.value, limit)

    @field_validator("threshold")
    @classmethod
    def _threshold_parses(cls, threshold: str | None) -> str | None:
        if threshold is not None:
            parse_threshold(threshold)
        return threshold

    @model_validator(mode="after")
    def _interval_is_ordered(self) -> Self:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    @model_validator(mode="after")
    def _only_samples_give_a_value(self) -> Self:
        if (self.value is None) is not (self.n == 0):
            raise ValueError(f"value {self.value} of {self.n} samples: it is null without samples, and only then")
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _from_file(cls, data: Any, build: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """Read the file's keys "bar" and "met"; "met" must follow from value and bar."""
        if not isinstance(data, dict) or ("bar" not in data and "met" not in data and info.mode != "json"):
            return build(data)
        if "threshold" in data:
            raise ValueError('the key of a threshold is "bar"')
        measure = build(
            {key: value for key, value in data.items() if key not in ("bar", "met")} | {"threshold": data.get("bar")}
        )
        if "met" in data and data["met"] is not measure.passed:
            raise ValueError(
                f'"met" is {data["met"]}, but {measure.value} against "{measure.threshold}" gives {measure.passed}'
            )
        return measure

    @model_serializer(mode="wrap")
    def _for_file(self, build: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = build(self)
        return {key: fields[key] for key in fields if key != "threshold"} | {
            "bar": self.threshold,
            "met": self.passed,
        }


def parse_threshold(threshold: str) -> tuple[Comparison, float]:
    """Split "<= 0.60" into a comparison and its limit. Raises InputError for anything else."""
    parts = _THRESHOLD.fullmatch(threshold)
    if parts is None:
        raise InputError(
            f'the threshold "{threshold}" cannot be read', hint='write a comparison and a number, such as "<= 0.60"'
        )
    return _COMPARISONS[parts[1]], float(parts[2])


def unmeasured(unit: str, threshold: str | None = None) -> Measure:
    """A measure without samples; it misses its threshold, if it has one."""
    return Measure(value=None, unit=unit, n=0, threshold=threshold)


class Provenance(Strict, strict=True):
    """Origin of results. commit, model_sha256: None where there is no repository or no model."""

    command: str = Field(min_length=1)
    commit: str | None
    date: str
    model_sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")

    @classmethod
    def now(cls, command: str, commit: str | None, model_sha256: str | None) -> Self:
        """Provenance of this moment, in UTC to the second. command: what a user types to get these results again."""
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(command=command, commit=commit, date=date, model_sha256=model_sha256)


class Results(Strict, strict=True):
    """A file of results. made: how they came about."""

    machine: dict[str, JsonValue]
    made: Provenance
    measures: dict[str, Measure]

    @property
    def missed(self) -> dict[str, Measure]:
        """The measures that miss their threshold: what a gate fails on."""
        return {name: measure for name, measure in self.measures.items() if measure.passed is False}

    def write(self, path: Path) -> None:
        """Write as JSON with sorted keys; `path` is the whole new file or the whole old one. Raises ResultsError."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        try:
            with staged_file(path) as staged:
                staged.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ResultsError(
                f"{path} cannot be written: {error.strerror}", hint=f"check the folder: ls -ld {path.parent}"
            ) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises ResultsError when it is missing, damaged or has a field too many."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ResultsError(f"{path} cannot be read: {error.strerror}", hint=_MAKE_AGAIN) from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ResultsError(f"{path} is not a file of results: {where}: {first['msg']}", hint=_MAKE_AGAIN) from error
