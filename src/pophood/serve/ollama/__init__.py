"""Ollama's protocol at a port of its own, as far as its clients need it to find and use one model."""
