"""GGUF files, written: models and adapters for llama.cpp and the programs built on it."""
