"""Makes the keys `tokenizer.*` of a GGUF file: copies them from a GGUF file, or derives them from a folder.

Byte-level BPE becomes model "gpt2", with GGUF's name for its pre-tokenizer; SentencePiece-style BPE becomes
model "llama", whose scores are the ranks of its merges. A tokenizer that GGUF cannot express is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pophood.errors import BadInput, Unsupported
from pophood.export.merged import source_folder, source_metadata
from pophood.families.family import listed
from pophood.model.bundle import Bundle
from pophood.text.gguf.gguf_vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from pophood.text.gguf.pretokenizers import CUT_BY_STEPS, WordCut, steps_of
from pophood.text.hf.folder import folder_parts
from pophood.text.hf.hf_tokenizers import missing_bytes
from pophood.text.hf.tokenizer_json import Parts, merges_reach_every_word
from pophood.text.vocabulary import BYTE_TOKEN

_PREFIX = "tokenizer.ggml."
_NAMES = {
    "bos_token": "bos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")


def tokenizer_keys(bundle: Bundle, template: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return every `tokenizer.*` key of a model, and notes; Unsupported for what GGUF cannot express."""
    notes: list[str] = []
    if bundle.file_format == "gguf":
        keys = {
            key: value
            for key, value in source_metadata(bundle).items()
            if key.startswith("tokenizer.") and _plain(value)
        }
    else:
        parts = folder_parts(source_folder(bundle))
        keys = _vocabulary(bundle, parts, notes) | _ids(bundle)
        if template is None and bundle.chat_template is not None:
            template = bundle.chat_template.source
    if template is not None:
        keys["tokenizer.chat_template"] = template
    return keys, notes


def _plain(value: object) -> bool:
    """Return whether a value can be written; no key that a tokenizer needs has nested arrays."""
    return not isinstance(value, list) or all(isinstance(item, str) for item in value)


def _ids(bundle: Bundle) -> dict[str, Any]:
    """Return the keys that name the tokens which start and end a text."""
    tokenizer = bundle.tokenizer
    if len(tokenizer.start_ids) > 1:
        raise Unsupported(
            f"texts begin with {len(tokenizer.start_ids)} tokens here, but GGUF has one start token: export"
            " it as a folder"
        )
    keys: dict[str, Any] = {f"{_PREFIX}add_bos_token": bool(tokenizer.start_ids)}
    named = {
        key: tokenizer.id_of(tokenizer.names[name]) for name, key in _NAMES.items() if name in tokenizer.names
    }
    if tokenizer.start_ids:
        named["bos_token_id"] = tokenizer.start_ids[0]
    end = tokenizer.id_of(tokenizer.names["eos_token"]) if "eos_token" in tokenizer.names else None
    ends = sorted(tokenizer.stops, key=lambda id_: (id_ != end, id_))
    named |= dict(zip(_ENDS, ends, strict=False))
    rows = bundle.config.vocab_size
    return keys | {f"{_PREFIX}{key}": id_ for key, id_ in named.items() if id_ is not None and id_ < rows}


def _vocabulary(bundle: Bundle, parts: Parts, notes: list[str]) -> dict[str, Any]:
    size, rows = bundle.tokenizer.vocab_size, bundle.config.vocab_size
    by_id = {id_: token for token, id_ in parts.vocab.items()}
    if size > rows:
        notes.append(_without_rows(bundle, parts, by_id))
    tokens = [by_id.get(id_, f"[PAD{id_}]") for id_ in range(rows)]
    specials, added = bundle.tokenizer.specials, {token.content for token in parts.added}
    unknown = bundle.tokenizer.names.get("unk_token")
    types = [
        UNUSED
        if id_ not in by_id
        else UNKNOWN
        if token == unknown and id_ in specials
        else CONTROL
        if id_ in specials
        else USER_DEFINED
        if token in added
        else BYTE
        if parts.decoding.byte_tokens and BYTE_TOKEN.fullmatch(token)
        else NORMAL
        for id_, token in enumerate(tokens)
    ]
    keys: dict[str, Any] = {f"{_PREFIX}tokens": tokens, f"{_PREFIX}token_type": np.array(types, np.int32)}
    if parts.decoding.spelling == "bytes":
        name = {f"{_PREFIX}model": "gpt2", f"{_PREFIX}pre": _pre(parts, notes)}
        return name | keys | {f"{_PREFIX}merges": [" ".join(pair) for pair in parts.merges]}
    _check_spaces(parts)
    scores = _scores(tokens, parts)
    return {
        f"{_PREFIX}model": "llama",
        f"{_PREFIX}pre": "default",
        **keys,
        f"{_PREFIX}scores": scores,
        f"{_PREFIX}add_space_prefix": parts.decoding.drops_first_space,
    }


