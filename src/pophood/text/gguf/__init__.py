"""Tokenizers from the metadata of GGUF files, and the ways in which such files cut text before merging."""
