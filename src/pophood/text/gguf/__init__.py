"""Tokenizers from the metadata of GGUF files, and the pre-tokenizers that such files name."""
