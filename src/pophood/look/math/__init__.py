"""Arithmetic that several views share, in NumPy: heads, unembedding, geometry, activations."""
