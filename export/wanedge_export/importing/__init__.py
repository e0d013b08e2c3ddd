"""`wanedge import`: a pipeline of ONNX files, torch components and transforms becomes a bundle. See pipeline.py."""
