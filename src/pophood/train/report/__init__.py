"""The report of a run: measurements before and after, samples, curve, page, TensorBoard."""
