"""The player keeps its latency, its pictures at its voice, and never clicks. Clocks are simulated."""

import gc
import time
import wave
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanedge.config import FRAMES_PER_UNIT, UNIT_MS
from wanedge.media import CaptureError
from wanedge.media.playback import MAX_STRETCH, NullSink, Player, SoundCard, WavSink
from wanedge.units import AgentUnit

RATE = 16_000
SAMPLES = RATE * UNIT_MS // 1000
TARGET_MS = 60


def unit(index, sound, shade=0):
    frames = np.full((FRAMES_PER_UNIT, 2, 2, 3), shade, np.uint8)
    return AgentUnit(index, index * UNIT_MS, (index + 1) * UNIT_MS, sound.astype(np.float32), frames, "", (), "<speak>")


def tone(index):
    t = (np.arange(SAMPLES) + index * SAMPLES) / RATE
    return 0.5 * np.sin(2 * np.pi * 220 * t)


def speech(index):
    """Half a second of tone, then a pause of 0.3 s, again and again, without a step."""
    t = (np.arange(SAMPLES) + index * SAMPLES) / RATE
    beat = t % 0.8
    envelope = np.clip(np.minimum(beat, 0.5 - beat) / 0.05, 0, 1)
    return 0.5 * envelope * np.sin(2 * np.pi * 220 * t)


class Stage:
    """A model that makes a unit every 160 ms, a card that plays on a clock of its own, a screen looked at every 10 ms.

    late(seconds) says how long after its time a unit that was due at `seconds` comes.
    """

    def __init__(self, programme, ppm=0.0, late=lambda _: 0.0, block=160, keep=True, shade=lambda _: 0):
        self.now, self.programme, self.late, self.shade = 0.0, programme, late, shade
        self.player = Player(RATE, target_ms=TARGET_MS, clock=lambda: self.now)
        self.block, self.block_s = np.zeros(block, np.float32), block / RATE / (1 + ppm * 1e-6)
        self.next_block, self.next_unit, self.units = 0.0, 0, 0
        self.heard, self.keep = [], keep
        self.latencies, self.speeds, self.pictures = [], [], []

    def arrival(self, index):
        due = (index + 1) * UNIT_MS / 1000
        return due + self.late(due)

    def run(self, seconds):
        arrives = self.arrival(self.units)
        while self.next_block < seconds:
            while arrives <= self.next_block:
                self.now = arrives
                self.player.play(unit(self.units, self.programme(self.units), self.shade(self.units)))
                stats = self.player.stats
                self.latencies.append((self.now, stats.latency_ms))
                self.speeds.append(stats.speed)
                self.units += 1
                arrives = max(self.arrival(self.units), arrives)
            self.now = self.next_block
            self.player.fill(self.block)
            if self.keep:
                self.heard.append(self.block.copy())
            picture = self.player.picture()
            if picture is not None:
                self.pictures.append((self.now, int(picture[0, 0, 0])))
            self.next_block += self.block_s
        return self


def stalls(*at, lasting=0.7):
    """Units that are due during a stall come at its end."""
    return lambda due: max((s + lasting - due for s in at if s <= due < s + lasting), default=0.0)


def test_units_in_time_are_played_as_they_are_after_the_target():
    stage = Stage(tone).run(5.0)
    heard = np.concatenate(stage.heard)
    start = int(np.flatnonzero(heard)[0])
    expected = np.concatenate([tone(k) for k in range(20)])
    np.testing.assert_allclose(heard[start + 200 : start + 40_000], expected[200 + 1 : 40_000 + 1][:39_800], atol=0.04)
    np.testing.assert_array_equal(set(stage.speeds), {1.0})
    assert stage.player.stats.underruns == 0
    assert start / RATE == pytest.approx(0.160 + TARGET_MS / 1000, abs=0.012)


@pytest.mark.parametrize("programme", [tone, speech])
def test_ten_stalls_in_an_hour_leave_no_backlog_and_no_click(programme):
    """Without the quiet minutes in between, so that every sample can be looked at."""
    at = [20.0 + 12.3 * k for k in range(10)]
    stage = Stage(programme, late=stalls(*at)).run(160.0)
    for stall in at:
        settled = [ms for now, ms in stage.latencies if stall + 0.7 + 2.0 <= now < stall + 11]
        assert max(settled) <= TARGET_MS + 40
        assert min(settled) >= TARGET_MS - 40
    steps = np.abs(np.diff(np.concatenate(stage.heard)))
    own = np.abs(np.diff(np.concatenate([programme(k) for k in range(100)]))).max()
    assert steps.max() <= own * (1 + MAX_STRETCH) + 1e-4
    stats = stage.player.stats
    assert stats.underruns == 10
    assert stats.max_skew_ms <= 40
    assert stats.dropped_ms / 10 == pytest.approx(stats.silence_ms / 10, abs=100)
    # nothing vanishes: what was not dropped or is not waiting was played
    pushed_ms = stage.units * UNIT_MS
    assert stats.played_ms + stats.dropped_ms == pytest.approx(pushed_ms, rel=MAX_STRETCH, abs=400)


