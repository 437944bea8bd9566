"""The tokenizer of a model's folder: which file holds it, and what its neighbours say of starts and ends.

The vocabulary comes from tokenizer.json, else vocab.json with merges.txt, else OpenAI's vocab.bpe (with
encoder.json, or alone: the vocabulary follows from it). No file of the folder is ever imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pophood.errors import BadFile, NotHere, Unsupported
from pophood.text.byte_level import byte_characters
from pophood.text.one_line import one_line
from pophood.text.patterns import QWEN2
from pophood.text.stages import Decoding
from pophood.text.stops import Stops, add_conventional_ends, add_stop
from pophood.text.tokenizer import Tokenizer
from pophood.text.tokenizer_json import (
    Parts,
    build_encoder,
    check_vocab,
    read_added_token,
    read_merges,
    read_tokenizer_json,
    unreachable,
)
from pophood.text.vocabulary import Vocabulary

MOST_VOCABULARY_BYTES = 64 << 20  # Gemma's tokenizer.json, among the largest, has 33 MB
MOST_SETTINGS_BYTES = 16 << 20

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")


def load_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a folder; NotHere without one, BadFile or Unsupported by name.

    Example: `load_folder(Path("gpt2")).encode("The capital")`.
    """
    settings = _Settings(folder)
    parts, specials = _read_parts(folder, settings)
    parts = _with_declared(parts, settings)
    names = settings.names()
    specials |= set(names.values()) | settings.listed()
    encoder, vocabulary = build_encoder(parts, specials)
    return Tokenizer(
        encoder,
        vocabulary,
        start_ids=_start_ids(settings, parts, names),
        stops=_stops(folder, settings, vocabulary, names),
        drops_first_space=parts.decoding.drops_first_space,
        names=names,
    )


def folder_parts(folder: Path) -> Parts:
    """What `load_folder` builds the folder's tokenizer of, for writers of other formats."""
    settings = _Settings(folder)
    return _with_declared(_read_parts(folder, settings)[0], settings)


def read_json_object(path: Path, most_bytes: int = MOST_SETTINGS_BYTES) -> dict[str, Any]:
    """A JSON file that holds an object; {} without the file. BadFile if it is too large or no object."""
    if not path.is_file():
        return {}
    size = path.stat().st_size
    if size > most_bytes:
        raise BadFile(f"{path.name} has {size:,} bytes; at most {most_bytes:,} are read")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path.name} is not JSON: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise BadFile(f"{path.name} holds {type(value).__name__}, not an object")
    return value


class _Settings:
    """The small JSON files beside the vocabulary, each optional."""

    def __init__(self, folder: Path) -> None:
        self.config = read_json_object(folder / "config.json")
        self.generation = read_json_object(folder / "generation_config.json")
        self.tokenizer = read_json_object(folder / "tokenizer_config.json")
        self.special_map = read_json_object(folder / "special_tokens_map.json")

    def names(self) -> dict[str, str]:
        """ "bos_token" -> its text, and so on: tokenizer_config.json before special_tokens_map.json."""
        found: dict[str, str] = {}
        for name in _NAMES:
            for source in (self.tokenizer, self.special_map):
                text = _token_text(source.get(name))
                if text is not None:
                    found.setdefault(name, text)
        return found

    def listed(self) -> set[str]:
        """Further special tokens that have no name."""
        found: set[str] = set()
        for source in (self.tokenizer, self.special_map):
            for key in _LISTS:
                value = source.get(key)
                entries = (
                    value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
                )
                found |= {text for entry in entries if (text := _token_text(entry)) is not None}
        return found


