"""How good is the gate? Sabotage a quantized bundle and count: `python -m tests.acceptance.quantization BUNDLE ...`."""