def test_pauses_go_before_words():
    stage = Stage(speech, late=stalls(10.0)).run(20.0)
    heard = np.concatenate(stage.heard)
    loud = np.abs(heard[: len(heard) // 160 * 160]).reshape(-1, 160).max(axis=1) > 0.02
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(int)))
    lengths_ms = (edges[1::2] - edges[::2]) * 10
    assert stage.player.stats.dropped_ms > 400
    # Every word is whole, but for the one that the stall and the one that the end cut in two.
    assert np.count_nonzero(lengths_ms < 450) <= 3
    assert lengths_ms[lengths_ms < 450].sum() >= 450 - 20


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [-2000, -200, 200, 2000])
def test_a_card_whose_clock_drifts_is_followed(ppm):
    """2,000 ppm for seven minutes is as far as 200 ppm go in more than an hour."""
    stage = Stage(tone, ppm=ppm, block=320, keep=False).run(420.0)
    settled = [ms for now, ms in stage.latencies if now > 5]
    assert max(settled) <= TARGET_MS + 40
    assert min(settled) >= TARGET_MS - 40
    stats = stage.player.stats
    assert stats.underruns == 0
    assert stats.dropped_ms == 0
    assert stats.max_skew_ms <= 40
    assert stats.speed == pytest.approx(1 / (1 + ppm * 1e-6), abs=2e-3)


@pytest.mark.soak
@pytest.mark.timeout(1800)  # half a minute on a quiet core
@pytest.mark.parametrize("ppm", [-200, 200])
def test_eight_hours_of_drift(ppm):
    stage = Stage(tone, ppm=ppm, block=640, keep=False).run(8 * 3600.0)
    settled = [ms for now, ms in stage.latencies if now > 5]
    assert max(settled) <= TARGET_MS + 40
    assert min(settled) >= TARGET_MS - 40
    assert stage.player.stats.underruns == 0
    assert stage.player.stats.max_skew_ms <= 40


@pytest.mark.parametrize("speed_ppm", [-20_000, 3_000, 20_000])
def test_stretched_sound_is_the_same_sound(speed_ppm):
    """A card far off makes the player resample all the time; the tone stays one tone."""
    stage = Stage(tone, ppm=speed_ppm).run(12.0)
    heard = np.concatenate(stage.heard)[6 * RATE : 10 * RATE] * np.hanning(4 * RATE)
    spectrum = np.abs(np.fft.rfft(heard))
    peak = int(spectrum.argmax())
    assert peak / 4 == pytest.approx(220 / (1 + speed_ppm * 1e-6), abs=1)
    spectrum[peak - 40 : peak + 41] = 0
    assert 20 * np.log10(spectrum.max() / (np.abs(heard).sum() / 2)) < -45


def test_the_picture_is_that_of_the_voice_whatever_happens():
    """Each unit's sound and picture are its number: what is heard and what is seen at a time must be one number."""
    stage = Stage(lambda k: np.full(SAMPLES, k / 256), late=stalls(5.0, 15.0), ppm=500, shade=lambda k: k)
    stage.run(25.0)
    heard = np.concatenate(stage.heard)
    compared = 0
    for at, number in stage.pictures:
        sample = round(at / stage.block_s) * len(stage.block)
        levels = 256 * heard[max(sample - 640, 0) : sample + 1]  # the last 40 ms
        if levels.min() > 0.5 and abs(levels - np.round(levels)).max() < 1e-3:  # not in a fade
            compared += 1
            assert levels.min() - 0.01 <= number <= levels.max() + 0.01
    assert compared > 400


def test_flush_stops_the_voice_and_returns_what_was_not_heard():
    stage = Stage(tone).run(3.0)
    for extra in range(5):
        stage.player.play(unit(stage.units + extra, tone(stage.units + extra)))
    played = stage.player.take_played()
    unheard = stage.player.flush()
    assert [u.index for u in played] == list(range(len(played)))
    assert [u.index for u in unheard] == list(range(len(played), stage.units + 5))
    blocks = []
    for _ in range(20):
        stage.player.fill(stage.block)
        blocks.append(stage.block.copy())
    after = np.concatenate([stage.heard[-1], *blocks])
    assert not after[160 * 4 :].any()
    assert np.abs(np.diff(after)).max() <= 0.5 * 2 * np.pi * 220 / RATE * (1 + MAX_STRETCH)
    assert stage.player.stats.flushed_ms > 500


