"""Randomness that depends on the seed and the unit only, so that a resumed stream goes on with the same bytes."""

from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wanedge_runtimes.errors import InputError

SEED_BITS: Final = 128
_NOISE, _TOKEN = 0, 1  # streams of the counter-based generator


class Sampler:
    """Tokens and noise for a seed.

    seed: 128 bits. temperature: 0 is greedy; otherwise logits / temperature are sampled (Gumbel-max).
    The same seed gives the same bytes for one version of NumPy.
    """

    def __init__(self, seed: int, temperature: float = 0.0) -> None:
        """Raises InputError for a seed outside 0 .. 2**128 - 1 (what Philox takes), or a temperature below 0."""
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**SEED_BITS:
            raise InputError(f"the seed is {seed!r}", hint=f"pass a whole number from 0 to 2**{SEED_BITS} - 1")
        if not isinstance(temperature, int | float) or not (isfinite(temperature) and temperature >= 0):
            raise InputError(f"the temperature is {temperature!r}", hint="pass 0 (greedy) or a number above it")
        self.seed, self.temperature = seed, temperature
        self._philox = np.random.Philox(key=seed)
        self._random = np.random.Generator(self._philox)
        self._place: Any = self._philox.state  # at the start: nothing is left over from a draw

    def choose(self, logits: NDArray[np.float32], choices: NDArray[np.intp], unit: int, number: int) -> int:
        """One of `choices` for the `number`-th token of `unit`. logits: [V]."""
        scores: NDArray[np.floating] = logits.take(choices)
        if self.temperature > 0:
            gumbel = self._generator(_TOKEN, unit, number).gumbel(size=len(choices))
            scores = scores / self.temperature + gumbel
        return int(choices[scores.argmax()])

    def noise(self, unit: int, out: NDArray[np.float32]) -> None:
        """Fill `out` with standard normal noise: where the solver starts in `unit`."""
        self._generator(_NOISE, unit, 0).standard_normal(dtype=np.float32, out=out)

    def _generator(self, stream: int, unit: int, number: int) -> np.random.Generator:
        """The generator, at the place in its sequence that belongs to this draw."""
        # Philox is counter-based: the low word counts draws, the others name what they are for. Moving the counter
        # costs a tenth of making a generator.
        self._place["state"]["counter"][:] = (0, number, unit, stream)
        self._philox.state = self._place
        return self._random
