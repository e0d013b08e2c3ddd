"""Make samples/media/kiosk-visitor.mp4: half a minute with a visitor of the kiosk, whom the guide has never heard.

    python -m samples.kiosk.tools                # once: the voices
    python -m samples.kiosk.data.make_kiosk_clip

A drawn person comes, waits to be greeted, asks, asks again, cuts into the answer with another question, thanks and
goes. When they speak follows from what the right guide does. Everything is drawn or synthesised here, from fixed seeds.
"""

import argparse
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.duplex.media import visitor_audio, visitor_video
from samples.kiosk.data.duplex.script import UNIT_SAMPLES, Phrase, Script, right_replies
from samples.kiosk.data.pictures.visitors import Visit
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples
from samples.kiosk.data.speech.intents import HELD_OUT_WORLDS, expected_reply
from samples.kiosk.data.speech.utterances import Conditions, Utterance, visitor_utterance
from wanedge.config import FPS, FRAMES_PER_UNIT, UNIT_MS

Frames = NDArray[np.uint8]

NAME: Final = "kiosk-visitor"
UNITS: Final = 175  # 28 s
SEED: Final = 3
CRF: Final = "26"  # the camera's grain is most of the file
HEIGHT, WIDTH = 192, 288
VOICE: Final = "flite rms"  # kept out of training
ARRIVES: Final = 12  # frame
ASKS: Final = ("toilets", "opening", "cafe", "counter five", "thanks")
CUTS_IN: Final = 2  # number of the phrase that interrupts the answer to the one before
PAUSE: Final = 8  # units from the end of an answer to the next phrase
CLEAR: Final = Conditions(speed=(1.0, 1.0), dry=1.0, quiet=1.0, level_dbfs=(-20.0, -20.0))
CREDIT: Final = "Drawn and synthesised by this project (flite's voice rms); sources in samples/media/ATTRIBUTION.md"


def main() -> None:
    """Write the clip and its transcript."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[2] / "media", help=f"folder for {NAME}.mp4 and .json"
    )
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    script = clip_script()
    seen, _ = visitor_video(script, HEIGHT, WIDTH)
    _write_mp4(out / f"{NAME}.mp4", seen, visitor_audio(script))
    (out / f"{NAME}.json").write_text(json.dumps(transcript(script), indent=2) + "\n", encoding="utf-8")


def clip_script() -> Script:
    """The clip's script: who comes when and says what, and what the right guide does then."""
    world = next(world for world in HELD_OUT_WORLDS if world.name == "Nina")
    blank = Script("voices", SEED, "conversation", UNITS, world, (Visit(ARRIVES),), (), (), "pink", -62.0, 3.0)
    script = replace(blank, replies=right_replies((), blank.truth, world))
    for number, intent in enumerate(ASKS):
        last = script.replies[-1]
        unit = last.speech_unit + 4 if number == CUTS_IN else last.end_unit + PAUSE
        said = _clearly(intent)
        start = unit * UNIT_SAMPLES + UNIT_SAMPLES // 3
        phrases = (*script.phrases, Phrase(start, start + said.speech_end - said.speech_start, said))
        script = replace(script, phrases=phrases, replies=right_replies(phrases, script.truth, world))
    goes = (script.replies[-1].end_unit + PAUSE) * FRAMES_PER_UNIT
    return replace(script, visits=(Visit(ARRIVES, goes),))


def transcript(script: Script) -> dict[str, object]:
    """The transcript that samples/demo reads: world text, words and times."""
    said = [
        {
            "start_s": round(phrase.start / SAMPLE_RATE, 2),
            "end_s": round(phrase.end / SAMPLE_RATE, 2),
            "words": phrase.utterance.text,
            "speaker": "visitor",
            "due": expected_reply(phrase.utterance.intent, script.world),
        }
        for phrase in script.phrases
    ]
    return {
        "clip": f"{NAME}.mp4",
        "seconds": UNITS * UNIT_MS / 1000,
        "language": "en",
        "credit": CREDIT,
        "world": script.world.text,
        "said": said,
    }


def _write_mp4(path: Path, frames: Frames, sound: Samples) -> None:
    """H.264 and mono AAC."""
    with av.open(path, "w", options={"movflags": "+faststart"}) as container:
        container.metadata["copyright"] = CREDIT
        video = container.add_stream("libx264", rate=FPS, options={"crf": CRF, "preset": "veryslow"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = 64_000
        for number, picture in enumerate(frames):
            image = av.VideoFrame.from_ndarray(picture, format="rgb24")
            image.pts, image.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(image))
        container.mux(video.encode(None))
        whole = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        whole.sample_rate, whole.pts, whole.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        fifo = av.AudioFifo()
        fifo.write(whole)
        while (piece := fifo.read(audio.codec_context.frame_size, partial=True)) is not None:
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))


def _clearly(intent: str) -> Utterance:
    """The first utterance of an intent in the clip's voice."""
    heard = (visitor_utterance("voices", seed, (intent,), CLEAR) for seed in range(1000))
    return next(utterance for utterance in heard if utterance.voice == VOICE)


if __name__ == "__main__":
    main()
