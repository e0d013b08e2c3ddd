"""ONNX Runtime: the CPU, and NVIDIA GPUs through its CUDA and TensorRT execution providers."""

from wanedge_runtimes.ort.runtime import OrtExecutable, OrtRuntime

__all__ = ["OrtExecutable", "OrtRuntime"]
