"""The page's player, in simulated time: its slack against late units, and its way back after a stall.

The worklet's own file runs in Chromium with a clock of the test's, so nothing here depends on how busy the machine is.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import numpy as np
import pytest

pytest.importorskip("websockets", reason="websockets is not installed: pip install 'wanedge[serve]'")

from importlib.resources import files

from tests.browser import CHROMIUM, Page, browsing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]

UNIT_MS: Final = 160.0
WORKLET: Final = (files("wanedge.serve") / "web" / "playback-worklet.js").read_text("utf-8")

# Plays `arrivals` [[ms, media ms, loud], ...] until `end` ms; returns [[ms, media ms or null, step, buffered ms], ...]
# of every block of 8 ms, step being the largest one between two samples, and the statistics.
SIMULATION: Final = (
    """
((arrivals, end) => {
  const scope = { currentFrame: 0 };
  let Player = null;
  const register = (_name, kind) => { Player = kind; };
  class Base { constructor() { this.port = { postMessage: () => {} }; } }
  new Function("AudioWorkletProcessor", "registerProcessor", "sampleRate", "scope",
    "with (scope) { " + SOURCE + " }")(Base, register, 16000, scope);
  const player = new Player();
  const blocks = [];
  let next = 0;
  let last = 0;
  for (let frame = 0; frame < end * 16; frame += 128) {
    scope.currentFrame = frame;
    while (next < arrivals.length && arrivals[next][0] * 16 <= frame) {
      const [, startMs, loud] = arrivals[next];
      const pcm = Int16Array.from({ length: 2560 }, (_, i) => (loud ? 8000 * Math.sin((startMs * 16 + i) / 5) : 0));
      player.port.onmessage({ data: { pcm, startMs } });
      next += 1;
    }
    const output = new Float32Array(128);
    player.process([], [[output]]);
    const step = Math.max(...output.map((value, i) => Math.abs(value - (i ? output[i - 1] : last))));
    last = output[127];
    blocks.push([frame / 16, player.playing ? player.mediaMs : null, step, player.count / 16]);
  }
  return [blocks, { ...player.stats, targetMs: player.targetMs }];
})
"""
).strip()


async def play(page: Page, arrivals: Sequence[tuple[float, float, bool]], end_ms: float) -> tuple[Any, dict[str, Any]]:
    """Blocks [n, 4] and statistics of a simulated run."""
    source = f"const SOURCE = {json.dumps(WORKLET)};"
    result = await page.evaluate(f"(() => {{ {source} return {SIMULATION}({json.dumps(arrivals)}, {end_ms}); }})()")
    blocks, stats = result
    return np.array([[np.nan if value is None else value for value in block] for block in blocks]), stats


Run = Callable[[Sequence[tuple[float, float, bool]], float], tuple[Any, dict[str, Any]]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Play arrivals, all of the module in one browser."""
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:
        page = runner.run(stack.enter_async_context(browsing("about:blank")))
        yield lambda arrivals, end_ms: runner.run(play(page, arrivals, end_ms))
        runner.run(stack.aclose())


def delay(blocks: Any, first_ms: float, last_ms: float) -> float:
    """Median of how long after its media time a sample is heard, between two times."""
    inside = (blocks[:, 0] >= first_ms) & (blocks[:, 0] < last_ms)
    return float(np.nanmedian(blocks[inside, 0] - blocks[inside, 1]))


def units(count: int, loud: bool = True) -> list[tuple[float, float, bool]]:
    """Units that arrive on time: one after each 160 ms of media."""
    return [((k + 1) * UNIT_MS, k * UNIT_MS, loud) for k in range(count)]


def test_steady_units_are_played_without_a_gap_at_the_wanted_slack(run: Run) -> None:
    blocks, stats = run(units(60), 9_000)
    assert stats["dry"] == 0
    assert stats["cuts"] == 0
    assert 160 <= delay(blocks, 2_000, 9_000) - 8 <= 160 + stats["targetMs"] + 20
    playing = blocks[(blocks[:, 0] > 500) & (blocks[:, 0] < 9_000)]
    assert not np.isnan(playing[:, 1]).any()
    assert np.diff(playing[:, 1]) == pytest.approx(8.0)  # no sample is left out or heard twice


@pytest.mark.parametrize("loud", [False, True])
@pytest.mark.parametrize("stall_ms", [300.0, 500.0, 1_500.0])
def test_two_seconds_after_a_stall_answers_are_heard_as_soon_as_before(run: Run, stall_ms: float, loud: bool) -> None:
    on_time = units(100, loud)
    began = 6_000.0
    arrivals = [
        (began + stall_ms if began < at < began + stall_ms else at, media, sound) for at, media, sound in on_time
    ]
    blocks, stats = run(arrivals, 15_000)
    before, after = delay(blocks, 4_000, began), delay(blocks, began + stall_ms + 2_000, 15_000)
    assert after - before <= 40
    assert stats["cutMs"] > 0


def test_a_backlog_at_the_start_drains(run: Run) -> None:
    """A ring without a target stayed 390 ms late for a whole run."""
    late = [(max(at, 1_000.0), media, sound) for at, media, sound in units(80)]
    blocks, _ = run(late, 12_000)
    assert delay(blocks, 4_000, 12_000) <= 160 + 100


def test_units_of_varying_lateness_soon_leave_no_gaps_and_need_no_more_slack_than_that(run: Run) -> None:
    generator = np.random.default_rng(0)
    jitter = generator.uniform(0, 90, 400)
    arrivals = [(at + j, media, sound) for (at, media, sound), j in zip(units(400), jitter, strict=True)]
    blocks, stats = run(arrivals, 64_000)
    late = blocks[(blocks[:, 0] > 20_000) & (blocks[:, 0] < 63_000)]
    dry = int((np.isnan(late[1:, 1]) & ~np.isnan(late[:-1, 1])).sum())
    assert dry <= 1  # in 43 seconds, of 270 units
    assert delay(blocks, 20_000, 63_000) <= 160 + 90 + 90
    assert stats["targetMs"] <= 140


def test_a_unit_that_is_late_now_and_then_is_waited_for_once_it_is_known(run: Run) -> None:
    arrivals = [
        (at + (120.0 if k % 25 == 24 else 0.0), media, sound) for k, (at, media, sound) in enumerate(units(400))
    ]
    blocks, stats = run(arrivals, 64_000)
    late = blocks[(blocks[:, 0] > 30_000) & (blocks[:, 0] < 63_000)]
    assert int((np.isnan(late[1:, 1]) & ~np.isnan(late[:-1, 1])).sum()) <= 2  # of nine late ones
    assert stats["targetMs"] >= 80


def test_a_cut_makes_no_click(run: Run) -> None:
    """A tone goes on through a cut with a cross-fade: hardly a larger step than the tone's own."""
    early = [(at - (150.0 if k >= 20 else 0.0), media, sound) for k, (at, media, sound) in enumerate(units(60))]
    blocks, stats = run(early, 9_000)
    assert stats["cuts"] >= 1
    assert stats["dry"] == 0
    playing = blocks[(blocks[:, 0] > 500) & (blocks[:, 0] < 9_000)]
    assert playing[:, 2].max() < 0.065  # 0.049 is the tone's
