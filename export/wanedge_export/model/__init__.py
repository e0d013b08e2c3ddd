"""The reference model of Wan-Streamer in torch: every component a pure function `(inputs, state)`.

Read in the order of the data: audio.py and video.py (media to tokens and latents to media), text.py, flow.py,
transformer.py and backbone.py (the one Transformer), then reference.py, which puts them together.
"""

from wanedge_export.model.reference import ReferenceModel

__all__ = ["ReferenceModel"]
