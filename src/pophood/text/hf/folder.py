"""The tokenizer of a model's folder: which file holds it, and what its neighbours say of starts and ends.

The vocabulary comes from tokenizer.json, else vocab.json with merges.txt, else OpenAI's vocab.bpe (with
encoder.json, or alone: the vocabulary follows from it). What the files beside it mean is what transformers
5.23 makes of them: added_tokens.json and special_tokens_map.json count where tokenizer_config.json has no
`added_tokens_decoder`, and `add_bos_token` where there is no tokenizer.json, whose post-processor says how
texts begin. The ids of added tokens are the files' own. No file of the folder is ever imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pophood.errors import BadFile, NotHere, Unsupported
from pophood.text.byte_level import byte_characters
from pophood.text.gguf.patterns import QWEN2, QWEN35
from pophood.text.hf.hf_tokenizers import AddedToken
from pophood.text.hf.stages import Decoding
from pophood.text.hf.tokenizer_json import (
    Parts,
    build_encoder,
    check_vocab,
    read_added_token,
    read_merges,
    read_tokenizer_json,
    unreachable,
)
from pophood.text.one_line import one_line
from pophood.text.stop_tokens import Stops, add_conventional_ends, add_stop
from pophood.text.tokenizer import Tokenizer
from pophood.text.vocabulary import Vocabulary

MOST_VOCABULARY_BYTES = 64 << 20  # Gemma's tokenizer.json, among the largest, has 33 MB
MOST_SETTINGS_BYTES = 16 << 20

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
# How each class of transformers cuts words where the folder has no tokenizer.json; None is GPT-2's way.
_CLASSES: dict[str, str | None] = {"GPT2Tokenizer": None, "Qwen2Tokenizer": QWEN2, "Qwen3_5Tokenizer": QWEN35}
_CLASS_OF_MODEL = {
    **dict.fromkeys(("gpt2", "phi"), "GPT2Tokenizer"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"), "Qwen2Tokenizer"),
    **dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen3_5_moe"), "Qwen3_5Tokenizer"),
}
# Models whose files name another class than the right one (MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS).
_MISNAMED = ("qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_text")


def load_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a folder; NotHere without one, BadFile or Unsupported by name.

    Example: `load_folder(Path("gpt2")).encode("The capital")`.
    """
    settings = _Settings(folder)
    parts, specials = _read_parts(folder, settings)
    parts = _with_declared(parts, settings)
    names = settings.names()
    specials |= set(names.values()) | settings.listed().keys()
    encoder, vocabulary = build_encoder(parts, specials)
    start_ids, notes = _start_ids(folder, settings, parts, names)
    return Tokenizer(
        encoder,
        vocabulary,
        start_ids=start_ids,
        stops=_stops(folder, settings, vocabulary, names),
        drops_first_space=parts.decoding.drops_first_space,
        names=names,
        notes=notes,
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
    content = path.read_bytes()
    if content.startswith(b"version https://git-lfs"):
        raise BadFile(
            f"{path.name} is a Git LFS pointer without the content: run git lfs pull, or fetch it again"
        )
    try:
        value = json.loads(content)
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
        self.added = read_json_object(folder / "added_tokens.json")

    @property
    def knows_added(self) -> bool:
        """Whether tokenizer_config.json lists the added tokens, so that the older files do not count."""
        return "added_tokens_decoder" in self.tokenizer

    def names(self) -> dict[str, str]:
        """ "bos_token" -> its text, and so on; what the older files say counts as `knows_added` says."""
        sources = (
            (self.tokenizer, self.special_map) if self.knows_added else (self.special_map, self.tokenizer)
        )
        found: dict[str, str] = {}
        for name in _NAMES:
            for source in sources:
                text = _token_text(source.get(name))
                if text is not None:
                    found.setdefault(name, text)
        return found

    def listed(self) -> dict[str, object]:
        """Further special tokens that have no name, by their text, as the files write them."""
        found: dict[str, object] = {}
        for source in (self.tokenizer, self.special_map):
            for key in _LISTS:
                value = source.get(key)
                entries = (
                    value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
                )
                for entry in entries:
                    text = _token_text(entry)
                    if text is not None:
                        found.setdefault(text, entry)
        return found

    def special_entries(self) -> dict[str, object]:
        """Special tokens by their text, as the files that count write them: the named ones first."""
        found: dict[str, object] = {}
        sources = (self.tokenizer,) if self.knows_added else (self.tokenizer, self.special_map)
        for name, text in self.names().items():
            for source in sources:
                if _token_text(source.get(name)) == text:
                    found.setdefault(text, source[name])
        for text, entry in self.listed().items():
            found.setdefault(text, entry)
        return found

    def added_entries(self) -> dict[str, dict[str, object]]:
        """Id, in digits -> the added token's flags, from the file that counts."""
        if self.knows_added:
            declared = self.tokenizer["added_tokens_decoder"] or {}
            if not isinstance(declared, dict):
                raise BadFile("added_tokens_decoder of tokenizer_config.json is not an object")
            for key, entry in declared.items():
                if not isinstance(entry, dict) or not key.isdecimal():
                    raise BadFile(f"added_tokens_decoder of tokenizer_config.json has an entry {key[:60]!r}")
            return declared
        specials = {*self.names().values(), *self.listed()}
        entries: dict[str, dict[str, object]] = {}
        for token, id_ in self.added.items():
            if type(id_) is not int or id_ < 0 or not token:
                raise BadFile(f"added_tokens.json gives {token[:60]!r} the id {str(id_)[:60]!r}")
            if str(id_) in entries:
                raise BadFile(f"added_tokens.json gives the id {id_} to two tokens")
            special = token in specials
            entries[str(id_)] = {"content": token, "special": special, "normalized": not special}
        return entries


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
    kind = _class_of(settings)
    if kind not in _CLASSES:
        raise Unsupported(
            f"how {kind[:60]} cuts words is in tokenizer.json, which the folder lacks: fetch it too"
        )
    pattern = _CLASSES[kind]
    space = settings.tokenizer.get("add_prefix_space") is True
    cut: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True}
    cut["use_regex"] = pattern is None
    normalizer = None
    if pattern is not None:
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        cut = {"type": "Sequence", "pretokenizers": [split, cut]}
        normalizer = {"type": "NFC"}
    return Parts(
        vocab=vocab,
        merges=merges,
        options={},
        normalizer=normalizer,
        pre_tokenizer=cut,
        decoding=Decoding("bytes", byte_tokens=False, drops_first_space=False),
        added=(),
    )


