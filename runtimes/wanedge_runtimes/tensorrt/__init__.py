"""TensorRT and TensorRT-RTX: one code path, the module is passed in."""
