"""Writers of GGUF files, for llama.cpp and the programs built on it."""
