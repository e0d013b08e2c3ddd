"""Mixed precision by measurement: what each layer costs (trials.py), what pays (pays.py), what to keep (mixed.py)."""
