"""Tokenizers from Hugging Face folders: tokenizer.json and the older files beside it."""
