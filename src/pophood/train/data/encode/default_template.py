"""The chat template for a model without one: an instruction, then a response (small: one template).

    ### Instruction:
    What is the capital of Spain?

    ### Response:
    Madrid.<|endoftext|>

It is written beside the trained model (tokenizer_config.json, GGUF metadata), which has to be prompted as it
was trained. The headings are those of Alpaca (Taori et al. 2023), without its preamble.
"""

from __future__ import annotations

import json

from pophood.errors import BadInput
from pophood.text.chat.chat_template import ChatTemplate
from pophood.text.tokenizer import Tokenizer

BASE_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '### Response:\\n' + message['content'] + END + '\\n\\n' }}"
    "{% else %}{{ raise_exception('no message of the role ' + message['role']) }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)


def base_template_source(end: str) -> str:
    """Return the Jinja source for a model whose end token is spelled `end`.

    >>> "<|endoftext|>" in base_template_source("<|endoftext|>")
    True
    """
    literal = json.dumps(end, ensure_ascii=False).replace('\\"', "\\x22")
    return BASE_TEMPLATE.replace("END", literal)


def base_template(tokenizer: Tokenizer) -> ChatTemplate:
    """Return the template for a tokenizer. Raises BadInput if it has no end token."""
    return ChatTemplate(base_template_source(tokenizer.specials[end_id(tokenizer)]), names=tokenizer.names)


def end_id(tokenizer: Tokenizer) -> int:
    """Return the token that ends a text: eos_token, or else the first special token that stops generation.

    Raises BadInput if there is none.
    """
    named = tokenizer.names.get("eos_token")
    for id_, text in tokenizer.specials.items():
        if text == named:
            return id_
    for id_ in tokenizer.stops:
        if id_ in tokenizer.specials:
            return id_
    raise BadInput("the tokenizer has no end token, so the trained model could never stop: use another model")
