"""Measurements that need a GPU, in one command: `python -m tests.benchmarks.gpu kiosk.wanedge`. Not run on one yet."""
