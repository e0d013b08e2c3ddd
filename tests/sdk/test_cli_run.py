"""`wanedge run`: media in, reply out, nothing half-written left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests.configs import mini
from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge.cli import recording
from wanedge.cli.account import Account, Line, clock, join_lines
from wanedge.cli.app import build_app
from wanedge.config import FPS, FRAMES_PER_UNIT, UNIT_MS
from wanedge.media import AudioChunk, VideoChunk
from wanedge.media.files import read_media
from wanedge.media.mp4 import Mp4Writer
from wanedge.units import AgentUnit, UnitTiming

UNITS = 6
RATE = 16_000


def write_clip(path: Path, units: int) -> Path:
    """A tone and a moving bar, of another rate and size than the model's."""
    with Mp4Writer(path, FPS, (48, 80), RATE) as out:
        for unit in range(units):
            samples = np.arange(RATE * UNIT_MS // 1000) + unit * RATE * UNIT_MS // 1000
            frames = np.zeros((FRAMES_PER_UNIT, 48, 80, 3), dtype=np.uint8)
            frames[:, :, : 8 + unit % 64] = 200
            out.write(frames, (0.3 * np.sin(2 * np.pi * 220 * samples / RATE)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("media") / "visitor.mp4", UNITS)


def run(bundle: Bundle, *arguments: object) -> Result:
    return CliRunner().invoke(build_app([]), ["run", str(bundle.root), "--variant", "fp32", *map(str, arguments)])


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def count(path: Path) -> tuple[int, tuple[int, ...], int]:
    """Frames, their size, and samples of a media file."""
    chunks = list(read_media(path))
    frames = [c.frames for c in chunks if isinstance(c, VideoChunk)]
    return len(frames), frames[0].shape[1:3], sum(len(c.pcm) for c in chunks if isinstance(c, AudioChunk))


def test_the_reply_is_as_long_as_the_input(mini_bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    reply = tmp_path / "reply.mp4"
    told = document(run(mini_bundle, clip, "-o", reply, "--json"))
    config = mini_bundle.model
    frames, size, samples = count(reply)
    # AAC hands out whole frames of 1,024 samples, so a clip decodes to up to one unit more than went in
    assert told["units"] in (UNITS, UNITS + 1)
    assert frames == told["units"] * FRAMES_PER_UNIT
    assert size == (config.agent_video.height, config.agent_video.width)
    assert samples >= told["units"] * config.audio.samples
    assert told["weights"] == "random"
    assert told["response_latency_ms"].keys() == {"p50", "p95", "p99", "max"}
    assert set(tmp_path.iterdir()) == {reply}


def test_side_by_side_holds_both_and_one_unit_more(mini_bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.mp4"
    told = document(run(mini_bundle, clip, "-o", both, "--side-by-side", "--json"))
    frames, (height, width), _ = count(both)
    config = mini_bundle.model
    assert frames == (told["units"] + 1) * FRAMES_PER_UNIT
    assert (height, width) == (config.agent_video.height, config.user_video.width + config.agent_video.width)


def test_the_same_seed_says_the_same_at_any_pace(mini_bundle: Bundle, clip: Path) -> None:
    fast, slow = (document(run(mini_bundle, clip, "--pace", pace, "--json")) for pace in ("max", "realtime"))
    assert fast["units"] == slow["units"]
    assert fast["text"] == slow["text"]
    assert fast["text"], "the mini model babbles"


def test_a_saved_conversation_goes_on(mini_bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    saved = tmp_path / "lobby.state"
    first = document(run(mini_bundle, clip, "--seed", 3, "--save-state", saved, "--json"))
    again = [document(run(mini_bundle, clip, "--state", saved, "--json")) for _ in range(2)]
    assert first["first_unit"] == 0
    assert again[0]["first_unit"] == first["units"]
    assert again[0]["text"] == again[1]["text"]
    assert again[0]["text"][0]["start_ms"] < UNIT_MS * UNITS, "times count from the start of this run"


@pytest.mark.parametrize("extra", [["--world", "A lobby."], ["--seed", "1"]])
def test_a_saved_conversation_keeps_its_world_and_seed(
    mini_bundle: Bundle, clip: Path, tmp_path: Path, extra: list[str]
) -> None:
    saved = tmp_path / "lobby.state"
    saved.write_bytes(b"never read")
    assert run(mini_bundle, clip, "--state", saved, *extra).exit_code == 2


def test_text_is_printed_with_times_and_a_summary(mini_bundle: Bundle, clip: Path) -> None:
    result = run(mini_bundle, clip)
    assert result.stdout.startswith("00:00.")
    assert "response latency p50" in result.stdout
    assert "The weights are random, so the reply is noise." in result.stdout


def test_a_world_that_is_too_long_is_misuse(mini_bundle: Bundle, clip: Path) -> None:
    result = run(mini_bundle, clip, "--world", "A lobby. " * 500)
    assert result.exit_code == 2
    assert "prefill" in result.stderr


def test_a_file_that_is_no_media_leaves_no_reply(mini_bundle: Bundle, tmp_path: Path) -> None:
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(b"not a film" * 100)
    result = run(mini_bundle, noise, "-o", tmp_path / "reply.mp4")
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == [noise]


def test_the_reply_may_not_replace_the_input(mini_bundle: Bundle, clip: Path) -> None:
    before = clip.read_bytes()
    assert run(mini_bundle, clip, "-o", clip).exit_code == 2
    assert clip.read_bytes() == before


def test_an_unknown_variant_is_misuse(mini_bundle: Bundle, clip: Path) -> None:
    result = run(mini_bundle, clip, "--variant", "int3")
    assert result.exit_code == 2
    assert "it has: fp32, fp32-decomposed" in result.stderr


def test_live_without_its_extra_names_the_pip_command(mini_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = run(mini_bundle, "--live")
    assert result.exit_code == 1
    assert "-> pip install 'wanedge[live]'" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_ctrl_c_leaves_nothing_half_written(mini_bundle: Bundle, tmp_path: Path) -> None:
    film = write_clip(tmp_path / "long.mp4", 200)
    command = [sys.executable, "-c", "from wanedge.cli import main; main()", "run", str(mini_bundle.root)]
    command += ["--variant", "fp32", str(film), "-o", str(tmp_path / "reply.mp4"), "--pace", "realtime"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:  # the reply is being written
        assert process.poll() is None, "ended before it wrote"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "\ninterrupted\n"
    assert list(tmp_path.iterdir()) == [film]


class Kept:
    """Stands in for Mp4Writer and keeps what it is given."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self.audio: list[np.ndarray] = []

    def write(self, frames: np.ndarray, audio: np.ndarray) -> None:
        self.frames.append(frames)
        self.audio.append(audio)

    def __exit__(self, *_: object) -> None:
        pass


def test_side_by_side_shows_an_answer_one_unit_after_its_question(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    monkeypatch.setattr(recording, "Mp4Writer", lambda *_: kept)
    config = mini()
    users = list(user_units(config, 3))
    both = recording.SideBySide(Path("both.mp4"), config)
    chunks = [
        chunk
        for u in users
        for chunk in (AudioChunk(u.audio[:, None], config.audio.sample_rate, None), VideoChunk(u.frames, FPS, None))
    ]
    assert list(both.watch(chunks)) == chunks
    answers = [answer(config, k) for k in range(3)]
    with both:
        for unit in answers:
            both.add(unit)
    width = config.user_video.width
    for k, user in enumerate(users):
        assert np.array_equal(kept.frames[k][:, :, :width], user.frames)
    for k, unit in enumerate(answers):
        assert np.array_equal(kept.frames[k + 1][:, :, width:], unit.frames)
    assert np.array_equal(kept.audio[3], answers[2].audio)
    assert len(kept.frames) == 4


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_recording_keeps_time_where_units_were_not_answered(tmp_path: Path, side_by_side: bool) -> None:
    config, answered = mini(), [0, 1, 5, 6, 12]
    if side_by_side:
        out: recording.Recording | recording.SideBySide = recording.SideBySide(tmp_path / "r.mp4", config, 40)
        chunks = [AudioChunk(u.audio[:, None], config.audio.sample_rate, None) for u in user_units(config, 13)]
        list(out.watch(chunks))
    else:
        out = recording.Recording(tmp_path / "r.mp4", config, 40)
    with out:
        for index in answered:
            out.add(answer(config, 40 + index))
    frames, _, samples = count(tmp_path / "r.mp4")
    assert frames == (13 + side_by_side) * FRAMES_PER_UNIT
    assert samples == pytest.approx((13 + side_by_side) * config.audio.samples, abs=1100)
    sound = np.concatenate([c.pcm for c in read_media(tmp_path / "r.mp4") if isinstance(c, AudioChunk)])[:, 0]
    if not side_by_side:
        parts = np.abs(sound[: 13 * config.audio.samples]).reshape(13, -1)[:, 300:-300].mean(axis=1)
        assert [k for k, level in enumerate(parts) if level > 0.5] == answered


def test_a_salvaged_file_holds_what_was_written_before_the_error(tmp_path: Path) -> None:
    config = mini()

    def interrupted() -> None:
        with recording.Recording(tmp_path / "r.mp4", config, salvage=True) as out:
            for index in range(20):
                out.add(answer(config, index))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["r.mp4"]
    assert count(tmp_path / "r.mp4")[0] == 20 * FRAMES_PER_UNIT


def test_a_folder_and_a_pipe_are_called_what_they_are(mini_bundle: Bundle, tmp_path: Path) -> None:
    folder = run(mini_bundle, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    pipe = run(mini_bundle, tmp_path / "pipe")
    assert (folder.exit_code, pipe.exit_code) == (2, 2)
    assert "is a folder" in folder.stderr
    assert "-> save it to a file first: cat" in pipe.stderr


def test_a_damaged_file_is_answered_and_the_problems_are_named(mini_bundle: Bundle, tmp_path: Path) -> None:
    cut = write_clip(tmp_path / "cut.mp4", 25)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 6 // 10])
    result = run(mini_bundle, cut, "-o", tmp_path / "reply.mp4", "--json")
    assert "are missing" in result.stderr
    assert any("are missing" in problem for problem in document(result)["problems"])
    assert count(tmp_path / "reply.mp4")[0] >= FRAMES_PER_UNIT


def answer(config, index: int) -> AgentUnit:
    size = (FRAMES_PER_UNIT, config.agent_video.height, config.agent_video.width, 3)
    return AgentUnit(
        index=index,
        start_ms=index * UNIT_MS,
        end_ms=(index + 1) * UNIT_MS,
        audio=np.full(config.audio.samples, 0.1 * index, dtype=np.float32),
        frames=np.full(size, 40 + index, dtype=np.uint8),
        text=f" word{index}",
        tokens=(),
        state="<speak>",
        timing=UnitTiming(50.0, 10.0, 20.0, 30.0, 40.0, latency_ms=1000.0 + index),
    )


def test_latency_is_without_queueing_when_nothing_paces_the_input() -> None:
    paced, unpaced = Account("realtime"), Account("max")
    for account in (paced, unpaced):
        account.add(answer(mini(), 0))
    assert (paced.latencies_ms, unpaced.latencies_ms) == ([1000.0], [100.0])
    assert (paced.deadline_misses, unpaced.deadline_misses) == (1, 0)
    assert paced.realtime_factor == 150 / UNIT_MS


words = st.lists(
    st.builds(SimpleNamespace, gap=st.integers(0, 3), state=st.sampled_from(["<speak>", "<listen>"]), text=st.text()),
    max_size=20,
)


@given(words)
def test_joining_lines_loses_no_word_and_no_order(said: list[SimpleNamespace]) -> None:
    lines, now = [], 0
    for word in said:
        now += word.gap * UNIT_MS
        lines.append(Line(now, now + UNIT_MS, word.state, word.text))
        now += UNIT_MS
    joined = join_lines(lines)
    assert "".join(line.text for line in joined) == "".join(line.text for line in lines)
    assert sum(line.end_ms - line.start_ms for line in joined) == sum(line.end_ms - line.start_ms for line in lines)
    for one, other in pairwise(joined):
        assert one.end_ms < other.start_ms or (one.end_ms == other.start_ms and one.state != other.state)


@given(st.integers(0, 10**7))
def test_the_clock_reads_back_to_the_hundredth(ms: int) -> None:
    minutes, seconds = clock(ms).split(":")
    assert int(minutes) * 60_000 + round(float(seconds) * 100) * 10 == ms // 10 * 10
