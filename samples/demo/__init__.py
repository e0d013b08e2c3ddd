"""The whole road on the shipped model and a real clip: `python -m samples.demo --out out/demo`."""
