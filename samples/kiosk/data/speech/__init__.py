"""What the visitor and the guide say: intents, voices, rooms and noises, all made on demand from seeds."""
