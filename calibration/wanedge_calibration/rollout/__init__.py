"""Roll-out calibration: what every quantizable tensor saw while the float model streamed. Start at record.py."""
