"""Checkpoints: saved whole or not at all, verified when read, and all that resuming needs."""
