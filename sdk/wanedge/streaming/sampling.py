"""Randomness that depends on the seed and the unit only, so that a resumed stream goes on with the same bytes."""

import numpy as np
from numpy.typing import NDArray

from wanedge.config import ModelConfig
from wanedge.streaming.performer import Latents

_NOISE, _TOKEN = 0, 1  # streams of the counter-based generator


class Sampler:
    """Tokens and noise for a seed.

    temperature: 0 is greedy; otherwise logits / temperature are sampled (Gumbel-max).
    The same seed gives the same bytes for one version of NumPy.
    """

    def __init__(self, seed: int, temperature: float = 0.0) -> None:
        self.seed, self.temperature = seed, temperature

    def choose(self, logits: NDArray[np.float32], choices: NDArray[np.intp], unit: int, number: int) -> int:
        """One of `choices` for the `number`-th token of `unit`. logits: [V]."""
        scores: NDArray[np.floating] = logits[choices]
        if self.temperature > 0:
            gumbel = self._generator(_TOKEN, unit, number).gumbel(size=len(choices))
            scores = scores / self.temperature + gumbel
        return int(choices[int(scores.argmax())])

    def noise(self, config: ModelConfig, unit: int) -> Latents:
        """Standard normal audio [1, Na, La] and video [1, Nv, Lv]: where the solver starts."""
        generator = self._generator(_NOISE, unit, 0)
        audio, video = config.audio, config.agent_video
        return Latents(
            generator.standard_normal((1, audio.tokens, audio.latent), dtype=np.float32),
            generator.standard_normal((1, video.tokens, video.latent), dtype=np.float32),
        )

    def _generator(self, stream: int, unit: int, number: int) -> np.random.Generator:
        # Philox is counter-based: the low word counts draws, the others name the place they are for.
        return np.random.Generator(np.random.Philox(key=self.seed, counter=[0, number, unit, stream]))
