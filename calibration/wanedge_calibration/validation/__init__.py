"""Validation: does a candidate still behave like its reference? Start at validate.py; runs.py does the streaming."""
