"""Cameras, microphones, screens and loudspeakers by GStreamer: appsinks in, appsrcs out, pipelines of your own.

    /usr/bin/python3 samples/integrations/gstreamer_kiosk.py kiosk.wanedge --seconds 8 \\
        --source "v4l2src ! videoconvert ! appsink name=camera alsasrc ! audioconvert ! appsink name=microphone" \\
        --sink "appsrc name=picture ! videoconvert ! kmssink appsrc name=voice ! audioconvert ! alsasink"

Without the two options, test sources and sinks that throw away. Prints what the agent says and `8.0 s of voice, 200
pictures`. Needs the extra cpu, and Debian's python3-gst-1.0, gir1.2-gst-plugins-base-1.0, gstreamer1.0-plugins-base and
-good, which belong to the system's Python: a virtual environment of `/usr/bin/python3 -m venv --system-site-packages`.
"""

import argparse
import time

import gi
import numpy as np

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import Gst, GstApp  # noqa: E402, F401  (GstApp gives appsink and appsrc their methods)

from wanedge import AgentUnit, Session  # noqa: E402

RATE, FPS = 16_000, 25
SOURCE = (
    "videotestsrc is-live=true ! videoconvert ! appsink name=camera "
    "audiotestsrc is-live=true wave=ticks ! audioconvert ! audioresample ! appsink name=microphone"
)
SINK = "appsrc name=picture ! videoconvert ! fakesink sync=true appsrc name=voice ! audioconvert ! fakesink sync=true"


def open_source(description: str) -> Gst.Pipeline:
    """The pipeline that delivers. A camera's newest picture wins; of sound nothing is left out."""
    pipeline = Gst.parse_launch(description)
    camera, microphone = pipeline.get_by_name("camera"), pipeline.get_by_name("microphone")
    camera.set_property("caps", Gst.Caps.from_string("video/x-raw,format=RGB"))
    camera.set_property("max-buffers", 2)
    camera.set_property("drop", True)
    microphone.set_property("caps", Gst.Caps.from_string(f"audio/x-raw,format=S16LE,rate={RATE},channels=1"))
    for sink in (camera, microphone):
        sink.set_property("sync", False)  # as soon as it is there
    return pipeline


def push(session: Session, pipeline: Gst.Pipeline) -> None:
    """Push what is there now, with its time on the pipeline's clock."""
    camera, microphone = pipeline.get_by_name("camera"), pipeline.get_by_name("microphone")
    while sample := microphone.try_pull_sample(0):
        data = sample.get_buffer()
        pcm = np.frombuffer(data.extract_dup(0, data.get_size()), np.int16)
        session.push(audio=pcm, sample_rate=RATE, timestamp=data.pts / Gst.SECOND)
    while sample := camera.try_pull_sample(0):
        data, shape = sample.get_buffer(), sample.get_caps().get_structure(0)
        height, width = shape.get_value("height"), shape.get_value("width")
        rows = np.frombuffer(data.extract_dup(0, data.get_size()), np.uint8).reshape(height, -1)  # padded to 4 bytes
        frame = rows[:, : 3 * width].reshape(height, width, 3)
        session.push(video=frame, timestamp=data.pts / Gst.SECOND)


def open_sink(description: str, width: int, height: int) -> Gst.Pipeline:
    """The pipeline that shows and plays, on one clock."""
    pipeline = Gst.parse_launch(description)
    size = f"width={width},height={height},framerate={FPS}/1"
    for name, caps in (
        ("picture", f"video/x-raw,format=RGB,{size}"),
        ("voice", f"audio/x-raw,format=S16LE,rate={RATE},channels=1,layout=interleaved"),
    ):
        source = pipeline.get_by_name(name)
        source.set_property("caps", Gst.Caps.from_string(caps))
        source.set_property("format", Gst.Format.TIME)
        source.set_property("is-live", True)
    return pipeline


def play(pipeline: Gst.Pipeline, unit: AgentUnit, at_ns: int) -> None:
    """Hand a unit on, to be shown and heard from `at_ns` of the pipeline's running time on."""
    pcm = (np.clip(unit.audio, -1, 1) * 32_767).astype(np.int16)
    media = [("voice", pcm, at_ns, 160)]
    media += [("picture", frame, at_ns + k * Gst.SECOND // FPS, 40) for k, frame in enumerate(unit.frames)]
    for name, array, pts, duration_ms in media:
        data = Gst.Buffer.new_wrapped(array.tobytes())
        data.pts, data.duration = pts, duration_ms * Gst.MSECOND
        pipeline.get_by_name(name).push_buffer(data)


def converse(bundle: str, source: str, sink: str, seconds: float) -> None:
    """Run both pipelines around a live session."""
    Gst.init(None)
    with Session.open(bundle, world="The guide's name is Nina.", live=True) as session:
        video = session.config.agent_video
        capture, screen = open_source(source), open_sink(sink, video.width, video.height)
        for pipeline in (capture, screen):
            pipeline.set_state(Gst.State.PLAYING)
        voice_s, pictures, ahead_ns = 0.0, 0, 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            push(session, capture)
            for unit in session.pull(timeout=0.02):
                now = screen.get_clock().get_time() - screen.get_base_time() if screen.get_clock() else 0
                ahead_ns = max(ahead_ns, now + 60 * Gst.MSECOND)  # a little slack for units that come late
                play(screen, unit, ahead_ns)
                ahead_ns += 160 * Gst.MSECOND
                voice_s, pictures = voice_s + 0.16, pictures + len(unit.frames)
                print(unit.text, end="", flush=True)
        for pipeline in (capture, screen):
            failure = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
            pipeline.set_state(Gst.State.NULL)
            if failure is not None:
                raise SystemExit(failure.parse_error().gerror.message)
    print(f"\n{voice_s:.1f} s of voice, {pictures} pictures")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--sink", default=SINK)
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    converse(arguments.bundle, arguments.source, arguments.sink, arguments.seconds)
