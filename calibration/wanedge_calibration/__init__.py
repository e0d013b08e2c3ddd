"""Floor 3: calibration, quantization and validation of bundles."""
