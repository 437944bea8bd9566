"""The training loop: steps, the optimizer, evaluations, and the cache of what frozen blocks compute."""
