"""LoRA adapters: the record `Adapter`, and readers for PEFT's folders and GGUF files.

Writers are in `export`.
"""