def _without_rows(bundle: Bundle, parts: Parts, by_id: dict[int, str]) -> str:
    """Return a note on added tokens without a row in the model, which GGUF has no place for.

    Raises BadInput if texts need such a token, or begin or end with one.
    """
    rows = bundle.config.vocab_size
    beyond = {id_: token for id_, token in by_id.items() if id_ >= rows}
    needed = {token for token in beyond.values() if token not in {added.content for added in parts.added}}
    needed |= {beyond[id_] for id_ in (*bundle.tokenizer.start_ids, *bundle.tokenizer.stops) if id_ in beyond}
    if needed:
        raise BadInput(
            f"the tokenizer has {bundle.tokenizer.vocab_size:,} tokens, but the model has rows for {rows:,}:"
            f" texts need {listed(sorted(needed))}, which it cannot read: the files do not belong together;"
            " fetch them again"
        )
    return f"the model has no rows for the tokens {listed(beyond.values())}: the file leaves them out"


def _check_spaces(parts: Parts) -> None:
    """Raise Unsupported unless the stages do nothing but write spaces as U+2581, as GGUF's "llama" does."""
    odd = [kind for kind in _normalizers(parts.normalizer) if kind not in ("Prepend", "Replace")]
    odd += [kind for kind in steps_of(parts.pre_tokenizer) if kind not in ("nothing", "Metaspace")]
    if odd:
        raise Unsupported(
            f"GGUF cannot express how this tokenizer changes a text ({', '.join(odd)[:120]}): export it as a"
            " folder"
        )


def _scores(tokens: list[str], parts: Parts) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return each token's score: minus the rank of the first merge that makes it, so earlier merges win."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(parts.merges):
        ranks.setdefault(left + right, rank)
    last = len(parts.merges)
    return np.array([-float(ranks.get(token, last)) for token in tokens], np.float32)


def _pre(parts: Parts, notes: list[str]) -> str:
    """Return GGUF's name for the pre-tokenizer of these parts, from the table that reads both formats."""
    others = [key for key, value in parts.options.items() if key != "ignore_merges" and value]
    if not missing_bytes(parts.vocab):
        others = []  # they concern unknown characters, of which there are none
    cut = None if others else _cut(parts)
    if cut is None:
        ways = " + ".join([*steps_of(parts.pre_tokenizer), *others])
        raise Unsupported(
            f"GGUF has no name for how this tokenizer splits words ({ways[:160]}): export it as a folder"
        )
    if cut.differing and steps_of(parts.pre_tokenizer) not in (
        steps_of(cut.in_gguf),
        steps_of(cut.in_folder),
    ):
        notes.append(
            f"under the name {cut.names[0]!r}, GGUF's readers split some rare texts differently from this"
            " tokenizer"
        )
    normalizers = _normalizers(parts.normalizer)
    if normalizers == ["NFC"]:
        notes.append("GGUF's readers do not normalise text to Unicode NFC, as this tokenizer does")
    elif normalizers:
        raise Unsupported("GGUF cannot express this tokenizer's normalizer: export it as a folder")
    return cut.names[0]


def _cut(parts: Parts) -> WordCut | None:
    steps, ignores = steps_of(parts.pre_tokenizer), bool(parts.options.get("ignore_merges"))
    cut = CUT_BY_STEPS.get((steps, ignores))
    if cut is None and (steps, not ignores) in CUT_BY_STEPS and merges_reach_every_word(parts):
        return CUT_BY_STEPS[steps, not ignores]  # whole words or their merges give the same ids
    return cut


def _normalizers(stage: object) -> list[str]:
    """Return the types of a normalizer's steps; [] for one that does nothing."""
    if not isinstance(stage, dict):
        return []
    if stage.get("type") == "Sequence":
        return [kind for step in stage["normalizers"] for kind in _normalizers(step)]
    return [str(stage.get("type"))]
