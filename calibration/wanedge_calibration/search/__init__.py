"""Mixed precision by measurement: the cost of each layer (trials.py), profiling and the search (mixed.py)."""
