"""The part of an NVIDIA GPU that every backend shares: memory, streams, states, calls, and sequences of calls.

Read cuda.py (the few CUDA calls), memory.py (what lies where), calls.py (one graph), workspace.py (a unit). TensorRT
and ONNX Runtime's CUDA provider only say how one graph is put on a stream (`calls.Launcher`).

Never run on a GPU by us so far: docs/engines.md says what ran where.
"""
