"""Trust: who may say what runs on this device, and how an update is put in place without ever leaving it with none.

`release.py` is what a publisher signs, `policy.py` what the device accepts, `slots.py` the two places and the switch.
"""
