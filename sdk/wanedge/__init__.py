"""wanedge: stream through an audio-visual model on an edge device, chunk by chunk."""
