"""Everything that only a GPU can tell, in one command: `python -m samples.gpu kiosk.wanedge`. Not run on one yet."""
