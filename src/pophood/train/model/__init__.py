"""The model in torch, for gradients: mathematics only, without data, loop or files."""
