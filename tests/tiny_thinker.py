"""A tiny random chat model that thinks: `<think>` and `</think>` are special tokens in its vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

from tests.text.templates import TEMPLATES
from tests.tiny_folder import tiny_folder
from tests.tiny_values import tiny_config
from tests.tiny_vocabulary import write_tokenizer

TAGS = ("<think>", "</think>")
# The prompt begins the thought, as with DeepSeek-R1.
OPENS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] | trim }}<|im_end|>"
    "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def thinker(path: Path, template: str = TEMPLATES["thinking"], tags: tuple[str, str] = TAGS) -> Path:
    """Write the model's folder and return it."""
    from tokenizers import AddedToken, Tokenizer

    folder = tiny_folder(path, "qwen2")
    write_tokenizer(folder, "qwen", tiny_config("qwen2").vocab_size - len(tags))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(tag, special=True, normalized=False) for tag in tags])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = folder / "tokenizer_config.json"
    settings = json.loads(config.read_text("utf-8")) | {"chat_template": template}
    config.write_text(json.dumps(settings), encoding="utf-8")
    return folder
