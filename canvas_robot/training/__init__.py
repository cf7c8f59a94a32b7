"""Training: configuration, objective, the loop on Accelerate, its checkpoints and its records."""
