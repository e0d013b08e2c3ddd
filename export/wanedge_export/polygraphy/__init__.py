"""Data for Polygraphy: `write_loaders` records real runs of every graph and writes a data-loader script for each.

polygraphy run kiosk.wanedge/graphs/fp16/backbone.onnx --onnxrt --trt --data-loader-script loaders/fp16/backbone.py
"""

from wanedge_export.polygraphy.loaders import write_loaders
from wanedge_export.polygraphy.record import Runs, record_runs

__all__ = ["Runs", "record_runs", "write_loaders"]
