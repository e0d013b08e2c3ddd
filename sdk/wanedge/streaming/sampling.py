"""Randomness that depends on the seed and the unit only, so that a resumed stream goes on with the same bytes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_NOISE, _TOKEN = 0, 1  # streams of the counter-based generator


class Sampler:
    """Tokens and noise for a seed.

    temperature: 0 is greedy; otherwise logits / temperature are sampled (Gumbel-max).
    The same seed gives the same bytes for one version of NumPy.
    """

    def __init__(self, seed: int, temperature: float = 0.0) -> None:
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
