"""Timing the contenders: in turns, a few units each, so that the machine's moods hit all of them alike.

A ratio is taken inside a round, between neighbours in time, and only then summarised over rounds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.benchmarks.contenders import Contender, UnitTime
from wanedge.benchmark import synthetic_user
from wanedge.config import ModelConfig
from wanedge.units import UserUnit
from wanedge_calibration.statistics import Interval, bootstrap

Round = dict[str, list[UnitTime]]
Advance = Callable[[str], None]


@dataclass
class Timings:
    """Timings. A round holds the same units of every contender; the first of them, run on cold caches and
    beside threads that still wind down, is left out.

    warm_ms: each contender's first round, in which memory is touched, buffers settle and torch compiles.
    """

    block: int
    rounds: list[Round] = field(default_factory=list)
    warm_ms: dict[str, float] = field(default_factory=dict)

    def names(self) -> list[str]:
        return list(self.warm_ms)

    def units(self, name: str) -> list[UnitTime]:
        return [unit for timed in self.rounds for unit in timed.get(name, ())]

    def walls_ms(self, name: str) -> list[float]:
        return [unit.wall_ms for unit in self.units(name)]

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Unit index and median unit time, a point a round."""
        timed = [units for r in self.rounds if (units := r.get(name))]
        return [u[len(u) // 2].index for u in timed], [_median_ms(u) for u in timed]

    def ratio(self, name: str, base: str, around: tuple[int, int] | None = None) -> Interval | None:
        """Median over rounds of unit time of `name` over that of `base`; None where they have no round in common.

        around: first and last unit index to look at.
        """
        low, high = around or (0, 1 << 62)
        pairs = [
            _median_ms(r[name]) / _median_ms(r[base])
            for r in self.rounds
            if name in r and base in r and low <= r[name][0].index and r[name][-1].index <= high
        ]
        return bootstrap(np.median, pairs) if pairs else None


def run_rounds(
    contenders: Sequence[Contender],
    config: ModelConfig,
    units: int,
    block: int,
    *,
    seed: int = 0,
    hopeless_ms: float = 1000.0,
    advance: Advance = lambda _: None,
) -> Timings:
    """Let every contender answer units 0 .. `units`-1 in blocks of `block`; the order turns from round to round.

    A contender whose median unit takes more than `hopeless_ms` is left out of later rounds.
    """
    timings, racing = Timings(block), list(contenders)
    for number, users in enumerate(_blocks(config, units, block, seed)):
        timed: Round = {}
        start = number % len(racing)
        for contender in racing[start:] + racing[:start]:
            timed[contender.name] = contender.run(users)
            advance(contender.name)
        if number == 0:
            timings.warm_ms = {
                contender.name: sum(u.wall_ms for u in timed[contender.name]) for contender in contenders
            }
            continue
        timings.rounds.append({contender.name: timed[contender.name][1:] for contender in racing})
        racing = [contender for contender in racing if _median_ms(timed[contender.name]) <= hopeless_ms]
    return timings


def _blocks(config: ModelConfig, units: int, block: int, seed: int) -> Iterator[list[UserUnit]]:
    for first in range(0, units - block + 1, block):
        yield [synthetic_user(config, index, seed) for index in range(first, first + block)]


def _median_ms(units: Sequence[UnitTime]) -> float:
    return float(np.median([unit.wall_ms for unit in units]))
