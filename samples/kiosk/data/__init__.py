"""Data that the model learns from: `speech`, `pictures`, and whole conversations of both (`duplex`)."""
