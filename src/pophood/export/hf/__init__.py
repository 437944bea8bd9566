"""Hugging Face folders, written: weights, configuration, tokenizer."""
