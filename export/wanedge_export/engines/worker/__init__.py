"""The code that a building process runs. It imports nothing but the standard library and TensorRT.

Any other module would share the heap with TensorRT, whose compiler orders some of its work by addresses. Measured with
TensorRT-RTX 1.7.1: with pydantic imported, whose core keeps hash tables with random seeds, the backbone's engine came
out in up to five forms.
"""
