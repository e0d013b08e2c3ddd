"""Behaviour: outcomes of one evaluation on both bundles, compared item by item.

What is right is for the model's own evaluation to say, which may take hours and lives elsewhere. It leaves a file of
outcomes; validation reads two of them and never knows what was asked:

    {"wanedge_behaviour": 1, "variant": "int8", "graphs_sha256": "...",
     "made": "python -m samples.kiosk.evaluation ...",
     "outcomes": {"right_reply": {"voices/conversation/1000#0": true, ...}, ...}}

What stands before "#" is the conversation: its items share a fate and are resampled together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, ValidationError
from scipy import stats

from wanedge.atomic import staged_file
from wanedge.bundle.errors import disk_errors
from wanedge_calibration.errors import ValidationError as NotComparable
from wanedge_calibration.statistics import CONFIDENCE, Interval
from wanedge_runtimes.strict import Strict

_ROUNDS = 4000  # of the bootstrap over conversations


class Outcomes(Strict):
    """What an evaluation saw. outcomes: name -> item -> whether it went well. graphs_sha256: of the variant's files."""

    wanedge_behaviour: Literal[1] = 1
    variant: str
    graphs_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    made: str
    outcomes: dict[str, dict[str, bool]]

    def write(self, path: Path) -> None:
        """Raises BundleError when the disk refuses."""
        with disk_errors(path), staged_file(path) as staged:
            staged.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path, graphs_sha256: str) -> Self:
        """The outcomes of a variant with those graphs.

        Raises wanedge_calibration.errors.ValidationError: missing, damaged, or of other graphs.
        """
        again = (
            "write it again with the model's evaluation, e.g. python -m samples.kiosk.evaluation BUNDLE --variant NAME"
        )
        try:
            outcomes = cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise NotComparable(f"{path} cannot be read: {error.strerror}", hint=again) from error
        except ValidationError as error:
            raise NotComparable(f"{path} holds no outcomes: {error.errors()[0]['msg']}", hint=again) from error
        if outcomes.graphs_sha256 != graphs_sha256:
            raise NotComparable(
                f"{path} is of other graphs ({outcomes.graphs_sha256[:12]}) "
                f"than those validated ({graphs_sha256[:12]})",
                hint=again,
            )
        return outcomes


@dataclass(frozen=True)
class Paired:
    """One kind of outcome over the items that both have.

    reference, candidate: shares that went well. points: candidate minus reference, in points of 100, with its interval.
    lost, won: items that only the reference, only the candidate got right. p: of McNemar's exact test, two-sided.
    """

    name: str
    reference: float
    candidate: float
    points: Interval
    lost: int
    won: int
    p: float

    @property
    def worse(self) -> bool:
        """Worse beyond chance, by either test: the interval below zero, or McNemar's p."""
        below = self.points.high is not None and self.points.high < 0
        return below or (self.lost > self.won and self.p < 1 - CONFIDENCE)


def pair_outcomes(candidate: Outcomes, reference: Outcomes) -> list[Paired]:
    """Every kind of outcome with at least one item in both. Raises ValidationError when there is none."""
    shared = [name for name in reference.outcomes if name in candidate.outcomes]
    pairs = [p for name in shared if (p := _paired(name, candidate.outcomes[name], reference.outcomes[name]))]
    if not pairs:
        raise NotComparable(
            "the two files of outcomes share no item", hint="evaluate both bundles with the same options and seed"
        )
    return pairs


def behaviour_measures(pairs: Sequence[Paired]) -> dict[str, Interval]:
    """`behaviour.NAME_points` for each kind, and `behaviour.worse`: how many got worse beyond chance."""
    worse = Interval(float(sum(pair.worse for pair in pairs)), None, None, len(pairs))
    return {f"behaviour.{pair.name}_points": pair.points for pair in pairs} | {"behaviour.worse": worse}


def _paired(name: str, candidate: Mapping[str, bool], reference: Mapping[str, bool]) -> Paired | None:
    items = sorted(candidate.keys() & reference.keys())
    if not items:
        return None
    ours, theirs = (np.array([side[i] for i in items], np.float64) for side in (candidate, reference))
    groups = np.unique([item.partition("#")[0] for item in items], return_inverse=True)[1]
    gained = np.bincount(groups, ours - theirs)  # by conversation
    sizes = np.bincount(groups).astype(np.float64)
    draws = np.random.default_rng(0).integers(gained.size, size=(_ROUNDS, gained.size))
    low, high = np.quantile(gained[draws].sum(axis=1) / sizes[draws].sum(axis=1), [0.025, 0.975]) * 100
    value = 100 * float((ours - theirs).mean())
    points = Interval(value, None, None, len(items))  # one conversation gives no interval
    if gained.size > 1:
        points = Interval(value, min(float(low), value), max(float(high), value), len(items))
    lost, won = int(((ours == 0) & (theirs == 1)).sum()), int(((ours == 1) & (theirs == 0)).sum())
    p = float(stats.binomtest(lost, lost + won).pvalue) if lost + won else 1.0
    return Paired(name, float(theirs.mean()), float(ours.mean()), points, lost, won, p)
