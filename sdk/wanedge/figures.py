"""Figures: what a command measured, on which machine, and whether it meets its bars.

    {"machine": {...}, "made": {"command": ..., "commit": ..., "date": ..., "model_sha256": ...},
     "measures": {"unit_ms_p95": {"value": 118.2, "unit": "ms", "low": 116.9, "high": 120.1, "n": 500,
                                  "bar": "<= 120", "met": true}}}

Everything that measures writes this one shape, so that one reader, one plot and one gate serve all. A bar that is
missed stays in the file with `"met": false`.
"""

import json
import math
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import (
    Field,
    FiniteFloat,
    JsonValue,
    ModelWrapValidatorHandler,
    NonNegativeInt,
    ValidationError,
    computed_field,
    field_validator,
    model_validator,
)

from wanedge.atomic import staged_file
from wanedge_runtimes.doctor.machine import collect
from wanedge_runtimes.errors import InputError, WanEdgeError
from wanedge_runtimes.strict import Strict

Comparison = Callable[[float, float], bool]
Statistic = Callable[..., float]

CONFIDENCE = 0.95
_COMPARISONS: dict[str, Comparison] = {"<=": le, ">=": ge, "<": lt, ">": gt, "==": eq}
_BAR = re.compile(r"(<=|>=|==|<|>) (-?\d+(?:\.\d+)?(?:e-?\d+)?)")


_MAKE_AGAIN = "make it with the command that measures, e.g. make bench"


class FiguresError(WanEdgeError):
    """A file of figures cannot be read or written."""


