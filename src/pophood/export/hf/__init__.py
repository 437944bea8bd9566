"""Writers of Hugging Face folders: weights, configuration, tokenizer."""
