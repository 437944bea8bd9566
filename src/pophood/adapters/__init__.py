"""LoRA adapters: the record, and its readers for PEFT's folders and GGUF files. Writers are in `export`."""
