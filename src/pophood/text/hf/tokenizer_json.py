"""tokenizer.json, read strictly: a BPE model, its added tokens, and the stages around it.

Only the parts that are understood reach the `tokenizers` library. `folder.py` makes the same parts from
vocab.json with merges.txt, and from OpenAI's encoder.json with vocab.bpe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pophood.errors import BadFile, Unsupported
from pophood.text.gguf.pretokenizers import with_fast_patterns
from pophood.text.hf import stages
from pophood.text.hf.bpe import BpeTables, bpe_model
from pophood.text.hf.hf_tokenizers import AddedToken, LibraryEncoder, missing_bytes
from pophood.text.vocabulary import Vocabulary

Merges = Sequence[tuple[str, str]]

_STAGES = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_DOCUMENT_KEYS = {*_STAGES, "version", "truncation", "padding", "added_tokens", "model"}
_OPTIONS = ("unk_token", "fuse_unk", "byte_fallback", "ignore_merges")
_AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")  # refused: they mark the parts of a word
_MODEL_KEYS = {*_OPTIONS, *_AFFIXES, "type", "dropout", "vocab", "merges"}


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a tokenizer, whichever file they came from."""

    vocab: dict[str, int]
    merges: Merges
    pre_tokenizer: object
    options: dict[str, Any] = field(default_factory=dict)
    normalizer: object = None
    decoding: stages.Decoding = stages.BYTE_LEVEL
    added: tuple[AddedToken, ...] = ()
    start_ids: tuple[int, ...] = ()


def read_tokenizer_json(document: dict[str, Any]) -> Parts:
    """Return the parts of a parsed tokenizer.json; Unsupported if not understood, BadFile if wrong."""
    stages.refuse_unknown(document, _DOCUMENT_KEYS, "tokenizer.json has an unknown part")
    model = document.get("model")
    if not isinstance(model, dict):
        raise BadFile("tokenizer.json has no model")
    vocab, options = _read_model(model)
    normalizer, pre_tokenizer, post_processor, decoder = map(document.get, _STAGES)
    stages.check_normalizer(normalizer)
    spells_bytes = stages.check_pre_tokenizer(pre_tokenizer)
    decoding = stages.read_decoder(decoder)
    if spells_bytes and decoding.spelling == "spaces" and not stages.writes_spaces(normalizer):
        # Mistral's tekken and Llama 3, saved by a SentencePiece class, have a decoder that undoes nothing.
        decoding = stages.BYTE_LEVEL
    if spells_bytes != (decoding.spelling == "bytes"):
        raise Unsupported(
            "the decoder of tokenizer.json does not undo its pre_tokenizer: one of them is ByteLevel"
        )
    vocab = dict(vocab)
    added = tuple(_read_added(document.get("added_tokens") or [], vocab))
    if "unk_token" in options and options["unk_token"] not in vocab:
        raise BadFile(f"unk_token {options['unk_token'][:60]!r} is not in the vocabulary")
    return Parts(
        vocab=vocab,
        merges=read_merges(model.get("merges", [])),
        options=options,
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        decoding=decoding,
        added=added,
        start_ids=stages.read_start_ids(post_processor),
    )


def check_vocab(vocab: object, where: str) -> dict[str, int]:
    """Return a vocabulary (token -> id) if it is one; BadFile otherwise."""
    if not isinstance(vocab, dict) or not set(map(type, vocab.values())) <= {int}:
        raise BadFile(f"{where} is not an object of tokens and their ids")
    return vocab


def read_merges(merges: object) -> Merges:
    """Return merges, written as ["a b", ...] or [["a", "b"], ...], as pairs; BadFile for anything else."""
    if not isinstance(merges, list):
        raise BadFile("the merges are not a list")
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or type(pair[0]) is not str
            or type(pair[1]) is not str
        ):
            raise BadFile(f"merge {len(pairs) + 1:,} is {str(merge)[:60]!r}, not two tokens")
        pairs.append((pair[0], pair[1]))
    return pairs


def build_encoder(parts: Parts, specials: Iterable[str]) -> tuple[LibraryEncoder, Vocabulary]:
    """Build the encoder and the vocabulary; tokens in `specials` are special whatever the parts say.

    A token that merges can produce stays text, whatever a file calls it: hiding "!" because it is used for
    padding would remove it from every answer.
    """
    wanted = {token for token in specials if token in parts.vocab}
    declared = {token.content: token for token in parts.added}
    reachable = _reachable(wanted - declared.keys(), parts.merges)
    special = (wanted - reachable) | {token.content for token in parts.added if token.special}
    added = [
        replace(
            token,
            special=token.content in special,
            normalized=token.normalized and token.content not in wanted,
        )
        for token in parts.added
    ]
    added += [AddedToken(content, True) for content in sorted(special - declared.keys())]
    vocabulary = Vocabulary(
        parts.vocab,
        parts.decoding.spelling,
        specials=special,
        literals=declared if parts.decoding.spelling == "bytes" else (),
        byte_tokens=parts.decoding.byte_tokens,
    )
    unknown = parts.options.get("unk_token")
    by_bytes = parts.decoding.spelling == "bytes" and unknown is None
    encoder = LibraryEncoder(
        BpeTables(_without_holes(vocabulary), parts.merges, **parts.options),
        normalizer=parts.normalizer,
        pre_tokenizer=with_fast_patterns(parts.pre_tokenizer),
        added=added,
        ids=parts.vocab,
        lost=missing_bytes(parts.vocab) if by_bytes else b"",
        unknown=parts.vocab.get(unknown) if unknown is not None else None,
        spells_bytes=by_bytes and parts.normalizer is None and stages.spells_bytes_only(parts.pre_tokenizer),
    )
    return encoder, vocabulary


