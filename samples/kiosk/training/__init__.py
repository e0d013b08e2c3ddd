"""Training of the kiosk guide, one command a stage: python -m samples.kiosk.training STAGE"""
