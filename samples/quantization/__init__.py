"""How good is the gate? `python -m samples.quantization BUNDLE --clips ...` sabotages a quantized bundle and counts."""
