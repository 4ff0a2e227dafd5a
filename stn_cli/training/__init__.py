"""Training: data, samples, objectives, the loop, and the checkpoint that comes of it."""
