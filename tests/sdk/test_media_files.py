"""Media files in and out: read back what was written, refuse what is damaged."""

import sys
from fractions import Fraction

import numpy as np
import pytest

from wanedge.config import TINY
from wanedge.media import AudioChunk, MediaAssembler, MediaError, MediaFileError, VideoChunk, mp4
from wanedge.media.files import read_media
from wanedge.media.mp4 import Mp4Writer
from wanedge_runtimes.errors import MissingExtra

av = pytest.importorskip("av", reason="needs the extra media")

RATE, FPS = 16_000, 25
SECONDS = 3


def moving_picture(size, count=SECONDS * FPS):
    """Smooth waves that move: uint8 [count, H, W, 3]."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    frames = [
        np.stack([128 + 100 * np.sin((x + 3 * k) / 20), 128 + 100 * np.cos((y + 2 * k) / 15), 128 + 0 * x], axis=-1)
        for k in range(count)
    ]
    return np.stack(frames).astype(np.uint8)


def sweep(seconds=SECONDS):
    t = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * (300 + 200 * t) * t)).astype(np.float32)


def write(path, frames, audio, units=4):
    step = units * RATE // FPS
    with Mp4Writer(path, FPS, frames.shape[1:3], RATE) as out:
        for k in range(0, len(frames), units):
            out.write(frames[k : k + units], audio[k * RATE // FPS :][:step])


def read(path):
    chunks = list(read_media(path))
    video = [c for c in chunks if isinstance(c, VideoChunk)]
    audio = [c for c in chunks if isinstance(c, AudioChunk)]
    return chunks, video, audio


def psnr(left, right):
    return 10 * np.log10(255**2 / np.mean((left.astype(float) - right) ** 2))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("size", [(96, 160), (97, 161)], ids=["even", "odd"])
def test_what_is_written_is_read_back(tmp_path, monkeypatch, codec, size):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    monkeypatch.setattr(mp4, "VIDEO_CODECS", (codec,))
    frames, audio = moving_picture(size), sweep()
    path = tmp_path / "reply.mp4"
    write(path, frames, audio)
    assert list(tmp_path.iterdir()) == [path]

    chunks, video, heard = read(path)
    assert [c.timestamp for c in chunks] == sorted(c.timestamp for c in chunks)
    assert [c.timestamp for c in video] == pytest.approx(np.arange(len(frames)) / FPS)
    seen = np.concatenate([c.frames for c in video])[:, : size[0], : size[1]]
    assert psnr(seen, frames) > 35
    pcm = np.concatenate([c.pcm for c in heard])[: len(audio), 0]
    assert len(pcm) == len(audio)  # AAC rounds up to its own frame
    assert np.corrcoef(pcm, audio)[0, 1] > 0.999  # at lag 0: not a sample of shift


def test_writing_any_lengths_makes_the_same_media(tmp_path):
    frames, audio = moving_picture((32, 48), 25), sweep(1)
    with Mp4Writer(tmp_path / "a.mp4", FPS, (32, 48), RATE) as out:
        out.write(frames, audio)
    with Mp4Writer(tmp_path / "b.mp4", FPS, (32, 48), RATE) as out:
        out.write(frames[:0], audio[:7])
        for frame in frames:
            out.write(frame[None], audio[:0])
        out.write(frames[:0], audio[7:])
    _, video_a, audio_a = read(tmp_path / "a.mp4")
    _, video_b, audio_b = read(tmp_path / "b.mp4")
    for a, b in zip(video_a, video_b, strict=True):
        np.testing.assert_array_equal(a.frames, b.frames)
    np.testing.assert_array_equal(np.concatenate([c.pcm for c in audio_a]), np.concatenate([c.pcm for c in audio_b]))


def test_the_same_media_makes_the_same_bytes(tmp_path):
    """Whatever was in the memory that the encoder gets."""
    random, frames, audio = np.random.default_rng(0), moving_picture((96, 160), 25), sweep(1)
    files = set()
    for _ in range(12):
        for size in random.integers(100, 400_000, 60):
            random.integers(0, 255, size, dtype=np.uint8)
        write(tmp_path / "again.mp4", frames, audio)
        files.add((tmp_path / "again.mp4").read_bytes())
    assert len(files) == 1


def test_a_file_becomes_units_with_sound_and_picture_at_the_same_time(tmp_path):
    frames, audio = np.zeros((50, 96, 160, 3), np.uint8), np.zeros(2 * RATE, np.float32)
    frames[25:], audio[RATE:] = 255, 0.5 * np.sin(np.arange(RATE))
    write(tmp_path / "clip.mp4", frames, audio)
    assembler = MediaAssembler(TINY)
    for chunk in read_media(tmp_path / "clip.mp4"):
        if isinstance(chunk, AudioChunk):
            assembler.push_audio(chunk.pcm, chunk.sample_rate, chunk.timestamp)
        else:
            assembler.push_video(chunk.frames, chunk.fps, chunk.timestamp)
    units = assembler.finish()
    loud = np.abs(np.concatenate([u.audio for u in units])) > 0.3
    bright = np.concatenate([u.frames for u in units])[:, 48, 80, 0] > 128
    assert int(np.argmax(bright)) == 25
    assert int(np.argmax(loud)) / RATE == pytest.approx(1.0, abs=0.002)


def test_streams_stored_far_apart_come_interleaved(tmp_path):
    path = tmp_path / "apart.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=8_000, layout="stereo")
        packets = []
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            packets += video.encode(frame)
        packets += video.encode(None)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 32_000), np.int16), format="s16", layout="stereo")
        sound.sample_rate, sound.pts, sound.time_base = 8_000, 0, Fraction(1, 8_000)
        packets += [*audio.encode(sound), *audio.encode(None)]
        for packet in packets:
            container.mux_one(packet)
    chunks, seen, heard = read(path)
    assert [c.timestamp for c in chunks] == sorted(c.timestamp for c in chunks)
    assert len(seen) == 100
    assert {(c.sample_rate, c.pcm.shape[1], str(c.pcm.dtype)) for c in heard} == {(8_000, 2, "int16")}


@pytest.mark.parametrize(
    ("codec", "container"), [("pcm_u8", "wav"), ("pcm_s32le", "wav"), ("pcm_f64le", "wav"), ("flac", "flac")]
)
def test_audio_of_any_sample_format_keeps_its_level(tmp_path, codec, container):
    path = tmp_path / f"sound.{container}"
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=RATE, layout="mono")
        sound = av.AudioFrame.from_ndarray(sweep(1)[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts = RATE, 0
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=RATE)
        for frame in resampler.resample(sound):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    _, video, heard = read(path)
    assert video == []
    assembler = MediaAssembler(TINY)
    for chunk in heard:
        assembler.push_audio(chunk.pcm, chunk.sample_rate, chunk.timestamp)
    audio = np.concatenate([u.audio for u in assembler.finish()])[:RATE]
    np.testing.assert_allclose(audio, sweep(1), atol=1 / 128 + 1e-6 if codec == "pcm_u8" else 1 / 2**15)


def test_a_file_without_audio_or_video_is_refused(tmp_path):
    path = tmp_path / "words.srt"
    path.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    with pytest.raises(MediaFileError, match="neither audio nor video"):
        read_media(path)


def test_a_missing_file_and_a_file_of_noise_are_refused(tmp_path):
    with pytest.raises(MediaFileError, match=r"none\.mp4 is not a file"):
        read_media(tmp_path / "none.mp4")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5_000))
    with pytest.raises(MediaFileError, match="not readable media"):
        read_media(tmp_path / "noise.mp4")


def test_a_file_that_ends_early_is_read_and_what_is_missing_is_said(tmp_path):
    path = tmp_path / "cut.mp4"
    write(path, moving_picture((96, 160)), sweep())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    problems: list[str] = []
    chunks = list(read_media(path, problems.append))
    assert {type(c) for c in chunks} == {AudioChunk, VideoChunk}
    for kind in ("audio", "video"):
        assert any(kind in problem and "should last 3.00 s" in problem for problem in problems)


def test_an_error_while_writing_leaves_no_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "reply.mp4"
    path.write_bytes(b"old")

    def interrupted():
        with Mp4Writer(path, FPS, (96, 160), RATE) as out:
            out.write(moving_picture((96, 160), 4), sweep(0.16))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["reply.mp4"]
    assert path.read_bytes() == b"old"


def test_frames_and_audio_of_another_shape_are_refused(tmp_path):
    with Mp4Writer(tmp_path / "reply.mp4", FPS, (96, 160), RATE) as out:
        with pytest.raises(MediaError, match=r"\[1, 90, 160, 3\]"):
            out.write(np.zeros((1, 90, 160, 3), np.uint8), sweep(0.04))
        with pytest.raises(MediaError, match="int16"):
            out.write(np.zeros((1, 96, 160, 3), np.uint8), np.zeros(640, np.int16))
        out.write(np.zeros((1, 96, 160, 3), np.uint8), sweep(0.04))


def test_a_file_without_anything_written_is_an_error_and_no_file(tmp_path):
    with pytest.raises(MediaFileError, match="empty"), Mp4Writer(tmp_path / "reply.mp4", FPS, (96, 160), RATE):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_an_error_with_the_path(tmp_path):
    with pytest.raises(MediaFileError, match="nowhere"):
        Mp4Writer(tmp_path / "nowhere" / "reply.mp4", FPS, (96, 160), RATE)


def test_a_pyav_without_codecs_is_an_error_that_names_them(tmp_path, monkeypatch):
    monkeypatch.setattr(mp4, "VIDEO_CODECS", ("no_such_codec",))
    with pytest.raises(MediaFileError, match="no_such_codec"):
        Mp4Writer(tmp_path / "reply.mp4", FPS, (96, 160), RATE)
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_the_error_is_the_pip_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"pip install 'wanedge\[media\]'"):
        read_media(tmp_path / "clip.mp4")
    with pytest.raises(MissingExtra, match=r"pip install 'wanedge\[media\]'"):
        Mp4Writer(tmp_path / "reply.mp4", FPS, (96, 160), RATE)
