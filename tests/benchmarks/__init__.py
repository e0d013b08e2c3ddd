"""The bench: five contenders with the same weights, timed side by side. Docs: docs/bench.md.

Read contenders.py (who competes), growing.py (the growing cache), rounds.py (how they are timed), then measures.py
(what the numbers become); longrun.py, opening.py and footprint.py measure what needs a process of its own.
"""
