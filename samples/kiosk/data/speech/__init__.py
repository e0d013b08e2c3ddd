"""Speech of the visitor and the guide: intents, voices, rooms and noises, all made on demand from seeds."""
