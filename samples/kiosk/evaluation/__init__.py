"""Judge a kiosk guide in closed loop: python -m samples.kiosk.evaluation BUNDLE."""
