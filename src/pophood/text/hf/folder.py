"""The tokenizer of a model folder: which file holds it, and how the files beside it change it.

The vocabulary comes from tokenizer.json, else vocab.json with merges.txt, else OpenAI's vocab.bpe (with
encoder.json, or alone: the vocabulary follows from it). The other files mean what transformers 5.23 makes of
them; `add_bos_token` counts only without a tokenizer.json, whose post-processor says how texts begin. Added
tokens keep the ids that the files give them. Nothing in the folder is ever imported.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pophood.errors import BadFile, NotFound, Unsupported
from pophood.formats.json_file import read_json
from pophood.text.gguf.patterns import QWEN2, QWEN35
from pophood.text.gguf.pretokenizers import byte_level, sequence, split
from pophood.text.hf.hf_tokenizers import AddedToken
from pophood.text.hf.settings import FolderSettings, token_text
from pophood.text.hf.tokenizer_json import (
    Merges,
    Parts,
    build_encoder,
    check_vocab,
    read_added_token,
    read_merges,
    read_tokenizer_json,
    unreachable,
)
from pophood.text.stop_tokens import Stops, TemplateEnds, add_conventional_ends, add_stop
from pophood.text.tokenizer import Tokenizer
from pophood.text.vocabulary import Vocabulary, byte_characters

MOST_VOCABULARY_BYTES = 64 << 20  # Gemma's tokenizer.json, among the largest, has 33 MB

# How each class of transformers splits words where the folder has no tokenizer.json; None is GPT-2's way.
_CLASSES: dict[str, str | None] = {"GPT2Tokenizer": None, "Qwen2Tokenizer": QWEN2, "Qwen3_5Tokenizer": QWEN35}
_CLASS_OF_MODEL = {
    **dict.fromkeys(("gpt2", "phi"), "GPT2Tokenizer"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"), "Qwen2Tokenizer"),
    **dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen3_5_moe"), "Qwen3_5Tokenizer"),
}
# Models whose files name the wrong class (MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS in transformers).
_MISNAMED = ("qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_text")


def load_folder(settings: FolderSettings, *, template_ends: TemplateEnds | None = None) -> Tokenizer:
    """Load the tokenizer of a folder whose JSON files were read.

    `template_ends` finds the tokens with which the chat template ends a turn. Raises NotFound without a
    tokenizer; BadFile or Unsupported, naming the part.
    """
    parts, specials = _read_parts(settings)
    parts = _with_declared(parts, settings)
    specials |= set(settings.names.values()) | settings.unnamed_specials().keys()
    encoder, vocabulary = build_encoder(parts, specials)
    start_ids, notes = _start_ids(settings, parts)
    return Tokenizer(
        encoder,
        vocabulary,
        start_ids=start_ids,
        stops=_stops(settings, vocabulary, template_ends),
        drops_first_space=parts.decoding.drops_first_space,
        names=settings.names,
        notes=notes,
    )


def folder_parts(folder: Path) -> Parts:
    """Return the parts that `load_folder` builds the tokenizer from, for writers of other formats."""
    settings = FolderSettings(folder)
    return _with_declared(_read_parts(settings)[0], settings)


def _read_parts(settings: FolderSettings) -> tuple[Parts, set[str]]:
    """Return the parts, and the tokens that are special because no text can produce them."""
    folder = settings.folder
    if (folder / "tokenizer.json").is_file():
        document = read_json(folder / "tokenizer.json", MOST_VOCABULARY_BYTES)
        return read_tokenizer_json(document), set()
    for vocab_name, merges_name in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / merges_name).is_file():
            merges = read_merges(_merge_lines(folder / merges_name))
            if (folder / vocab_name).is_file():
                document = read_json(folder / vocab_name, MOST_VOCABULARY_BYTES)
                vocab = check_vocab(document, vocab_name)
            elif merges_name == "vocab.bpe":
                vocab = _vocab_of_merges(merges)
            else:
                continue
            parts = _parts_of_pairs(vocab, merges, settings)
            return parts, unreachable(vocab, merges)
    if (folder / "tokenizer.model").is_file():
        raise Unsupported(
            "the folder has its tokenizer as tokenizer.model only: take tokenizer.json from the model's page"
        )
    raise NotFound(
        f"no tokenizer in {folder.name!r}: wanted tokenizer.json, or vocab.json and merges.txt, or vocab.bpe"
    )


def _merge_lines(path: Path) -> list[str]:
    """Read the merges of a text file, one per line after an optional "#version" line."""
    size = path.stat().st_size
    if size > MOST_VOCABULARY_BYTES:
        raise BadFile(f"{path.name} has {size:,} bytes; at most {MOST_VOCABULARY_BYTES:,} are read")
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path.name} is not UTF-8 at byte {error.start:,}") from error
    lines = [line.removesuffix("\r") for line in lines]
    if lines and lines[0].startswith("#version"):
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    return lines


def _vocab_of_merges(merges: Merges) -> dict[str, int]:
    """Build the vocabulary by OpenAI's rule: 256 bytes, printable ones first, the merges, <|endoftext|>."""
    characters = byte_characters()
    printed = [character for byte, character in enumerate(characters) if ord(character) == byte]
    others = [character for byte, character in enumerate(characters) if ord(character) != byte]
    tokens = [*printed, *others, *(left + right for left, right in merges), "<|endoftext|>"]
    vocab = {token: id_ for id_, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise BadFile("two merges of vocab.bpe make the same token")
    return vocab


def _parts_of_pairs(vocab: dict[str, int], merges: Merges, settings: FolderSettings) -> Parts:
    """Combine a vocabulary and merges with the word pattern of the class that tokenizer_config.json names."""
    kind = _class_of(settings)
    if kind not in _CLASSES:
        raise Unsupported(
            f"how {kind[:60]} splits words is in tokenizer.json, which the folder lacks: fetch it too"
        )
    pattern = _CLASSES[kind]
    space = settings.tokenizer.get("add_prefix_space") is True
    spelling = byte_level(use_regex=pattern is None, add_prefix_space=space)
    if pattern is None:
        return Parts(vocab, merges, spelling)
    return Parts(vocab, merges, sequence([split(pattern), spelling]), normalizer={"type": "NFC"})


def _class_of(settings: FolderSettings) -> str:
    """Return the class with which transformers reads vocab.json and merges.txt, or the model's type."""
    model = settings.config.get("model_type")
    named = settings.tokenizer.get("tokenizer_class") or settings.config.get("tokenizer_class")
    usual = _CLASS_OF_MODEL.get(str(model))
    kind = usual if usual and (model in _MISNAMED or not named) else named or model or "GPT2Tokenizer"
    return str(kind).removesuffix("Fast")


def _with_declared(parts: Parts, settings: FolderSettings) -> Parts:
    """Add the tokens that only the files beside the vocabulary declare."""
    known = {token.content for token in parts.added}
    more: list[AddedToken] = []
    for key, entry in settings.added_entries().items():
        token, id_ = read_added_token({**entry, "id": int(key[:12])})
        if token.content in known:
            continue
        if parts.vocab.setdefault(token.content, id_) != id_:
            raise BadFile(
                f"{token.content[:60]!r} has id {id_} beside the vocabulary and"
                f" {parts.vocab[token.content]} in it"
            )
        known.add(token.content)
        more.append(token)
    rows = settings.config.get("vocab_size")
    following = max(parts.vocab.values(), default=-1) + 1
    for text, written in settings.special_entries().items():
        flags = written if isinstance(written, dict) else {}
        strips = any(flags.get(flag) is True for flag in ("lstrip", "rstrip", "single_word"))
        if text in known or (text in parts.vocab and not strips):
            continue
        if text not in parts.vocab:
            # transformers adds it after the others; here only if the model has a row for it
            if type(rows) is not int or following >= rows:
                continue
            parts.vocab[text] = following
            following += 1
        token, _ = read_added_token({**flags, "content": text, "special": True, "id": parts.vocab[text]})
        more.append(token)
    return replace(parts, added=(*parts.added, *more)) if more else parts


def _start_ids(settings: FolderSettings, parts: Parts) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the start tokens, and a note where tokenizer_config.json asks for others."""
    wanted = settings.tokenizer.get("add_bos_token")
    if (settings.folder / "tokenizer.json").is_file():
        unknown = [id_ for id_ in parts.start_ids if id_ not in parts.vocab.values()]
        if unknown:
            raise BadFile(f"tokenizer.json starts texts with id {unknown[0]}, which is not a token")
        if not isinstance(wanted, bool) or wanted == bool(parts.start_ids):
            return parts.start_ids, ()
        does = "a start token" if parts.start_ids else "no start token"
        return parts.start_ids, (
            f"tokenizer_config.json says add_bos_token: {json.dumps(wanted)}, but tokenizer.json gives texts"
            f" {does}: tokenizer.json counts, as in transformers",
        )
    if wanted is not True:
        return (), ()
    usual = "<|endoftext|>" if _class_of(settings) == "GPT2Tokenizer" else ""
    start = parts.vocab.get(settings.names.get("bos_token", usual))
    if start is None:
        return (), (
            "tokenizer_config.json asks for a start token (add_bos_token), but its bos_token is not in the"
            " vocabulary: texts begin without one",
        )
    return (start,), ()


def _stops(settings: FolderSettings, vocabulary: Vocabulary, template_ends: TemplateEnds | None) -> Stops:
    stops: dict[int, str] = {}
    for where, id_ in settings.named_stops():
        # An entry that is not an id is reported by `open_bundle`. transformers writes 50256 into the config
        # of every GPT-2, however small its vocabulary.
        if type(id_) is int and 0 <= id_ < vocabulary.size:
            add_stop(stops, id_, where)
    for where, source in (
        ("tokenizer_config.json", settings.tokenizer),
        ("special_tokens_map.json", settings.special_map),
    ):
        id_ = vocabulary.ids.get(token_text(source.get("eos_token")) or "")
        if id_ is not None:
            add_stop(stops, id_, where)
    add_conventional_ends(stops, vocabulary.specials)
    return Stops(stops, vocabulary.specials, template_ends)
