"""Chat templates in the forms of Gemma, Phi, Granite, OLMo and SmolLM3: rendered text and ends of turns.

The templates are written for these tests; the authority is transformers' `apply_chat_template`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pophood.text.chat.chat_template import encode_chat
from pophood.text.load import load_text_folder
from tests.text.vocabularies import library_tokenizer

TURNS = "{% for m in messages %}"
# family -> template, its special tokens, and the one that ends a turn of the assistant.
FORMS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "gemma": (
        "{{ bos_token }}"
        + TURNS
        + "{% set role = 'model' if m.role == 'assistant' else m.role %}"
        + "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        ("<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
    ),
    "phi": (
        TURNS
        + "{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
        ("<|user|>", "<|assistant|>", "<|end|>"),
        "<|end|>",
    ),
    "granite": (
        TURNS
        + "{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content }}"
        + "{{ '<|end_of_text|>\n' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
        ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
        "<|end_of_text|>",
    ),
    "olmo": (
        "{{ bos_token }}"
        + TURNS
        + "{{ '<|' + m.role + '|>\n' + m.content }}"
        + "{{ eos_token + '\n' if m.role == 'assistant' else '\n' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        (),
        "<|endoftext|>",
    ),
    "smollm": (
        TURNS
        + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        (),
        "<|im_end|>",
    ),
}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Where does the sun set?"},
    {"role": "assistant", "content": "In the west."},
    {"role": "user", "content": "And <end_of_turn> rise?"},
]


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_family(form: str, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    template, specials, end = FORMS[form]
    library = library_tokenizer("qwen2")
    library.add_special_tokens(list(specials))
    library.save(str(tmp_path / "tokenizer.json"))
    named = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, **named}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    text = load_text_folder(tmp_path)
    assert text.chat_template is not None
    end_id = text.tokenizer.id_of(end)
    assert end_id in text.tokenizer.stops and end_id in set(text.tokenizer.stops)
    reference = PreTrainedTokenizerFast(tokenizer_object=library, **named)
    for messages, prompt in ((TALK, True), (TALK[:2], False)):
        wanted = reference.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=prompt
        )
        assert text.chat_template.render(messages, add_generation_prompt=prompt) == wanted
    ids = encode_chat(text.tokenizer, text.chat_template, TALK)
    ends = sum(id_ == end_id for id_ in ids)
    assert ends == {"olmo": 2}.get(form, 3), "what a user writes is no end of a turn"
