"""Names of models; huggingface_hub is the authority on hub ids."""

from __future__ import annotations

import string

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.errors import BadInput
from pophood.hub.names import ModelName, is_repo, is_repo_file, parse_name

ALPHABET = string.ascii_letters[:4] + "019-_./ :\\é\0"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gpt2", ModelName("gpt2", "openai-community/gpt2")),
        ("openai-community/gpt2-xl", ModelName("gpt2-xl", "openai-community/gpt2-xl")),
        ("smollm2", ModelName("smollm2")),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", ModelName(*["HuggingFaceTB/SmolLM2-135M-Instruct"] * 2)),
        ("Qwen/Qwen2.5-0.5B", ModelName("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B")),
        ("o/n:a-Q8_0.gguf", ModelName("o/n:a-Q8_0.gguf", "o/n", "a-Q8_0.gguf")),
        ("o/n:sub/a.gguf", ModelName("o/n:sub/a.gguf", "o/n", "sub/a.gguf")),
        ("my-tune", ModelName("my-tune")),
        ("file.gguf", ModelName("file.gguf")),
        ("owner/name+file/file.gguf", ModelName("owner/name+file/file.gguf")),
    ],
)
def test_names(text: str, name: ModelName) -> None:
    assert parse_name(text) == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "",
            "wanted one of gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, gemma3-270m, a hub id",
        ),
        ("../x", "is not a model's name"),
        ("o/n:../a.gguf", "is not a model's name"),
        ("o/n:", "nothing follows the colon"),
        ("o/n:model.bin", "wanted a .gguf after the colon"),
        ("gpt2:x.gguf", "is not a model's name"),
        ("a/b/c/d", "is not a model's name"),
        ("nul", "is not a model's name"),
        ("x" * 200, "is not a model's name"),
        ("gtp2?", "did you mean gpt2"),
    ],
)
def test_what_is_no_name(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_name(text)


@settings(max_examples=600, deadline=None)
@given(st.text(ALPHABET, min_size=1, max_size=12) | st.text(max_size=100))
def test_hub_ids_are_a_subset_of_what_the_hub_takes(text: str) -> None:
    if is_repo(text):
        validate_repo_id(text)
        assert text.count("/") == 1


@settings(max_examples=400, deadline=None)
@given(
    st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=9),
    st.text("ab1-_.", min_size=1),
)
def test_and_nearly_all_of_it(owner: str, name: str) -> None:
    try:
        validate_repo_id(f"{owner}/{name}")
    except HFValidationError:
        assert not is_repo(f"{owner}/{name}")
    else:
        device = {part.split(".")[0].lower() for part in (owner, name)} & {"con", "prn", "aux", "nul"}
        device |= {p for p in (owner[:4].lower(), name[:4].lower()) if p[:3] in ("com", "lpt")}
        assert is_repo(f"{owner}/{name}") or device


@settings(max_examples=600, deadline=None)
@given(st.text(ALPHABET, max_size=20) | st.text(max_size=40))
def test_no_part_of_a_place_leads_anywhere_else(text: str) -> None:
    try:
        name = parse_name(text)
    except BadInput:
        return
    for place in name.places:
        assert not place.startswith("/")
        assert all(part not in ("", ".", "..") and part.isascii() for part in place.split("/"))
        assert not set(place) & set('\\:\0*?"<>|\n')
    assert name.file is None or is_repo_file(name.file)