def test_every_unit_is_reported_as_played_once_and_in_order():
    stage = Stage(speech, late=stalls(4.0))
    reported = []
    for second in range(1, 12):
        stage.run(float(second))
        reported += [u.index for u in stage.player.take_played()]
    assert reported == list(range(len(reported)))
    assert len(reported) >= stage.units - 8


def test_a_voice_without_a_screen_keeps_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """375 units are played and nobody asks for a picture, or what was played."""
    stage = Stage(tone, keep=False)
    monkeypatch.setattr(stage.player, "picture", lambda: None)
    alive: weakref.WeakValueDictionary[int, AgentUnit] = weakref.WeakValueDictionary()
    original = stage.player.play

    def play(unit):
        alive[unit.index] = unit
        original(unit)

    monkeypatch.setattr(stage.player, "play", play)
    stage.run(60.0)
    gc.collect()
    assert stage.units > 370
    assert len(alive) < 80


def test_units_given_up_by_a_flush_are_not_reported_as_played():
    stage = Stage(tone).run(3.0)
    for extra in range(5):
        stage.player.play(unit(stage.units + extra, tone(stage.units + extra)))
    stage.units += 5
    stage.player.take_played()
    unheard = {u.index for u in stage.player.flush()}
    assert stage.player.flush() == []
    stage.run(6.0)
    after = [u.index for u in stage.player.take_played()]
    assert after
    assert not unheard & set(after)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=40), st.lists(st.floats(0, 0.5), min_size=1, max_size=12))
def test_any_block_sizes_and_any_lateness_play_in_order_without_a_click(blocks, lateness):
    now = [0.0]
    player = Player(RATE, clock=lambda: now[0])
    heard, arrives, index = [], 0.160, 0
    for count in blocks * 8:
        while arrives <= now[0] and index < 200:
            player.play(unit(index, tone(index)))
            index += 1
            arrives = max(arrives, (index + 1) * 0.160 + lateness[index % len(lateness)])
        block = np.full(count, 9.0, np.float32)  # drivers hand out used memory
        player.fill(block)
        heard.append(block)
        now[0] += count / RATE
    steps = np.abs(np.diff(np.concatenate([[0.0], *heard])))
    assert steps.max() <= 0.5 * 2 * np.pi * 220 / RATE * (1 + MAX_STRETCH) + 1e-3


class FakeSound:
    """Looks like sounddevice."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def __init__(self, present=True):
        self.present, self.open = present, False

    def OutputStream(self, **options):  # noqa: N802, the library's name
        if not self.present:
            raise self.PortAudioError("no device")
        self.options = options
        return self

    def __enter__(self):
        self.open = True

    def __exit__(self, *_):
        self.open = False


def test_a_sound_card_asks_for_blocks_and_its_delay_moves_the_pictures():
    sound, now = FakeSound(), [100.0]
    player = Player(RATE, SoundCard("Speaker", library=sound), target_ms=0, clock=lambda: now[0])
    with player:
        assert (sound.options["samplerate"], sound.options["device"], sound.open) == (RATE, "Speaker", True)
        for k in range(3):
            player.play(unit(k, tone(k)))
        block = np.full((160, 1), 9.0, np.float32)
        sound.options["callback"](block, 160, SimpleNamespace(currentTime=5.0, outputBufferDacTime=5.2), None)
        assert np.abs(block).max() <= 0.5
        assert player.picture() is None  # its voice is heard in 0.2 s
        now[0] += 0.21
        assert player.picture() is not None
    assert not sound.open


def test_no_loudspeaker_is_a_clear_error():
    with pytest.raises(CaptureError, match="loudspeaker") as caught, Player(RATE, SoundCard(library=FakeSound(False))):
        pass
    assert "python -m sounddevice" in caught.value.hint


def test_a_wav_sink_writes_what_is_heard(tmp_path):
    path = tmp_path / "heard.wav"
    with Player(RATE, WavSink(path)) as player:
        for k in range(3):
            player.play(unit(k, tone(k)))
        while player.stats.played_ms < 300:
            time.sleep(0.01)
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    assert np.abs(pcm).max() == pytest.approx(0.5 * 32_767, rel=0.01)
    assert np.count_nonzero(pcm) > 0.25 * RATE


def test_a_null_sink_plays_at_the_pace_of_time():
    blocks = []
    with Player(RATE, NullSink(on_block=lambda block: blocks.append(len(block)))):
        while len(blocks) < 5:
            time.sleep(0.01)
    assert set(blocks) == {320}
