"""Exporting a component in torch as a checked ONNX graph. Start at `export_component`."""

from wanedge_export.component import ExportError
from wanedge_export.exporter.export import OPSETS, ExportedGraph, FloatPrecision, export_component
from wanedge_export.exporter.weights import WeightFile

__all__ = ["OPSETS", "ExportError", "ExportedGraph", "FloatPrecision", "WeightFile", "export_component"]
