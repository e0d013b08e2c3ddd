"""Every engine of the shipped guide, built twice without a GPU: `python -m tests.acceptance.engines`."""
