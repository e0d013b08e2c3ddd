"""Graphs as data: what can be quantized (sites), how it is rewritten, and whether Q and DQ stand where they should."""
