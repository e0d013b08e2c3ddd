"""Pipelines: streaming models of anybody's components. `config.py` says what one is, `streamer.py` runs it."""
