"""Files as they are found: joined, cut, damaged, turned, squeezed, with several tracks. All of them real files."""

import os
import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from wanedge.config import TINY
from wanedge.media import AudioChunk, MediaFileError, VideoChunk
from wanedge.media.files import read_media, read_units

av = pytest.importorskip("av", reason="needs the extra media")

FPS = 25


def sweep(seconds, rate):
    t = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (300 + 20 * t) * t)).astype(np.float32)


def encode_audio(container, codec, sound, rate, **options):
    stream = container.add_stream(codec, rate=rate, layout="mono", **options)
    resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate)
    packets = []
    for at in range(0, len(sound), 960):
        frame = av.AudioFrame.from_ndarray(sound[None, at : at + 960], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
        for part in resampler.resample(frame):
            packets += stream.encode(part)
    return [*packets, *stream.encode(None)]


def write_audio(path, codec, seconds, rate=48_000, format=None, **options):
    with av.open(str(path), "w", format=format, options=options.pop("container", {})) as out:
        out.mux(encode_audio(out, codec, sweep(seconds, rate), rate, **options))
    return path


def picture(number, height=96, width=160):
    """A bright left half, a red upper edge, and the number of the frame in its brightness."""
    frame = np.full((height, width, 3), 40 + number * 13 % 60, np.uint8)
    frame[:, : width // 2] += 120
    frame[: height // 8] = (230, 20, 20)
    return frame


def write_film(path, seconds, codec="mpeg4", audio="aac", sar=None, times=None, rate=48_000, size=(96, 160)):
    """times: seconds of each frame; by default 25 a second."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=FPS)
        video.width, video.height, video.pix_fmt = size[1], size[0], "yuv420p"
        video.codec_context.time_base = Fraction(1, FPS)
        if sar is not None:
            video.codec_context.sample_aspect_ratio = sar
        packets = []
        for number, at in enumerate(times if times is not None else np.arange(int(seconds * FPS)) / FPS):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = round(at * FPS), Fraction(1, FPS)
            packets += video.encode(frame)
        packets += video.encode(None)
        if audio:
            packets += encode_audio(out, audio, sweep(seconds, rate), rate)
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            out.mux_one(packet)
    return path


def read(path):
    """(seconds of sound, frames, problems, chunks)"""
    problems: list[str] = []
    chunks = list(read_media(path, problems.append))
    sound = sum(len(c.pcm) / c.sample_rate for c in chunks if isinstance(c, AudioChunk))
    frames = sum(len(c.frames) for c in chunks if isinstance(c, VideoChunk))
    return sound, frames, problems, chunks


def silence_s(path):
    units = list(read_units(path, TINY, lambda _: None))
    audio = np.concatenate([u.audio for u in units])
    loud = np.convolve(np.abs(audio), np.ones(160) / 160, mode="same") > 0.01
    return np.count_nonzero(~loud) / TINY.audio.sample_rate, len(units) * 0.160


def damaged(path, share=0.5, count=400):
    data = bytearray(path.read_bytes())
    at = int(len(data) * share)
    data[at : at + count] = np.random.default_rng(7).bytes(count)
    path.write_bytes(data)
    return path


def test_an_estimated_length_is_not_a_fact(tmp_path):
    """An mp3 without a Xing header whose bit rate rises: FFmpeg estimates its length from the start."""
    path = tmp_path / "vbr.mp3"
    parts = [
        write_audio(tmp_path / f"{rate}.mp3", "libmp3lame", 5, container={"write_xing": "0"}, bit_rate=rate)
        for rate in (32_000, 256_000)
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    sound, _, problems, _ = read(path)
    assert sound == pytest.approx(10, abs=0.2)
    assert any("bit rate" in problem for problem in problems)


def test_raw_aac_is_read_to_its_end(tmp_path):
    path = write_audio(tmp_path / "raw.aac", "aac", 20, format="adts")
    sound, _, problems, _ = read(path)
    assert sound == pytest.approx(20, abs=0.1)
    assert len(problems) <= 1


@pytest.mark.parametrize("name", ["film.mkv", "film.webm", "film.ts", "film.mp4"])
def test_a_truncated_file_gives_what_there_is_and_says_what_is_missing(tmp_path, name):
    codec, audio = ("libvpx", "libopus") if name.endswith("webm") else ("mpeg4", "aac")
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    path = write_film(tmp_path / name, 4, codec, audio)
    if name.endswith("mp4"):
        path = fast_start(path)
    whole = read(path)
    assert whole[1] == 100
    assert whole[2] == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    sound, frames, problems, _ = read(path)
    assert 0.8 < sound < 3.6
    assert 20 < frames < 90
    assert any("missing" in problem for problem in problems), problems


def fast_start(path):
    """The same film with its index in front, so that it opens although its end is missing."""
    fast = path.with_stem("fast")
    with av.open(str(path)) as source, av.open(str(fast), "w", options={"movflags": "+faststart"}) as out:
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return fast


@pytest.mark.parametrize("name", ["song.mp3", "song.flac", "film.mp4", "film.ts", "film.mkv"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_damage_in_the_middle_costs_a_moment(tmp_path, name, share):
    path = tmp_path / name
    if name.startswith("song"):
        write_audio(path, "libmp3lame" if name.endswith("mp3") else "flac", 6)
    else:
        write_film(path, 6)
    damaged(path, share)
    sound, frames, _, _ = read(path)
    assert sound > 5
    if frames:
        assert frames > 125


def test_a_hole_in_the_sound_is_silence_of_its_length(tmp_path):
    path, rate = tmp_path / "hole.mka", 48_000
    with av.open(str(path), "w", format="matroska") as out:
        packets = encode_audio(out, "pcm_s16le", sweep(10, rate), rate)
        for packet in packets:
            if not 3 <= float(packet.pts * packet.time_base) < 8:
                out.mux_one(packet)
    silent, total = silence_s(path)
    assert silent == pytest.approx(5, abs=0.3)
    assert total == pytest.approx(10, abs=0.2)


@pytest.mark.parametrize("audio", ["aac", None])
def test_a_slideshow_holds_each_picture(tmp_path, audio):
    times = [0, 3, 8, 12, 15]
    path = write_film(tmp_path / "slides.mkv", 16, audio=audio, times=times)
    units = list(read_units(path, TINY, lambda _: None))
    assert len(units) * 0.160 == pytest.approx(16 if audio else 15, abs=0.3)
    shades = np.array([frame[40, 80, 1] for u in units for frame in u.frames])
    changes = np.flatnonzero(np.abs(np.diff(shades.astype(int))) > 0) / FPS
    for at in times[1:]:
        assert np.abs(changes - at).min() < 0.1


def test_joined_recordings_follow_each_other_with_sound_and_picture_together(tmp_path):
    path = tmp_path / "joined.ts"
    parts = [write_film(tmp_path / f"{k}.ts", seconds) for k, seconds in enumerate((4, 3))]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    sound, frames, problems, chunks = read(path)
    assert sound == pytest.approx(7, abs=0.2)
    assert frames == 175
    assert any("joined" in problem for problem in problems)
    times = [c.timestamp for c in chunks]
    assert all(b - a > -0.2 for a, b in pairwise(times))
    ends = {type(c): c.timestamp for c in chunks}
    assert abs(ends[AudioChunk] - ends[VideoChunk]) < 0.2
    silent, total = silence_s(path)
    assert total == pytest.approx(7, abs=0.4)
    assert silent < 0.4


MATRICES = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def turn(path, degrees):
    """Write the display matrix of the video track, as phones do: clockwise, by ISO 14496-12's definition."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd")
    while struct.unpack(">I", data[at + 80 : at + 84])[0] == 0:  # width: the audio track has none
        at = data.find(b"tkhd", at + 1)
    a, b, c, d = (value * 65_536 for value in MATRICES[degrees])
    data[at + 44 : at + 80] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turned_picture_is_upright(tmp_path, degrees):
    path = turn(write_film(tmp_path / "phone.mp4", 0.4, audio=None), degrees)
    _, _, _, chunks = read(path)
    image = chunks[0].frames[0].astype(int)
    expected = np.rot90(picture(0), -degrees // 90).astype(int)
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 8


@pytest.mark.parametrize(
    ("sar", "shape"), [(Fraction(2, 1), (96, 320)), (Fraction(1, 2), (192, 160)), (None, (96, 160))]
)
@pytest.mark.parametrize("name", ["wide.mkv", "wide.mp4"])
def test_pixels_become_square(tmp_path, name, sar, shape):
    path = write_film(tmp_path / name, 0.4, audio=None, sar=sar)
    _, _, _, chunks = read(path)
    assert chunks[0].frames.shape[1:3] == shape
    assert chunks[0].frames[0, -10, shape[1] // 4, 1] > 120 > chunks[0].frames[0, -10, shape[1] * 3 // 4, 1]


@pytest.mark.parametrize("default", [0, 1])
def test_of_two_sound_tracks_the_default_one_is_heard(tmp_path, default):
    path, rate = tmp_path / "tracks.mkv", 48_000
    with av.open(str(path), "w") as out:
        packets = []
        for number in range(2):
            sound = sweep(2, rate) if number == default else np.zeros(2 * rate, np.float32)
            packets += encode_audio(out, "pcm_s16le", sound, rate)
        for number, stream in enumerate(out.streams):
            stream.disposition = av.stream.Disposition.default.value if number == default else 0
        for packet in packets:
            out.mux_one(packet)
    _, _, _, chunks = read(path)
    assert max(np.abs(c.pcm).max() for c in chunks) > 5_000


def test_sixteen_channels_are_averaged_and_the_reader_is_told(tmp_path):
    path, rate, channels = tmp_path / "array.wav", 16_000, 16
    pcm = np.repeat((sweep(1, rate) * 32_767).astype("<i2")[:, None], channels, axis=1)
    header = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    data = pcm.tobytes()
    path.write_bytes(
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + header
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )
    sound, _, problems, chunks = read(path)
    assert sound == pytest.approx(1, abs=0.01)
    assert problems == ["its 16 audio channels were averaged into one"]
    heard = np.concatenate([c.pcm for c in chunks])[:, 0]
    np.testing.assert_allclose(heard, sweep(1, rate), atol=1e-4)


def test_a_folder_and_a_pipe_are_called_what_they_are(tmp_path):
    with pytest.raises(MediaFileError, match="is a folder"):
        read_media(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(MediaFileError, match="is a pipe") as refused:
        read_media(pipe)
    assert "cat" in refused.value.hint


def test_a_file_of_which_nothing_can_be_decoded_is_an_error(tmp_path):
    path = write_audio(tmp_path / "song.flac", "flac", 2)
    data = path.read_bytes()
    path.write_bytes(data[:200] + np.random.default_rng(1).bytes(len(data) - 200))
    with pytest.raises(MediaFileError, match="damaged"):
        list(read_media(path))


def test_a_problem_is_logged_when_nobody_listens(tmp_path, caplog):
    path: Path = write_film(tmp_path / "film.mkv", 4)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    list(read_media(path))
    assert "missing" in caplog.text