def _class_of(settings: _Settings) -> str:
    """The class of transformers that reads vocab.json and merges.txt; a model's name, where that is all."""
    model = settings.config.get("model_type")
    named = settings.tokenizer.get("tokenizer_class") or settings.config.get("tokenizer_class")
    usual = _CLASS_OF_MODEL.get(str(model))
    kind = usual if usual and (model in _MISNAMED or not named) else named or model or "GPT2Tokenizer"
    return str(kind).removesuffix("Fast")


def _with_declared(parts: Parts, settings: _Settings) -> Parts:
    """The parts with the tokens that only the files beside the vocabulary declare."""
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
        if (
            text not in parts.vocab
        ):  # transformers adds it behind the others; here only where the model has a row
            if type(rows) is not int or following >= rows:
                continue
            parts.vocab[text] = following
            following += 1
        token, _ = read_added_token({**flags, "content": text, "special": True, "id": parts.vocab[text]})
        more.append(token)
    return replace(parts, added=(*parts.added, *more)) if more else parts


def _start_ids(
    folder: Path, settings: _Settings, parts: Parts, names: Mapping[str, str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The start tokens, and a note where tokenizer_config.json wants other ones than there are."""
    wanted = settings.tokenizer.get("add_bos_token")
    if (folder / "tokenizer.json").is_file():
        unknown = [id_ for id_ in parts.start_ids if id_ not in parts.vocab.values()]
        if unknown:
            raise BadFile(f"tokenizer.json starts texts with id {unknown[0]}, which is no token")
        if not isinstance(wanted, bool) or wanted == bool(parts.start_ids):
            return parts.start_ids, ()
        does = "a start token" if parts.start_ids else "no start token"
        return parts.start_ids, (
            f"tokenizer_config.json says add_bos_token: {json.dumps(wanted)}, and tokenizer.json gives texts"
            f" {does}: tokenizer.json counts, as in transformers",
        )
    if wanted is not True:
        return (), ()
    usual = "<|endoftext|>" if _class_of(settings) == "GPT2Tokenizer" else ""
    start = parts.vocab.get(names.get("bos_token", usual))
    if start is None:
        return (), (
            "tokenizer_config.json wants a start token (add_bos_token) and its bos_token is no token of the"
            " vocabulary: texts begin without one",
        )
    return (start,), ()


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

    from pophood.text.chat.chat_template import load_template_folder

    template = load_template_folder(folder, names)
    ends = None if template is None else lambda: template.end_ids(vocabulary.specials)
    return Stops(stops, vocabulary.specials, ends)
