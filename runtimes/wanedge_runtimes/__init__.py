"""Floor 1: run one graph somewhere."""
