"""Training: one loop and the losses, for every network."""
