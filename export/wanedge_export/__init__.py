"""Floor 3: the reference model in torch, and the road from torch to a bundle."""
