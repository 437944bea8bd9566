"""The Modelfile: Go templates, run by a small interpreter, give the same text as the chat template."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pophood.export.job import export_model
from pophood.export.ollama import modelfile
from pophood.model.bundle import Bundle, open_bundle
from pophood.text.chat.chat_template import ChatTemplate
from tests.tiny import tiny_folder
from tests.tiny_vocabulary import CHATML, LLAMA3

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>\n' + m.content + eos_token }}"
    "{% elif m.role == 'system' %}{{ '<|system|>\n' + m.content + eos_token }}"
    "{% elif m.role == 'assistant' %}{{ '<|assistant|>\n' + m.content + eos_token }}{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user' %}"
    "### User:\n{{ m.content }}\n\n{% else %}### Answer:\n{{ m.content }}{{ eos_token }}\n\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}### Answer:\n{% endif %}"
)
DATED = "{{ strftime_now('%d %B %Y %H:%M:%S') }}" + CHATML
CROSSED = CHATML.replace("{{ message['content'] }}", "{{ message['content'] }}{{ loop.index }}")
BRACES = CHATML.replace("<|im_start|>", "{{ '{{' }}")
TALK = [("system", "Be\nbrief."), ("user", "Hi"), ("assistant", "Hello {you}"), ("user", "Bye  ")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(tiny_folder(tmp_path_factory.mktemp("ollama") / "base", "llama", n_layer=1))


def go(template: str, messages: list[tuple[str, str]]) -> str:
    """Interpret `range`, `if eq .Role`, `else if`, `.Content` and `end` as Go's text/template does."""
    before, inside, after = re.fullmatch(  # type: ignore[union-attr]
        r"(.*?)\{\{ range \.Messages \}\}(.*)\{\{ end \}\}\{\{ end \}\}(.*)", template, re.DOTALL
    ).groups()
    cases = re.findall(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}(.*?)(?=\{\{ else if|\Z)', inside, re.DOTALL)
    texts = dict(cases)
    return before + "".join(texts[role].replace("{{ .Content }}", words) for role, words in messages) + after


def part(text: str, name: str) -> str:
    found = re.search(rf'^{name} """(.*?)"""$', text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("source", [CHATML, LLAMA3, SMOLLM2, ZEPHYR, PLAIN], ids=list("clszp"))
def test_the_go_template_says_the_same(bundle: Bundle, source: str) -> None:
    chat = ChatTemplate(source, names=bundle.tokenizer.names)
    text, notes = modelfile(replace(bundle, chat_template=chat), "tuned.gguf")
    assert notes == []
    assert text.startswith("FROM ./tuned.gguf\n")
    for messages in (TALK, TALK[:2], TALK[1:2], TALK[1:]):
        listed: list[dict[str, Any]] = [{"role": role, "content": words} for role, words in messages]
        wanted = chat.render(listed).removeprefix("<|begin_of_text|>")  # llama.cpp puts that there
        told = messages
        if "SYSTEM" in text and messages[0][0] != "system":
            told = [("system", part(text, "SYSTEM")), *messages]
        assert go(part(text, "TEMPLATE"), told) == wanted


@pytest.mark.parametrize("source", [DATED, CROSSED, BRACES], ids=["dated", "counted", "braces"])
def test_no_guess_is_written(bundle: Bundle, source: str) -> None:
    text, notes = modelfile(bundle, "tuned.gguf", source)
    assert "TEMPLATE" not in text
    assert ["no TEMPLATE" in note for note in notes] == [True]
    assert 'PARAMETER stop "<|eot_id|>"' in text


def test_a_completion_model(bundle: Bundle) -> None:
    odd = replace(
        bundle, chat_template=None, suggested={"temperature": 0.7, "top_k": 40, "xtc_threshold": 0.1}
    )
    text, notes = modelfile(odd, "tuned.gguf")
    assert text.splitlines()[:2] == ["FROM ./tuned.gguf", 'TEMPLATE """{{ .Prompt }}"""']
    assert text.endswith("PARAMETER temperature 0.7\nPARAMETER top_k 40\n")
    assert notes == []


def test_the_files_of_an_ollama_export(tmp_path: Path, bundle: Bundle) -> None:
    receipt = export_model(bundle, tmp_path / "tuned", "q8_0", ollama=True, threads=1)
    names = {path.name for path in (tmp_path / "tuned").iterdir()}
    assert names == {"tuned.gguf", "Modelfile", "receipt.json"}
    assert receipt.files.keys() == {"tuned.gguf", "Modelfile"}
    export_model(bundle, tmp_path / "x.gguf", "q8_0", ollama=True, threads=1)
    assert (tmp_path / "x.Modelfile").read_text(encoding="utf-8").startswith("FROM ./x.gguf\n")
    assert (tmp_path / "x.gguf").read_bytes()[:4] == b"GGUF"
