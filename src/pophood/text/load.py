"""Loads a model's tokenizer and chat template (small: joins the packages `hf`, `gguf` and `chat`).

Each file is read once. The two need each other: a template is given the texts of the tokenizer's named
tokens, and the token with which a template ends the assistant's turn is a stop token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pophood.text.chat.chat_template import ChatTemplate, load_template_folder, load_template_gguf
from pophood.text.gguf.gguf_vocabulary import load_gguf, read_vocabulary
from pophood.text.hf.folder import load_folder
from pophood.text.hf.settings import FolderSettings
from pophood.text.tokenizer import Tokenizer


class ModelText(NamedTuple):
    """A model's tokenizer, and its chat template (None for a completion model)."""

    tokenizer: Tokenizer
    chat_template: ChatTemplate | None


def load_text_folder(folder: str | Path | FolderSettings) -> ModelText:
    """Load the tokenizer and the chat template of a model folder.

    `folder` may be its JSON files, if they were read already. Raises NotFound without a tokenizer, BadFile
    for damaged files, and Unsupported, naming the part, for a tokenizer that is not understood.

    Example: `load_text_folder("models/gpt2").tokenizer.encode("The capital")`.
    """
    settings = folder if isinstance(folder, FolderSettings) else FolderSettings(Path(folder))
    template = load_template_folder(settings.folder, settings.names, settings.tokenizer)
    ends = None if template is None else template.end_ids
    return ModelText(load_folder(settings, template_ends=ends), template)


def load_text_gguf(metadata: Mapping[str, object]) -> ModelText:
    """Load the tokenizer and the chat template from a GGUF file's metadata; raises BadFile and Unsupported.

    Example: `load_text_gguf(open_gguf("model.gguf").metadata).tokenizer.encode("Hi")`.
    """
    vocabulary = read_vocabulary(metadata)
    template = load_template_gguf(metadata, vocabulary.names)
    ends = None if template is None else template.end_ids
    return ModelText(load_gguf(metadata, vocabulary, template_ends=ends), template)