def _token_text(value: object) -> str | None:
    """A token as these files write it: text, or an object with its text as `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _read_parts(folder: Path, settings: _Settings) -> tuple[Parts, set[str]]:
    """The parts, and the tokens that are special because no text can make them."""
    if (folder / "tokenizer.json").is_file():
        document = read_json_object(folder / "tokenizer.json", MOST_VOCABULARY_BYTES)
        return read_tokenizer_json(document), set()
    for vocab_name, merges_name in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / merges_name).is_file():
            merges = read_merges(_merge_lines(folder / merges_name))
            if (folder / vocab_name).is_file():
                document = read_json_object(folder / vocab_name, MOST_VOCABULARY_BYTES)
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
    raise NotHere(
        f"no tokenizer in {folder.name!r}: wanted tokenizer.json, or vocab.json and merges.txt, or vocab.bpe"
    )


def _merge_lines(path: Path) -> list[str]:
    """The merges of a text file, one a line after the optional line "#version"."""
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


def _vocab_of_merges(merges: list[tuple[str, str]]) -> dict[str, int]:
    """OpenAI's rule: 256 bytes (those that print first), the merges in order, then <|endoftext|>."""
    characters = byte_characters()
    printed = [character for byte, character in enumerate(characters) if ord(character) == byte]
    others = [character for byte, character in enumerate(characters) if ord(character) != byte]
    tokens = [*printed, *others, *(left + right for left, right in merges), "<|endoftext|>"]
    vocab = {token: id_ for id_, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise BadFile("vocab.bpe makes the same token by two merges")
    return vocab


def _parts_of_pairs(vocab: dict[str, int], merges: list[tuple[str, str]], settings: _Settings) -> Parts:
    """A vocabulary and its merges, with the word pattern of the class that tokenizer_config.json names."""
    kind = settings.tokenizer.get("tokenizer_class") or "GPT2Tokenizer"
    kind = str(kind).removesuffix("Fast")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    normalizer = None
    if kind == "GPT2Tokenizer":
        byte_level["add_prefix_space"] = settings.tokenizer.get("add_prefix_space") is True
        cut: dict[str, Any] = byte_level
    elif kind == "Qwen2Tokenizer":
        split = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
        cut = {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}
        normalizer = {"type": "NFC"}
    else:
        raise Unsupported(
            f"how {kind[:60]} cuts words is in tokenizer.json, which the folder lacks: fetch it too"
        )
    return Parts(
        vocab=vocab,
        merges=merges,
        options={},
        normalizer=normalizer,
        pre_tokenizer=cut,
        decoding=Decoding("bytes", byte_tokens=False, drops_first_space=False),
        added=(),
    )


def _with_declared(parts: Parts, settings: _Settings) -> Parts:
    """The parts with the tokens that only tokenizer_config.json declares (`added_tokens_decoder`)."""
    declared = settings.tokenizer.get("added_tokens_decoder") or {}
    if not isinstance(declared, dict):
        raise BadFile("added_tokens_decoder of tokenizer_config.json is not an object")
    known = {token.content for token in parts.added}
    more = []
    for key, entry in declared.items():
        if not isinstance(entry, dict) or not key.isdecimal():
            raise BadFile(f"added_tokens_decoder of tokenizer_config.json has an entry {key[:60]!r}")
        token, id_ = read_added_token({**entry, "id": int(key[:12])})
        if token.content in known:
            continue
        if parts.vocab.setdefault(token.content, id_) != id_:
            raise BadFile(
                f"{token.content[:60]!r} has id {id_} in tokenizer_config.json and"
                f" {parts.vocab[token.content]} in the vocabulary"
            )
        known.add(token.content)
        more.append(token)
    if not more:
        return parts
    return Parts(
        parts.vocab,
        parts.merges,
        parts.options,
        parts.normalizer,
        parts.pre_tokenizer,
        parts.decoding,
        (*parts.added, *more),
        parts.start_ids,
    )


def _start_ids(settings: _Settings, parts: Parts, names: Mapping[str, str]) -> tuple[int, ...]:
    """tokenizer_config.json's add_bos_token where it is given, else what the post-processor puts first."""
    wanted = settings.tokenizer.get("add_bos_token")
    if not isinstance(wanted, bool):
        unknown = [id_ for id_ in parts.start_ids if id_ not in parts.vocab.values()]
        if unknown:
            raise BadFile(f"tokenizer.json starts texts with id {unknown[0]}, which is no token")
        return parts.start_ids
    if not wanted:
        return ()
    start = parts.vocab.get(names.get("bos_token", ""))
    if start is None:
        raise BadFile(
            "tokenizer_config.json wants a start token (add_bos_token) and no bos_token is in the vocabulary"
        )
    return (start,)


def _stops(folder: Path, settings: _Settings, vocabulary: Vocabulary, names: Mapping[str, str]) -> Stops:
    stops: dict[int, str] = {}
    for where, source in (("generation_config.json", settings.generation), ("config.json", settings.config)):
        value = source.get("eos_token_id")
        for id_ in value if isinstance(value, list) else [value]:
            if type(id_) is not int:  # null, or no id: `open_bundle` says so
                continue
            # transformers writes 50256 into the config of every GPT-2, however small its vocabulary.
            if 0 <= id_ < vocabulary.size:
                add_stop(stops, id_, where)
    for where, source in (
        ("tokenizer_config.json", settings.tokenizer),
        ("special_tokens_map.json", settings.special_map),
    ):
        id_ = vocabulary.ids.get(_token_text(source.get("eos_token")) or "")
        if id_ is not None:
            add_stop(stops, id_, where)
    add_conventional_ends(stops, vocabulary.specials)

    from pophood.text.chat import load_template_folder

    template = load_template_folder(folder, names)
    ends = None if template is None else lambda: template.end_ids(vocabulary.specials)
    return Stops(stops, vocabulary.specials, ends)