def unreachable(vocab: dict[str, int], merges: Sequence[tuple[str, str]]) -> set[str]:
    """Return the control tokens: those that are neither one character nor the result of a merge."""
    merged = {left + right for left, right in merges}
    return {token for token in vocab if len(token) != 1 and token not in merged}


def merges_reach_every_word(parts: Parts) -> bool:
    """Return whether merging rebuilds every token from its characters, so `ignore_merges` changes no ids."""
    added = {token.content for token in parts.added}
    plain = {token: id_ for token, id_ in parts.vocab.items() if token not in added}
    vocabulary = Vocabulary(parts.vocab, parts.decoding.spelling)
    options = {**parts.options, "ignore_merges": False}
    model = bpe_model(_without_holes(vocabulary), list(parts.merges), **options)
    return all([piece.id for piece in model.tokenize(token)] == [id_] for token, id_ in plain.items())


def _reachable(tokens: set[str], merges: Merges) -> set[str]:
    if not tokens:
        return set()
    pairs = set(merges)
    return {
        token
        for token in tokens
        if len(token) == 1 or any((token[:cut], token[cut:]) in pairs for cut in range(1, len(token)))
    }


def _read_model(model: dict[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise Unsupported(f"the tokenizer model {str(kind)[:60]!r} is not understood; BPE is")
    stages.refuse_unknown(model, _MODEL_KEYS, "the BPE model of tokenizer.json has an unknown key")
    if model.get("dropout"):
        raise Unsupported("the tokenizer has dropout: the same text would get different ids each time")
    if any(model.get(key) for key in _AFFIXES):
        raise Unsupported(
            "the tokenizer marks the parts of a word (prefix or suffix), which is not understood"
        )
    options = {key: model[key] for key in _OPTIONS if model.get(key) not in (None, "")}
    if not isinstance(options.get("unk_token", ""), str):
        raise BadFile("unk_token of tokenizer.json is not text")
    for key in _OPTIONS[1:]:
        if not isinstance(options.get(key, False), bool):
            raise BadFile(f"{key} of tokenizer.json is not true or false")
    vocab = check_vocab(model.get("vocab"), "the vocabulary of tokenizer.json")
    return vocab, options


def _read_added(entries: object, vocab: dict[str, int]) -> Iterable[AddedToken]:
    """Yield the added tokens, adding those that the vocabulary lacks to it."""
    if not isinstance(entries, list):
        raise BadFile("added_tokens of tokenizer.json is not a list")
    seen: set[str] = set()
    for entry in entries:
        token, id_ = read_added_token(entry)
        if token.content in seen:
            raise BadFile(f"the added token {token.content[:60]!r} is listed twice")
        seen.add(token.content)
        if vocab.setdefault(token.content, id_) != id_:
            raise BadFile(
                f"the added token {token.content[:60]!r} has id {id_}, but id {vocab[token.content]} in the"
                " vocabulary"
            )
        yield token


def read_added_token(entry: object) -> tuple[AddedToken, int]:
    """Check one entry of added_tokens and return the token and its id."""
    if not isinstance(entry, dict):
        raise BadFile("an added token is not an object")
    content, id_ = entry.get("content"), entry.get("id")
    if not isinstance(content, str) or not content or type(id_) is not int:
        raise BadFile(f"an added token has content {str(content)[:60]!r} and id {str(id_)[:60]!r}")
    flags = {
        key: entry.get(key, False) for key in ("special", "lstrip", "rstrip", "single_word", "normalized")
    }
    for key, flag in flags.items():
        if not isinstance(flag, bool):
            raise BadFile(f"the added token {content[:60]!r} has {key} {str(flag)[:60]!r}, not true or false")
    return AddedToken(content, **flags), id_


def _without_holes(vocabulary: Vocabulary) -> dict[str, int]:
    """Return the vocabulary for the library, which numbers added tokens from its length.

    Unused ids get names that no text contains.
    """
    if vocabulary.size == len(vocabulary.ids):
        return vocabulary.ids
    holes = (id_ for id_ in range(vocabulary.size) if vocabulary.spelling_of(id_) is None)
    return vocabulary.ids | {f"\U0010fff0unused {id_}": id_ for id_ in holes}
