"""Conversations of a visitor and the guide: who is seen, says and does what when, with the truth for every unit."""