class Measure(Strict, strict=True):
    """One measured number.

    value: None where nothing could be measured, and then n is 0 and a bar is missed.
    low, high: the 95 % interval; None where the samples are too few to bound that side, or where nothing was sampled.
    n: samples. bar: what is asked of the value, e.g. "<= 0.60"; None where nothing is.
    """

    value: FiniteFloat | None
    unit: str = Field(min_length=1, description='"ms", "ratio", "MB", "dB", ...')
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    n: NonNegativeInt = 1
    bar: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def met(self) -> bool | None:
        """Whether the value meets the bar; None without a bar."""
        if self.bar is None:
            return None
        compare, limit = parse_bar(self.bar)
        return self.value is not None and compare(self.value, limit)

    @field_validator("bar")
    @classmethod
    def _bar_parses(cls, bar: str | None) -> str | None:
        if bar is not None:
            parse_bar(bar)
        return bar

    @model_validator(mode="after")
    def _interval_is_ordered(self) -> Self:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    @model_validator(mode="after")
    def _nothing_measured_says_so(self) -> Self:
        if (self.value is None) is not (self.n == 0):
            raise ValueError(f"value {self.value} of {self.n} samples: without samples, and only then, it is null")
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _agrees_with_what_was_written(cls, data: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        """A file says `met` too; it must follow from value and bar."""
        if not isinstance(data, dict) or "met" not in data:
            return build(data)
        measure = build({key: value for key, value in data.items() if key != "met"})
        if data["met"] is not measure.met:
            raise ValueError(f'"met" is {data["met"]}, but {measure.value} against "{measure.bar}" gives {measure.met}')
        return measure


def parse_bar(bar: str) -> tuple[Comparison, float]:
    """ "<= 0.60" as a comparison and its limit. InputError on anything else."""
    found = _BAR.fullmatch(bar)
    if found is None:
        raise InputError(f'the bar "{bar}" cannot be read', hint='write a comparison and a number, such as "<= 0.60"')
    return _COMPARISONS[found[1]], float(found[2])


class Made(Strict, strict=True):
    """How the figures came about. commit, model_sha256: None where there is no repository or no model."""

    command: str = Field(min_length=1)
    commit: str | None
    date: str
    model_sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")


class Figures(Strict, strict=True):
    """A file of figures."""

    machine: dict[str, JsonValue]
    made: Made
    measures: dict[str, Measure]

    @property
    def missed(self) -> dict[str, Measure]:
        """The measures that miss their bar: what a gate fails on."""
        return {name: measure for name, measure in self.measures.items() if measure.met is False}

    def write(self, path: Path) -> None:
        """Write as JSON with sorted keys; `path` is the whole new file or the whole old one. FiguresError."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        try:
            with staged_file(path) as staged:
                staged.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise FiguresError(
                f"{path} cannot be written: {error.strerror}", hint=f"check the folder: ls -ld {path.parent}"
            ) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """The figures in a file. FiguresError when it is missing, damaged or has a field too many."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise FiguresError(f"{path} cannot be read: {error.strerror}", hint=_MAKE_AGAIN) from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise FiguresError(f"{path} is not a file of figures: {where}: {first['msg']}", hint=_MAKE_AGAIN) from error


def made(command: str, commit: str | None, model_sha256: str | None) -> Made:
    """A `Made` of now, in UTC to the second. command: what a person types to get these figures again."""
    return Made(
        command=command,
        commit=commit,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model_sha256=model_sha256,
    )


def machine_facts() -> dict[str, JsonValue]:
    """What the numbers depend on: processor, memory, system and libraries. No host names, no paths."""
    facts = collect()
    gpus = facts.nvidia.gpus if facts.nvidia else ()
    return {
        "board": facts.board,
        "cpu": facts.cpu.model,
        "cores": facts.cpu.usable,
        "isa": list(facts.cpu.isa),
        "memory_gib": None if facts.memory_total is None else round(facts.memory_total / 2**30, 1),
        "gpus": [gpu.name for gpu in gpus],
        "driver": facts.nvidia.driver if facts.nvidia else None,
        "os": _system_name(),
        "arch": facts.machine,
        "python": facts.python,
        "libraries": dict(facts.packages),
    }


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:  # not a Linux, or one that does not say
        return f"{platform.system()} {platform.release()}"


@dataclass(frozen=True)
class Interval:
    """A statistic of n samples and its confidence interval; None where the samples cannot bound that side."""

    value: float
    low: float | None
    high: float | None
    n: int

    def measure(self, unit: str, bar: str | None = None) -> Measure:
        return Measure(value=self.value, unit=unit, low=self.low, high=self.high, n=self.n, bar=bar)


def percentile(samples: ArrayLike, percent: float, confidence: float = CONFIDENCE) -> Interval:
    """A percentile and its distribution-free interval between two order statistics.

    The number of samples below the true quantile is binomial, so the interval holds for any distribution of
    independent samples. A tail that is too thin gives None: the p99 of 100 samples has no upper bound.
    InputError without samples.
    """
    ordered = np.sort(_samples(samples))
    n, q = ordered.size, percent / 100
    below = _binomial_cdf(n, q)  # below[k]: probability that at most k samples lie below the quantile
    tail = (1 - confidence) / 2
    # x[l] (counted from 0) is a lower bound with probability 1 - P(B <= l); x[u] an upper one with P(B <= u).
    lower = int(np.searchsorted(below, tail, side="right")) - 1
    upper = int(np.searchsorted(below, 1 - tail, side="left"))
    # The value interpolates between two samples; of very few samples the interval is widened to hold both.
    position = (n - 1) * q
    lower, upper = min(lower, math.floor(position)), max(upper, math.ceil(position))
    return Interval(
        value=float(np.percentile(ordered, percent)),
        low=float(ordered[lower]) if lower >= 0 else None,
        high=float(ordered[upper]) if upper < n else None,
        n=n,
    )


def bootstrap(
    statistic: Statistic, *samples: ArrayLike, confidence: float = CONFIDENCE, rounds: int = 2000, seed: int = 0
) -> Interval:
    """A statistic of one or more independent sample sets and its percentile-bootstrap interval.

    For example the ratio of two medians: `bootstrap(lambda a, b: np.median(a) / np.median(b), int8_ms, fp32_ms)`.
    n is the smallest set's size. Deterministic for a seed. InputError without samples.
    """
    sets = [_samples(values) for values in samples]
    random = np.random.default_rng(seed)
    draws = [statistic(*(random.choice(values, values.size) for values in sets)) for _ in range(rounds)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail]).tolist()
    return Interval(float(statistic(*sets)), low, high, min(values.size for values in sets))


def _samples(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size == 0 or not np.isfinite(array).all():
        raise InputError(
            f"a statistic needs finite samples, and got {array.size} of which "
            f"{int(np.isfinite(array).sum())} are finite",
            hint="run more units, and look for the run that failed",
        )
    return array


def _binomial_cdf(n: int, q: float) -> NDArray[np.float64]:
    """P(B <= k) for k = 0 .. n, B binomial(n, q); in logarithms, since n may be many thousands."""
    if q <= 0 or q >= 1:
        return np.ones(n + 1) if q <= 0 else np.append(np.zeros(n), 1.0)
    k = np.arange(n + 1)
    log_factorial = np.append(0.0, np.cumsum(np.log(np.arange(1, n + 1))))
    log_choose = log_factorial[n] - log_factorial - log_factorial[::-1]
    return np.cumsum(np.exp(log_choose + k * math.log(q) + (n - k) * math.log1p(-q)))
