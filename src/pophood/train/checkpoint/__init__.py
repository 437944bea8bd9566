"""Checkpoints: whole or not there, verified when read, and what resuming needs."""
